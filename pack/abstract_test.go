//go:build linux

package pack_test

import (
	"fmt"
	"os"
	"testing"
)

// TestAbstractSocket stops packs on a Unix socket that has no file, under new connections: whoever is queued is
// answered, who comes later is refused, and nobody is reset. The stop does not wait for a queue that is empty.
func TestAbstractSocket(t *testing.T) {
	t.Parallel()
	for i := range 3 {
		name := fmt.Sprintf("@gopherpack-test-%d-%d", os.Getpid(), i)
		p := start(t, "http", nil, "-address=unix "+name, "-shutdown=20s")
		p.Addresses()
		u := apply(t, loadOn("unix", name, 16, 0))
		u.until(&u.answered, 300)
		p.Stop()
		comeTooLate(t, u)
		// A queue that is never empty takes half of ShutdownTimeout.
		if took := p.Logged(1, "stopped")["took"].(float64); took > 9e9 {
			t.Errorf("it took %v ns to stop", took)
		}
	}
}
