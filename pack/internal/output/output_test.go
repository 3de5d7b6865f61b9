package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopherpack/gopherpack/procgroup"
)

// writes notes each Write.
type writes struct {
	mu  sync.Mutex
	all []string
}

func (w *writes) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(b))
	return len(b), nil
}

func line(id int, text string) procgroup.Line {
	return procgroup.Line{ID: id, PID: 100 + id, Stderr: true, Text: text}
}

// TestCrash has two workers crash at once, while a third writes.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(writes)
		w := &Writer{Form: Journal, Stderr: out}
		for _, l := range []procgroup.Line{
			line(1, "panic: boom"), line(3, "hello"), line(1, ""), line(2, "fatal error: no"),
			line(1, "goroutine 1 [running]:"), line(3, "<4>a warning"), line(2, "exit status 2"),
		} {
			w.Take(l)
		}
		w.Take(procgroup.Line{ID: 3, PID: 103, Stderr: true, Text: "cut", Part: true})
		synctest.Wait()
		before := []string{"worker 3[103]: hello\n", "<4>worker 3[103]: a warning\n", "worker 3[103]: cut [goes on]\n"}
		if !slices.Equal(out.all, before) {
			t.Errorf("before the crashes are over: %q; want %q", out.all, before)
		}
		w.Flush()
		slices.Sort(out.all[3:])
		after := []string{
			"<3>worker 1[101]: panic: boom\n<3>worker 1[101]: \n<3>worker 1[101]: goroutine 1 [running]:\n",
			"<3>worker 2[102]: fatal error: no\n<3>worker 2[102]: exit status 2\n",
		}
		if !slices.Equal(out.all[3:], after) {
			t.Errorf("the crashes: %q; want %q", out.all[3:], after)
		}
	})
}

// TestCrashIsOver has a crash be over by itself, when nothing comes, or when it is too long.
func TestCrashIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(writes)
		w := &Writer{Stderr: out}
		w.Take(line(1, "panic: boom"))
		time.Sleep(quiet) // of the bubble's clock
		synctest.Wait()
		if want := []string{"worker 1[101]: panic: boom\n"}; !slices.Equal(out.all, want) {
			t.Errorf("%q; want %q", out.all, want)
		}
		for range 5 {
			w.Take(line(2, "panic: "+strings.Repeat("x", maxCrash/4)))
		}
		if len(out.all) != 2 || !strings.HasPrefix(out.all[1], "worker 2[102]: panic: xx") {
			t.Errorf("a long one: %.40q", out.all)
		}
		w.Flush()
	})
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	w := &Writer{Form: JSON, Stdout: &out, Stderr: &out}
	const own = `{"msg":"mine"}`
	w.Take(line(1, own))
	w.Take(procgroup.Line{ID: 1, PID: 101, Text: `{"msg":"half`})
	w.Take(line(1, "panic: boom"))
	w.Take(line(1, "goroutine 1"))
	w.Flush()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || lines[0] != own {
		t.Fatalf("%q", lines)
	}
	for i, want := range []string{`INFO {"msg":"half 1 101`, "ERROR panic: boom\ngoroutine 1 1 101"} {
		var r struct {
			Level, Msg  string
			Worker, PID int
		}
		if err := json.Unmarshal([]byte(lines[i+1]), &r); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(r.Level, " ", r.Msg, " ", r.Worker, " ", r.PID); got != want {
			t.Errorf("%q; want %q", got, want)
		}
	}
}
