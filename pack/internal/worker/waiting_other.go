//go:build !linux

package worker

import "net"

// waiting reports whether a connection waits in the queue of a listener.
func waiting(l net.Listener) (c net.Conn, waits bool) { return nil, readable(l) }
