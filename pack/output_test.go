//go:build linux

package pack_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/pack"
)

func init() {
	systemHandlers["/chatter"] = func(w http.ResponseWriter, r *http.Request) {
		go func() {
			for {
				fmt.Fprintln(os.Stderr, "chatter")
				time.Sleep(100 * time.Microsecond)
			}
		}()
	}
	systemHandlers["/good-bye"] = func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-pack.Draining(r.Context())
		fmt.Fprint(os.Stdout, "on stdout\n")
		fmt.Fprint(os.Stderr, "good-")
		fmt.Fprint(os.Stderr, "bye\n")
	}
	systemHandlers["/flood"] = func(w http.ResponseWriter, r *http.Request) {
		line := bytes.Repeat([]byte("flood "), 20)
		line[len(line)-1] = '\n'
		for range 64 << 20 / len(line) {
			if _, err := os.Stderr.Write(line); err != nil {
				fmt.Fprint(w, err)
				return
			}
		}
		io.WriteString(w, "done")
	}
	systemHandlers["/orphaned"] = func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		for master := os.Getppid(); os.Getppid() == master; {
			time.Sleep(time.Millisecond)
		}
		for err := io.EOF; err != nil; time.Sleep(time.Millisecond) { // at first nobody reads it
			_, err = os.Stdout.WriteString("an orphan on stdout\n")
		}
		os.Stderr.WriteString("an orphan on stderr\n")
		io.WriteString(w, "answered")
	}
}

// ask sends a request to a pack on a connection of its own, and returns the answer, "" if there is none.
func (p *running) ask(path string) string {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + p.Address() + path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}

// TestPrefixOutput has a worker crash while others write.
func TestPrefixOutput(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=3", "-prefix")
	for range 20 {
		p.ask("/chatter")
	}
	p.ask("/crash")
	p.Logged(1, "worker ready")
	lines := p.Says(regexp.MustCompile(`^(worker \d\[\d+\]: )panic: the client$`))
	prefix := lines[1]
	p.Says(regexp.MustCompile(`^worker \d\[\d+\]: chatter$`))
	p.Stop()
	var ours []int // where what that worker wrote from then on stands
	for i, l := range p.Lines(0) {
		if strings.HasPrefix(l.Text, prefix) && (len(ours) > 0 || strings.HasPrefix(l.Text, prefix+"panic: ")) {
			ours = append(ours, i)
		}
		if l.Record == nil && !regexp.MustCompile(`^worker \d\[\d+\]: `).MatchString(l.Text) {
			t.Errorf("nobody says who wrote %q", l.Text)
		}
	}
	if len(ours) < 4 || ours[len(ours)-1]-ours[0] != len(ours)-1 {
		t.Errorf("the lines of the crash are at %v", ours)
	}
}

// TestPrefixOutputOverUpgrade has an old worker write when another program has become its master.
func TestPrefixOutputOverUpgrade(t *testing.T) {
	t.Parallel()
	p := start(t, "http", func(c *exec.Cmd) { inShell(c, "exec 1>&2") }, "-workers=1", "-prefix")
	address := p.Address()
	old := p.Workers()[0]
	resp, err := http.Get("http://" + address + "/good-bye")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgraded")
	prefix := fmt.Sprintf("worker 0[%d]: ", old)
	for _, text := range []string{"on stdout", "good-bye"} {
		p.Until(text, program.Patience, func() bool {
			return slices.Contains(p.Other(), prefix+text)
		})
	}
	p.Stop()
}

// TestPrefixOutputWithoutMaster kills the master, who reads what its workers write. They finish what they have, and what
// they write goes to where the master wrote.
func TestPrefixOutputWithoutMaster(t *testing.T) {
	t.Parallel()
	p := start(t, "http", func(c *exec.Cmd) { inShell(c, "exec 1>&2") }, "-workers=1", "-prefix")
	resp, err := http.Get("http://" + p.Address() + "/orphaned")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p.Signal(syscall.SIGKILL)
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "answered" {
		t.Errorf("%q, %v; want a request that is answered", body, err)
	}
	p.NoneLeft()
	for _, want := range []string{"an orphan on stdout", "an orphan on stderr"} {
		if !slices.Contains(p.Other(), want) {
			t.Errorf("nobody wrote %q", want)
		}
	}
	if p.Count("the master is gone, stopping") != 1 {
		t.Error("it does not say that its master is gone")
	}
}

// TestPrefixOutputOfFlood has a worker write faster than can be read, while nobody reads the log. It must not wait for
// that, and neither must the pack.
func TestPrefixOutputOfFlood(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=2", "-prefix", "-minready=20ms")
	p.Addresses()
	read := p.Stall()
	if got := p.ask("/flood"); got != "done" {
		t.Errorf("the flood: %q", got)
	}
	before := p.Workers()
	p.Signal(syscall.SIGHUP)
	p.Replaced(before, 2)
	read()
	p.Says(regexp.MustCompile(`^worker \d\[\d+\]: \[\d+ lines were lost: they came faster than they were taken\]$`))
	p.Logged(1, "reloaded")
	p.Stop()
}
