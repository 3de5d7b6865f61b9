//go:build linux

package pack_test

import (
	"bytes"
	"flag"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"golang.org/x/sys/unix"
)

var someEndpoint = wire.Endpoint{Network: "tcp", Address: "127.0.0.1:0"}

// says returns an attack by a message that is sent so many times.
func says(times int, m wire.Message) func(*wire.Conn, string) {
	return func(c *wire.Conn, _ string) {
		for n := range times {
			if m.Type == wire.Listen && times > 1 {
				m.Endpoint = &wire.Endpoint{Network: "tcp", Address: "127.0.0.1:0", Index: n % 1024}
			}
			if c.Send(m) != nil {
				return
			}
		}
	}
}

// attacks are what hostile workers do.
var attacks = map[string]func(c *wire.Conn, dir string){
	"listen": func(c *wire.Conn, dir string) {
		for _, e := range []wire.Endpoint{
			{Network: "tcp", Address: "127.0.0.1:922"}, {Network: "tcp", Address: "127.0.0.1:980"},
			{Network: "unix", Address: dir + "/secret/socket"},
		} {
			c.Send(wire.Message{Type: wire.Listen, Endpoint: &e})
		}
	},
	"listen again and again": says(5000, wire.Message{Type: wire.Listen, Endpoint: &someEndpoint}),
	"hello":                  says(200, wire.Message{Type: wire.Hello, Version: wire.Version}),
	"ready":                  says(1, wire.Message{Type: wire.Ready}),
	"quiesce":                says(1, wire.Message{Type: wire.Quiesce}),
	"closed":                 says(1, wire.Message{Type: wire.Closed}),
	"end":                    says(1, wire.Message{Type: wire.End, Cut: 5}),
	"handoverEnded":          says(1, wire.Message{Type: wire.HandoverEnded}),
	"drained":                says(1, wire.Message{Type: wire.Drained, Endpoint: &someEndpoint}),
	"covered": says(5000, wire.Message{
		Type: wire.Covered, Endpoint: &someEndpoint, Error: strings.Repeat("x", 4000),
	}),
	"failed":    says(2, wire.Message{Type: wire.Failed, Error: "I do not like it"}),
	"tickets":   says(1, wire.Message{Type: wire.Tickets, Keys: [][]byte{make([]byte, 32)}}),
	"no vitals": says(1, wire.Message{Type: wire.Beat}),
	"beats":     says(100000, wire.Message{Type: wire.Beat, Vitals: &wire.Vitals{}}),
	"long probe": says(1, wire.Message{
		Type: wire.Beat, Vitals: &wire.Vitals{Probe: strings.Repeat("x", 60<<10)},
	}),
	"connections":    says(1, wire.Message{Type: wire.Beat, Vitals: &wire.Vitals{Conns: -5}}),
	"garbage":        func(c *wire.Conn, _ string) { c.Write(bytes.Repeat([]byte{0xff}, 1000)) },
	"no JSON":        func(c *wire.Conn, _ string) { c.Write(append([]byte{0, 0, 0, 100}, make([]byte, 100)...)) },
	"empty messages": func(c *wire.Conn, _ string) { c.Write(make([]byte, 1000)) },
	"half a message": func(c *wire.Conn, _ string) {
		control, _ := seize()
		control.Write([]byte{0, 0, 0, 100, '{'})
	},
	"deaf": func(c *wire.Conn, _ string) { deafen() },
	"descriptors": func(c *wire.Conn, dir string) {
		conn, close := lingering(dir)
		c.Send(wire.Message{Type: wire.Beat, Vitals: &wire.Vitals{}}, times(conn, fdmsg.MaxFiles)...)
		close()
	},
	"hand over endlessly": func(c *wire.Conn, dir string) {
		conn, close := lingering(dir)
		for c.Send(wire.Message{Type: wire.Handover, Endpoint: &someEndpoint}, conn) == nil {
		}
		close()
	},
	"shut down": func(*wire.Conn, string) {
		for _, fd := range listening() {
			unix.Shutdown(fd, unix.SHUT_RDWR)
		}
		suicide()
	},
	"listen to nobody": func(*wire.Conn, string) {
		for _, fd := range listening() {
			unix.Listen(fd, 0)
		}
		suicide()
	},
	"filter": func(*wire.Conn, string) {
		drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
		for _, fd := range listening() {
			filter := unix.SockFprog{Len: 1, Filter: &drop}
			unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &filter)
		}
		suicide()
	},
	"lock": func(*wire.Conn, string) {
		for _, fd := range listening() {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1)
		}
		suicide()
	},
	"swap": func(_ *wire.Conn, dir string) {
		for os.Getppid() > 1 {
			os.Remove(dir + "/open/socket")
			os.Symlink("../secret/file", dir+"/open/socket")
			os.Remove(dir + "/open/.socket.quiesced")
			os.Symlink("../secret/file", dir+"/open/.socket.quiesced")
		}
	},

	// While it drains.
	"hand over a listener": handsOver(func(string) (syscall.Conn, func()) {
		l, _ := net.Listen("tcp", "127.0.0.1:0")
		return l.(syscall.Conn), func() { l.Close() }
	}),
	"hand over UDP": handsOver(func(string) (syscall.Conn, func()) {
		u, _ := net.ListenPacket("udp", "127.0.0.1:0")
		return u.(syscall.Conn), func() { u.Close() }
	}),
	"hand over a pipe": handsOver(func(string) (syscall.Conn, func()) {
		r, w, _ := os.Pipe()
		return w, func() { r.Close(); w.Close() }
	}),
	"hand over what lingers": handsOver(lingering),
	"hand over several": func(c *wire.Conn, dir string) {
		conn, close := lingering(dir)
		c.Send(wire.Message{Type: wire.Handover, Endpoint: served()}, times(conn, fdmsg.MaxFiles)...)
		close()
		select {}
	},
	"drain half a message": func(*wire.Conn, string) {
		control, _ := seize()
		control.Write([]byte{0, 0, 0, 100, '{'})
		select {}
	},
	"drain deaf": func(*wire.Conn, string) {
		deafen()
		select {}
	},
}

// handsOver returns an attack that hands something over, of which this process keeps no copy, many times.
func handsOver(open func(dir string) (syscall.Conn, func())) func(*wire.Conn, string) {
	return func(c *wire.Conn, dir string) {
		for range 100 {
			what, close := open(dir)
			err := c.Send(wire.Message{Type: wire.Handover, Endpoint: served()}, what)
			close()
			if err != nil {
				return
			}
		}
		select {}
	}
}

// served is what this program serves.
func served() *wire.Endpoint {
	network, address, _ := strings.Cut(flag.Lookup("address").Value.String(), " ")
	return &wire.Endpoint{Network: network, Address: address}
}

func times(c syscall.Conn, n int) (all []syscall.Conn) {
	for range n {
		all = append(all, c)
	}
	return all
}

// lingering returns a connection whose peer does not read, with more to send than there is room for: who closes the
// last copy waits for a minute.
func lingering(dir string) (syscall.Conn, func()) {
	peer, err := os.ReadFile(dir + "/peer")
	if err != nil {
		panic(err)
	}
	c, err := net.Dial("tcp", string(peer))
	if err != nil {
		panic(err)
	}
	c.(*net.TCPConn).SetLinger(60)
	c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	for err == nil {
		_, err = c.Write(make([]byte, 1<<20))
	}
	// The master's copy is the last one soon.
	return c.(syscall.Conn), func() { go c.Close() }
}
