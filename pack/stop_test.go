//go:build linux

package pack_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
)

// TestStopAnswersWhatIsUnderWay stops a pack under a load of 2-second requests, on new and kept-alive connections.
func TestStopAnswersWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			p := start(t, "http", nil)
			const clients = 40
			slow := load(p, clients, 1)
			slow.Path, slow.KeepAlive = "/slow", s == syscall.SIGINT
			u := apply(t, slow)
			u.until(&u.sent, clients)
			p.Signal(s)
			r := u.finish()
			if r.Requests != clients || r.Bodies["slow"] != clients || r.Failed() != 0 {
				t.Errorf("%v; want all %d answered", r, clients)
			}
			if status := p.Wait(inTime); status != 0 {
				t.Errorf("exit status %d", status)
			}
			stopped := p.Logged(1, "stopped")
			if stopped["cut"] != 0.0 {
				t.Errorf("%v", stopped)
			}
		})
	}
}

// TestStopUnderNewConnections stops a pack while clients connect as fast as they can. Whoever the kernel accepted
// gets an answer; who comes too late is refused, and nobody is reset.
func TestStopUnderNewConnections(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("keeping new connections out needs CAP_NET_ADMIN")
	}
	t.Parallel()
	for range test.Times(2, 5) {
		p := start(t, "http", nil)
		u := apply(t, load(p, 16, 0))
		u.until(&u.answered, 500)
		p.Stop()
		comeTooLate(t, u)
	}
}

func TestHangingHandlerIsCut(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-shutdown=2s")
	hanging := load(p, 3, 1)
	hanging.Path = "/hang"
	u := apply(t, hanging)
	u.until(&u.sent, 3)
	p.Stop()
	if r := u.finish(); r.Failed() != 3 {
		t.Errorf("%v", r)
	}
	if stopped := p.Logged(1, "stopped"); stopped["cut"] != 3.0 {
		t.Errorf("the log does not tell of 3 cut connections: %v", stopped)
	}
}

// TestSameSignalTwice sends the signal to stop twice, as timeout(1) does, and an entry script whose process group is
// told, too: that is one wish, and nothing is cut.
func TestSameSignalTwice(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-shutdown=20s")
	l := load(p, 4, 1)
	l.Path = "/slow"
	u := apply(t, l)
	u.until(&u.sent, 4)
	p.Signal(syscall.SIGTERM)
	p.Logged(1, "stopping")
	p.Signal(syscall.SIGTERM)
	status := p.Wait(inTime)
	p.WaitSilent()
	if status != 0 || p.Count("second signal, killing the workers") > 0 {
		t.Errorf("exit status %d", status)
	}
	if r := u.finish(); r.Failed() > 0 {
		t.Errorf("%v", r)
	}
}

func TestSecondSignalKills(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-shutdown=1h")
	hanging := load(p, 1, 1)
	hanging.Path = "/hang"
	u := apply(t, hanging)
	u.until(&u.sent, 1)
	p.Signal(syscall.SIGTERM)
	p.Logged(1, "stopping")
	p.Signal(syscall.SIGINT)
	if status := p.Wait(inTime); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	if !p.Said("stopped by force") {
		t.Error("the log does not say that it was forced")
	}
	u.finish()
}

// TestIdleConnectionsAreToldToClose has clients that pause between requests on a connection that they keep. Nobody may
// lose it unawares.
func TestIdleConnectionsAreToldToClose(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-drain=1s")
	l := load(p, 20, 0)
	l.KeepAlive, l.Pause = true, 20*time.Millisecond
	u := apply(t, l)
	u.until(&u.answered, 20)
	p.Stop()
	comeTooLate(t, u)
}

// TestSignalsForTheMaster sends workers what operators send to every process of the program.
func TestSignalsForTheMaster(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil)
	p.Address()
	for _, pid := range p.Workers() {
		for _, s := range []syscall.Signal{
			syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU,
		} {
			if err := syscall.Kill(pid, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r := load(p, 4, 10).Run(t.Context()); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.Stop()
	if n := p.Count("worker failed"); n != 0 {
		t.Errorf("%d workers died of a signal that was not theirs", n)
	}
}
