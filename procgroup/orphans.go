package procgroup

import (
	"sync"
	"time"

	"github.com/gopherpack/gopherpack/internal/proc"
)

// unreaped has the PIDs of members, of whatever group, until their exit status is read.
var unreaped sync.Map

// reapEvery is how long who has started a process has to wait for it after its end, at least.
const reapEvery = time.Second

// reapOrphans reaps what ended and nobody waits for, until done.
func reapOrphans(done <-chan struct{}) {
	ticker := time.NewTicker(reapEvery)
	defer ticker.Stop()
	isMember := func(pid int) bool {
		_, is := unreaped.Load(pid)
		return is
	}
	for reaper := (proc.Reaper{}); ; {
		select {
		case <-ticker.C:
			reaper.Reap(isMember)
		case <-done:
			return
		}
	}
}
