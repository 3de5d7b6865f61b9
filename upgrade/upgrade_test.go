//go:build linux

package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/upgrade"
)

// TestUpgrade replaces a server many times, in both ways, while clients that retry nothing connect.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"new process", "in place"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := start(t, how)
			first, files := r.pid, r.files
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var clients sync.WaitGroup
			for _, where := range [][2]string{{"tcp", r.tcp}, {"tcp", r.tcp}, {"unix", r.dir + "/socket"}} {
				clients.Go(func() {
					n := 0
					for ; ctx.Err() == nil; n++ {
						if _, err := ask(where[0], where[1]); err != nil {
							t.Errorf("%s: %v", where[0], err)
							return
						}
						if !test.Full() {
							time.Sleep(2 * time.Millisecond)
						}
					}
					t.Logf("%s: %d answered", where[0], n)
				})
			}
			clients.Go(func() { readPIDs(ctx, t, r.dir+"/pid") })
			upgrades := test.Times(5, 20)
			for i := range upgrades {
				r.hangUp()
				r.up(i + 1)
				if (r.pid == first) != (how == "in place") {
					t.Errorf("the process was %d and is %d", first, r.pid)
				}
			}
			cancel()
			clients.Wait()
			r.answered(upgrades)
			// New processes know their predecessors that have not ended, and each has just had clients.
			const known = 2 + 2
			open := 0
			for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.pid))
				if open = len(fds); open <= files+known {
					break
				}
			}
			if open > files+known {
				t.Errorf("%d descriptors are open, %d at first", open, files)
			}
			names, _ := filepath.Glob(r.dir + "/file*")
			if len(names) != 1 {
				t.Fatalf("files %v", names)
			}
			text, _ := os.ReadFile(names[0])
			for i := range upgrades + 1 {
				if got := strings.Fields(string(text))[i]; got != strconv.Itoa(i) {
					t.Errorf("line %d of the file is %q", i, got)
				}
			}
			r.stop()
		})
	}
}

