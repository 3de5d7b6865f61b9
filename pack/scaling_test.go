//go:build linux

package pack_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gopherpack/gopherpack/pack"
)

// TestScaling has more workers and fewer, by signals, under load, by hash and steered, all at once and one by one, from
// two and from one.
func TestScaling(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		args    []string
		workers int
	}{
		{"all at once", []string{"versioned"}, 2},
		{"rolling", []string{"versioned", "-rolling"}, 1},
		{"steered", []string{"steered", "-epsilon=0.25"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			args := append(tt.args[1:], fmt.Sprintf("-workers=%d", tt.workers), "-generations=20")
			p := start(t, tt.args[0], nil, args...)
			p.Addresses()
			keeping, connecting := applyBoth(t, p, 8)
			n, done := tt.workers, 0
			for _, by := range append(slices.Repeat([]int{1}, 4-n), -1, 1, -1, -1, -1) {
				signal := map[int]syscall.Signal{1: syscall.SIGTTIN, -1: syscall.SIGTTOU}[by]
				n += by
				connecting.until(&connecting.answered, connecting.answered.Load()+100)
				p.Signal(signal)
				done++
				if r := p.Logged(done, "number of workers changed"); r["workers"] != float64(n) {
					t.Errorf("%v; want %d workers", r, n)
				}
				p.HasWorkers(n)
				p.hasSockets(n)
			}
			p.Signal(syscall.SIGTTOU) // there is one
			failed := p.Logged(1, "scaling failed, the old workers go on")
			if !strings.Contains(fmt.Sprint(failed["error"]), "there must be 1 to") {
				t.Errorf("%v", failed)
			}
			p.Signal(syscall.SIGTTIN)
			p.Logged(done+1, "number of workers changed")
			p.Signal(syscall.SIGTTIN)
			p.Logged(done+2, "number of workers changed")
			p.Signal(syscall.SIGUSR2)
			if r := p.Logged(1, "upgraded"); r["workers"] != 3.0 {
				t.Errorf("%v; want 3 workers still", r)
			}
			p.HasWorkers(3)
			loseLittle(t, keeping, connecting)
			if n := p.Count("connections are not steered"); n != 0 {
				t.Errorf("they were not steered %d times", n)
			}
			p.Stop()
		})
	}
	err := pack.New(pack.Config{}).SetWorkers(t.Context(), 2)
	if err == nil || !strings.Contains(err.Error(), "does not run a pack") {
		t.Errorf("outside a running pack: %v", err)
	}
}
