//go:build unix && !linux

package procgroup

// watches says that watch returns before the process is reaped: it does not, cmd.Wait does the waiting.
const watches = false

func watch(int) (exited, stop func()) { return func() {}, func() {} }
