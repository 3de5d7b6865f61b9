//go:build linux

package upgrade_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/upgrade"
)

// asLoop makes the test binary become itself again and again, until TERM ends it. It writes a byte each time.
const asLoop = "UPGRADE_TEST_LOOP"

func loop(string) error {
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	if e := upgrade.Inherited(); e != nil {
		e.Close()
	}
	os.Stdout.WriteString(".")
	image, err := upgrade.RunningImage()
	if err != nil {
		return err
	}
	err = upgrade.Become(image, nil, nil, upgrade.Signals{
		Stop: []os.Signal{syscall.SIGTERM}, Ignore: []os.Signal{syscall.SIGHUP},
		Late: func() os.Signal {
			select {
			case s := <-terms:
				return s
			default:
				return nil
			}
		},
	})
	if _, late := errors.AsType[upgrade.LateSignal](err); late {
		return nil
	}
	return err
}

// TestNoSignalIsLost sends signals to programs that become another, at many moments: HUP does nothing, TERM ends them.
func TestNoSignalIsLost(t *testing.T) {
	notEmulated(t)
	for i := range test.Times(60, 400) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), asLoop+"=1", "GORACE=atexit_sleep_ms=0")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		survived := time.AfterFunc(20*time.Second, func() {
			t.Error("TERM was lost")
			cmd.Process.Kill()
		})
		if _, err := io.ReadFull(out, make([]byte, 1+i%3)); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Duration(i%60) * 500 * time.Microsecond); time.Now().Before(end); {
			cmd.Process.Signal(syscall.SIGHUP)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		io.Copy(io.Discard, out)
		err = cmd.Wait()
		survived.Stop()
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); err != nil && status.Signal() != unix.SIGTERM {
			t.Errorf("it ended by %v", err)
		}
	}
}
