package reuseport

import (
	"net"
	"testing"
	"time"
)

// TestOfPeer has strangers, one of them with the peer's port, send to a socket that hears the peer only, though it is
// not connected: what the kernel has chosen such a socket for just before it is connected comes to its filter as well.
func TestOfPeer(t *testing.T) {
	open := func(address string) *net.UDPConn {
		p, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p.(*net.UDPConn)
	}
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		s, peer := open(host+":0"), open(host+":0")
		strangers := []*net.UDPConn{open(host + ":0")}
		at := peer.LocalAddr().(*net.UDPAddr)
		if at.IP.To4() != nil {
			strangers = append(strangers, open((&net.UDPAddr{IP: net.IPv4(127, 0, 0, 2), Port: at.Port}).String()))
		}
		if err := onConn(s, func(fd int) error { return hear(fd, at) }); err != nil {
			t.Fatal(err)
		}
		for _, from := range append(strangers, peer) {
			if _, err := from.WriteTo([]byte(from.LocalAddr().String()), s.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
		s.SetReadDeadline(time.Now().Add(time.Minute))
		buf := make([]byte, 100)
		n, err := s.Read(buf)
		if got := string(buf[:n]); err != nil || got != at.String() {
			t.Errorf("heard %q, %v; want %q", got, err, at)
		}
	}
}
