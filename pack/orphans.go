package pack

import (
	"context"
	"time"

	"github.com/gopherpack/gopherpack/internal/proc"
)

// reapEvery is how often process 1 looks for orphans that have ended. One is reaped at the second look.
const reapEvery = time.Second

// reapOrphans reaps children that this process has inherited as process 1, or as a subreaper, until stop is called. It leaves the
// workers alone.
func (m *masterState) reapOrphans() (stop func()) {
	if !proc.InheritsOrphans() {
		return func() {}
	}
	var reaper proc.Reaper
	return every(reapEvery, func(context.Context, time.Time) {
		var workers map[int]bool
		isWorker := func(pid int) bool {
			if workers == nil { // asked for after the ends that were seen
				workers = map[int]bool{}
				for _, w := range m.reports() {
					workers[w.PID] = true
				}
			}
			return workers[pid]
		}
		for _, p := range reaper.Reap(isWorker) {
			m.log.Debug("reaped a process that nobody else waits for", "pid", p.PID, "status", p.Status)
		}
	})
}
