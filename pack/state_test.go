//go:build linux

package pack_test

import (
	"bytes"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/pack"
)

func init() { programs["logging"] = loggingProgram }

// loggingProgram writes a line for each request to a file, which OnReopen opens anew.
func loggingProgram() error {
	c, address := configFlags()
	name := flag.String("log", "", "")
	flag.Parse()
	var mu sync.Mutex
	var file *os.File
	c.OnReopen = func() {
		f, err := os.OpenFile(*name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			panic(err)
		}
		mu.Lock()
		defer mu.Unlock()
		file.Close()
		file = f
		c.Logger.Info("reopened", "isMaster", pack.IsMaster())
	}
	if !pack.IsMaster() {
		c.OnReopen()
	}
	return serve(c, *address, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		file.WriteString(r.URL.Path + "\n")
	})})
}

// TestReopen renames the log file, as logrotate(8) does, and sends USR1: what comes after goes to a new file, and the
// state of each worker is in the log.
func TestReopen(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "access.log")
	p := start(t, "logging", nil, "-workers=2", "-log="+name)
	get(t, p, "/before")
	if err := os.Rename(name, name+".1"); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGUSR1)
	p.Logged(5, "reopened") // both workers, twice, and the master
	for range 20 {
		get(t, p, "/after")
	}
	if old, _ := os.ReadFile(name + ".1"); string(old) != "/before\n" {
		t.Errorf("the old file has %q", old)
	}
	if fresh, _ := os.ReadFile(name); !bytes.Equal(fresh, bytes.Repeat([]byte("/after\n"), 20)) {
		t.Errorf("the new file has %q", fresh)
	}
	for i, pid := range p.Workers() {
		syscall.Kill(pid, syscall.SIGUSR1) // by mistake: it must not end the worker
		r := p.Logged(i+1, "state of a worker")
		if r["state"] != "up" || r["worker"] != float64(i) {
			t.Error(r)
		}
	}
	served := func() (n float64) {
		before := p.Count("state of a worker")
		p.Signal(syscall.SIGUSR1)
		for i := range 2 {
			n += p.Logged(before+i+1, "state of a worker")["served"].(float64)
		}
		return n
	}
	// They tell once a second.
	for deadline := time.Now().Add(program.Patience); served() != 21; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v requests were served", served())
		}
	}
	p.Stop()
}

// TestReopenInline sends USR1 to a pack that is one process.
func TestReopenInline(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "access.log")
	p := start(t, "logging", nil, "-inline", "-log="+name)
	p.ListeningOn("pack serves in line, in one process")
	p.Signal(syscall.SIGUSR1)
	p.Logged(1, "reopened")
	p.Stop()
}
