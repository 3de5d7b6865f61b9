//go:build !linux

package affinity_test

import (
	"errors"
	"testing"

	"github.com/gopherpack/gopherpack/affinity"
)

func TestUnsupported(t *testing.T) {
	_, current := affinity.Current()
	_, pin := affinity.Pin(affinity.Of(0))
	_, topology := affinity.ReadTopology()
	_, spread := affinity.Spread(1, affinity.PerCPU)
	_, threads := affinity.Threads(0)
	_, isolated := affinity.Isolated()
	_, offline := affinity.Offline()
	do := affinity.Do(affinity.Of(0), func() error { return nil })
	process := affinity.Process(0, affinity.Of(0))
	for _, err := range []error{current, pin, topology, spread, threads, isolated, offline, do, process} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v; want errors.ErrUnsupported", err)
		}
	}
}