// readPIDs reads a PID file again and again: it always holds the ID of a process that there is.
func readPIDs(ctx context.Context, t *testing.T, file string) {
	for ctx.Err() == nil {
		text, err := os.ReadFile(file)
		pid, _ := strconv.Atoi(strings.TrimSuffix(string(text), "\n"))
		if err != nil || pid == 0 {
			t.Errorf("the PID file has %q, %v", text, err)
			return
		}
		err = syscall.Kill(pid, 0)
		if again, _ := os.ReadFile(file); err != nil && string(again) == string(text) {
			t.Errorf("the PID file has %d, which has ended", pid)
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// TestBadSuccessors has the server go on when the executable is no good, and then upgrade to a good one.
func TestBadSuccessors(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"new process", "in place"} {
		for bad, want := range map[string]string{
			"exits":       "exit status 3",
			"hangs":       "not ready within 3s",
			"panics":      "it ended before it was ready: exit status 2",
			"never ready": "not ready within 3s",
			"missing":     "no such file or directory",
			"text":        "exec format error",
			"other":       "ended",
		} {
			if how == "in place" && (bad == "panics" || bad == "never ready") {
				continue // too late
			}
			t.Run(how+", "+bad, func(t *testing.T) {
				t.Parallel()
				settings := []string{how}
				if want == "not ready within 3s" { // which on a busy machine any may be
					settings = append(settings, "impatient")
				}
				r := start(t, settings...)
				switch bad {
				case "missing":
					r.link("v2")
				case "text", "other":
					if err := os.Mkdir(r.dir+"/v2", 0o755); err != nil {
						t.Fatal(err)
					}
					text := map[string]string{"text": "no program\n", "other": "#!/bin/sh\nexit 0\n"}[bad]
					if err := program.WriteExecutable(r.dir+"/v2/server", []byte(text)); err != nil {
						t.Fatal(err)
					}
					r.link("v2")
				default:
					r.set(bad, true)
				}
				if how == "in place" && bad == "other" {
					want = "it ended with exit status 0 before it answered"
				}
				for range 2 {
					r.hangUp()
					if got := r.next("failed:"); !strings.Contains(got, want) || !strings.HasPrefix(got, "upgrade: ") {
						t.Errorf("%q; want something about %q", got, want)
					}
					r.answered(0)
				}
				if slices.Contains([]string{"missing", "text", "other"}, bad) {
					r.link("v1")
				} else {
					r.set(bad, false)
				}
				// On a busy machine the good one, too, may take longer than is allowed here.
				for line := ""; !strings.HasPrefix(line, "up:"); {
					r.hangUp()
					line = r.Says(regexp.MustCompile("^(up|failed):.*"))[0]
					fmt.Sscanf(line, "up: 1 %d", &r.pid)
				}
				r.answered(1)
				r.stop()
			})
		}
	}
}

// TestPredecessorsLinger upgrades again while predecessors have not ended.
func TestPredecessorsLinger(t *testing.T) {
	t.Parallel()
	r := start(t, "lingers")
	for i := range 3 {
		r.hangUp()
		r.up(i + 1)
	}
	r.hangUp()
	if got, want := r.next("failed:"), "3 predecessors have not ended yet, and MaxDraining is 2"; !strings.Contains(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
	r.answered(3)
	r.set("lingers", false)
	for range 3 {
		r.next("done:")
	}
	for len(r.Processes()) > 1 {
		time.Sleep(time.Millisecond)
	}
	r.hangUp()
	r.up(4)
	r.stop()
}

// TestEndsAtOnce has a successor that is told to stop as soon as it is ready: its predecessor has been replaced all the
// same, and does not serve what was stopped.
func TestEndsAtOnce(t *testing.T) {
	t.Parallel()
	for range test.Times(5, 20) {
		r := start(t, "ends at once")
		r.hangUp()
		r.next("done: 0")
		r.wait()
	}
}

func TestErrors(t *testing.T) {
	defer upgrade.ForgetNew()
	for _, c := range []upgrade.Config{{MaxDraining: -1}, {ReadyTimeout: -1}} {
		if _, err := upgrade.New(&c); err == nil || !strings.Contains(err.Error(), "negative") {
			t.Errorf("a wrong configuration: %v", err)
		}
		upgrade.ForgetNew()
	}
	u, err := upgrade.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := upgrade.New(nil); err == nil || !strings.Contains(err.Error(), "called before") {
		t.Errorf("New again: %v", err)
	}
	if u.Inherited() || u.State() != nil || u.Returned() != "" {
		t.Error("something was inherited")
	}
	if err := u.Upgrade(t.Context()); err == nil || !strings.Contains(err.Error(), "Ready was not called") {
		t.Errorf("before Ready: %v", err)
	}
	if f, err := u.File("nothing"); f != nil || err != nil {
		t.Errorf("a file that nobody added: %v, %v", f, err)
	}
	why := errors.New("why")
	if err := u.HandBack(why); err != why {
		t.Errorf("handed back to nobody: %v", err)
	}
	_, err = u.Listen(t.Context(), "tcp", "256.0.0.1:0")
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		t.Errorf("a wrong address: %v", err)
	}
	l, err := u.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if again, err := u.Listen(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("its address again: %v, %v", again, err)
	}
	if err := u.WaitParent(t.Context()); err != nil {
		t.Errorf("without a predecessor: %v", err)
	}
	if err := u.Ready(); err != nil {
		t.Error(err)
	}
	if err := u.HandBack(why); !errors.Is(err, why) || !strings.Contains(err.Error(), "no way back") {
		t.Errorf("handed back after Ready: %v", err)
	}
	for range 2 {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	}
	<-u.Done()
	_, lerr := u.Listen(t.Context(), "tcp", "127.0.0.1:0")
	_, ferr := u.File("file")
	for what, err := range map[string]error{
		"Upgrade": u.Upgrade(t.Context()), "Listen": lerr, "File": ferr, "AddFile": u.AddFile("file", os.Stdin),
		"SetState": u.SetState(nil), "Ready": u.Ready(),
	} {
		if !errors.Is(err, upgrade.ErrDone) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	if err := u.Finish(); err != nil {
		t.Error(err)
	}
}
