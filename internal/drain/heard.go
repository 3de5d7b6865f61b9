package drain

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"
)

// heardAt returns when a client is to be taken to have connected that was just accepted. If the kernel has kept the
// connection, since the client said nothing, it has had its time before, but for the moment that its first word may
// take if it is only the handshake that was late.
func heardAt(c net.Conn, accepted time.Time) time.Time {
	const moment = 50 * time.Millisecond
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if sc, ok := c.(syscall.Conn); ok && wasKept(sc) {
		return accepted.Add(moment - newConnGrace)
	}
	return accepted
}
