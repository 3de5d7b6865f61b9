//go:build linux

package pack_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

func init() { programs["talking"] = talkingProgram }

// talkingProgram writes to stderr wherever it can.
func talkingProgram() error {
	fmt.Fprintln(os.Stderr, "a program")
	c, address := configFlags()
	flag.Parse()
	say := func(context.Context) error {
		fmt.Fprintln(os.Stderr, "a hook")
		return nil
	}
	c.OnStart, c.OnWorkerStart = say, say
	return serve(c, *address, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		fmt.Fprintln(os.Stderr, "a request")
	})})
}

// TestReaderOfLogEnds has what reads the log of a pack end. Nothing that the pack writes from then on may end any of
// its processes: it must serve, replace a worker, reload, upgrade and stop as always.
func TestReaderOfLogEnds(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "talking", func(cmd *exec.Cmd) {
		cmd.Stdout, cmd.Stderr = w, w
	}, "-workers=2", "-address=tcp 127.0.0.1:0")
	w.Close()
	r.SetReadDeadline(time.Now().Add(program.Patience))
	var address string
	for lines := bufio.NewScanner(r); address == "" && lines.Scan(); {
		if found := regexp.MustCompile(`"pack is up".*\["tcp (\S+)"\]`).FindStringSubmatch(lines.Text()); found != nil {
			address = found[1]
		}
	}
	r.Close()
	if address == "" {
		t.Fatal("the pack is not up")
	}
	u := apply(t, strictclient.Load{Network: "tcp", Address: address, Clients: 4, KeepAlive: true})
	u.until(&u.answered, 100)
	before := p.Workers()
	p.Signal(syscall.SIGUSR1) // which writes much
	p.Signal(syscall.SIGHUP)
	before = p.Replaced(before, 2)
	p.Signal(syscall.SIGUSR2)
	before = p.Replaced(before, 2)
	p.Signal(syscall.SIGTTIN)
	before = p.Replaced(before, 3)
	loseNothing(t, u)
	for _, pid := range before {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	p.Replaced(before, 3)
	p.Stop()
}

// TestReaderOfLogStallsOverUpgrade has nobody read the log while much is written to it, and the pack is upgraded. What
// the old program could not write is lost, but not without a word of the new one.
func TestReaderOfLogStallsOverUpgrade(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=2")
	p.Addresses()
	read := p.Flood(syscall.SIGUSR1, 500)
	defer read()
	before := p.Workers()
	p.Signal(syscall.SIGUSR2)
	p.Replaced(before, 2)
	read()
	lost := p.Logged(1, "lines of the log were lost: what reads it was too slow")
	p.Logged(1, "upgraded")
	t.Logf("%v lines were lost", lost["lines"])
	p.Stop()
}

// TestReaderOfLogStallsAndMasterIsKilled has nobody read the log when the master is killed. The workers, which say that
// it is gone, end all the same.
func TestReaderOfLogStallsAndMasterIsKilled(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=2")
	p.Addresses()
	read := p.Flood(syscall.SIGUSR1, 500)
	defer read()
	p.Signal(syscall.SIGKILL)
	p.Wait(inTime)
	p.Until("the workers to end", program.Patience, func() bool { return len(p.Processes()) == 0 })
}
