//go:build linux

package pack_test

import (
	"net/http"
	"os"
	"syscall"
	"testing"
)

func init() {
	systemHandlers["/crash"] = func(_ http.ResponseWriter, r *http.Request) {
		switch r.URL.RawQuery {
		case "exit":
			os.Exit(3)
		case "error":
			go panic(crashed{})
		default:
			go panic("the client\nasked for it")
		}
		select {}
	}
}

// crashed is an error with which a worker crashes.
type crashed struct{}

func (crashed) Error() string { return "it has crashed" }

// TestCrashIsTold has a worker crash, also after an upgrade, and wants to read why in the line that tells of its end.
func TestCrashIsTold(t *testing.T) {
	t.Parallel()
	p := start(t, "http", nil, "-workers=1")
	p.Addresses()
	crash := func(n int, how string) any {
		t.Helper()
		p.ask("/crash?" + how)
		r := p.Logged(n, "worker failed")
		p.Logged(n, "worker ready")
		return r["panic"]
	}
	if got := crash(1, "panic"); got != "the client" {
		t.Errorf("its panic is %q", got)
	}
	if got := crash(2, "exit"); got != nil {
		t.Errorf("it has ended, and its panic is %q", got)
	}
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgraded")
	p.Logged(1, "generation has drained") // until then an old worker may get the request
	if got := crash(3, "panic"); got != "the client" {
		t.Errorf("after an upgrade its panic is %q", got)
	}
	if got := crash(4, "error"); got != "it has crashed" {
		t.Errorf("its panic is %q", got)
	}
	syscall.Kill(p.Workers()[0], syscall.SIGKILL)
	if r := p.Logged(5, "worker failed"); r["panic"] != nil {
		t.Errorf("it was killed, and its panic is %q", r["panic"])
	}
	p.Stop()
}
