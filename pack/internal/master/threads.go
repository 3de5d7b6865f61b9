package master

import (
	"runtime"
	"sync"
)

// spareThreads has the runtime make threads, which it keeps. When it needs one more and the user may have no more
// (RLIMIT_NPROC, the control group's pids.max), it aborts the program, and nobody can prevent that then. A worker can
// use them all up.
func spareThreads(n int) {
	var made, used sync.WaitGroup
	made.Add(n)
	for range n {
		used.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			made.Done()
			made.Wait()
		})
	}
	used.Wait()
}
