//go:build unix && !linux

package procgroup

import "net"

// watches says that watch returns before the process is reaped: it does not, cmd.Wait does the waiting.
const watches = false

func watch(int) (exited, stop func()) { return func() {}, func() {} }

// hangUp does nothing: elsewhere what has arrived would be lost.
func hangUp(*net.UnixConn) {}
