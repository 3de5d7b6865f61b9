package pack

// HangPolicy is what is done about a worker that hangs: one that was ready, has not beaten for HangTimeout since, and
// was not asked to end. A worker beats by a goroutine of its own, so a handler that computes or waits for long does not
// make it hang.
//
// A machine that was suspended is no reason, nor one that is so busy that the master is late itself. A worker whose
// threads wait for a CPU most of the time (Linux) gets three times as long, and so do all workers when they are late at
// once; when the first of these goes on, the others get half of HangTimeout to follow. A worker that is traced, as by a
// debugger, is left alone.
type HangPolicy int

const (
	// KillHung has the log tell of it, and the stack of every goroutine of the worker written to its stderr, if it is
	// able to; then it is killed, and replaced. A worker whose Probe fails, but which works otherwise, is asked to
	// drain instead, one at a time.
	KillHung HangPolicy = iota

	ReportHung // has the log tell of it, and others serve its queue
	IgnoreHung // does nothing, but others serve its queue if it takes nothing from it
)
