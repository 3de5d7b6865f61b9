package master

import (
	"runtime"
	"testing"
	"time"
)

// TestMemoryIsGivenBack has garbage in a master, which nothing else would return to the system before long.
func TestMemoryIsGivenBack(t *testing.T) {
	var do func()
	giveBack(func(_ time.Duration, f func()) { do = f })
	const size = 64 << 20
	garbage := make([]byte, size)
	for i := range garbage {
		garbage[i] = 1
	}
	released := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapReleased
	}
	before := released()
	runtime.KeepAlive(garbage)
	if do(); released() < before+size/2 {
		t.Errorf("%d bytes are released, and before %d bytes became garbage, %d were", released(), size, before)
	}
}
