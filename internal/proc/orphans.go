package proc

// Reaper reaps the orphans that this process has inherited. The zero value is ready to use, by one goroutine.
type Reaper struct {
	ended map[int]bool // at the last look, by process ID
}

// Reaped is a process that was reaped.
type Reaped struct {
	PID, Status int
}

// InheritsOrphans reports whether processes become children of this one when their parent ends: it is process 1, or a
// subreaper (prctl(2)), and can see them in /proc.
func InheritsOrphans() bool { return inheritsOrphans() }

// Reap reaps children that had ended at the last call already: what ended since, whoever started it in this process may
// be about to wait for. It never reaps those of which spare is true.
func (r *Reaper) Reap(spare func(pid int) bool) (all []Reaped) {
	now := endedChildren()
	for pid := range now {
		if spare(pid) {
			delete(now, pid)
		} else if r.ended[pid] {
			if status, ok := wait(pid); ok {
				all = append(all, Reaped{pid, status})
				delete(now, pid)
			}
		}
	}
	r.ended = now
	return all
}
