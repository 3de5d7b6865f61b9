package reuseport_test

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gopherpack/gopherpack/reuseport"
)

// BenchmarkLeave has four listeners leave a group to which 8 clients connect, who are all sent to one that stays. It counts the
// connections that are lost, where the listeners are just closed, and where new connections are kept out of them before.
func BenchmarkLeave(b *testing.B) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		for name, quiesce := range map[string]bool{"closed": false, "quiesced": true} {
			b.Run(address+"/"+name, func(b *testing.B) { benchmarkLeave(b, address, quiesce) })
		}
	}
}

func benchmarkLeave(b *testing.B, address string, quiesce bool) {
	stays, err := reuseport.Listen(b.Context(), "tcp", address)
	if err != nil {
		b.Skip(err)
	}
	defer stays.Close()
	if err := reuseport.Limit(stays.(*net.TCPListener), 1); err != nil {
		b.Fatal(err)
	}
	go func() {
		for c, err := stays.Accept(); err == nil; c, err = stays.Accept() {
			go func() {
				defer c.Close()
				one := make([]byte, 1)
				c.Read(one)
				c.Write(one)
			}()
		}
	}()
	var done atomic.Bool
	var answered, lost atomic.Int64
	connected := make(chan struct{})
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for !done.Load() {
				if echoed(stays.Addr().String()) {
					answered.Add(1)
				} else {
					lost.Add(1)
				}
				select {
				case connected <- struct{}{}:
				default: // nobody waits for it now
				}
			}
		})
	}
	for b.Loop() {
		var leave [4]net.Listener // the last first, so that none takes another's place
		for i := range leave {
			if leave[i], err = reuseport.Listen(b.Context(), "tcp", stays.Addr().String()); err != nil {
				b.Fatal(err)
			}
		}
		for range 20 {
			<-connected
		}
		for _, l := range slices.Backward(leave[:]) {
			if quiesce {
				if err := reuseport.Quiesce(l.(*net.TCPListener)); errors.Is(err, os.ErrPermission) {
					b.Skip(err)
				} else if err != nil {
					b.Fatal(err)
				}
			}
			l.Close()
		}
	}
	done.Store(true)
	clients.Wait()
	b.ReportMetric(float64(answered.Load()), "answered")
	b.ReportMetric(float64(lost.Load()), "lost")
}

// echoed connects once, and reports whether a byte comes back.
func echoed(address string) bool {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	defer c.Close()
	c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT
	c.Write([]byte("x"))
	n, _ := c.Read(make([]byte, 1))
	return n == 1
}

// BenchmarkPrograms sends datagrams to a group of 64, of which the kernel chooses without a program and with each, and
// drops them at the chosen socket: the rest is what a datagram costs up to there.
func BenchmarkPrograms(b *testing.B) {
	const n = 64
	half := make([]int, 0, n/2)
	for i := 0; i < n; i += 2 {
		half = append(half, i)
	}
	for _, program := range []struct {
		name   string
		attach func(conn net.PacketConn) error
	}{
		{"none", func(net.PacketConn) error { return nil }},
		{"flows", func(c net.PacketConn) error { return reuseport.AttachFlows(c, 1, n) }},
		{"flows, half absent", func(c net.PacketConn) error { return reuseport.AttachFlows(c, 1, n, half...) }},
		{"QUIC", func(c net.PacketConn) error { return reuseport.AttachQUIC(c, 1, half, half) }},
	} {
		b.Run(program.name, func(b *testing.B) {
			group, err := reuseport.ListenPacketGroup(b.Context(), "udp4", "127.0.0.1:0", n)
			if err != nil {
				b.Fatal(err)
			}
			for _, p := range group {
				defer p.Close()
				if err := reuseport.Quiesce(p); err != nil {
					b.Fatal(err)
				}
			}
			if err := program.attach(group[0]); err != nil {
				b.Skip(err)
			}
			c, err := net.Dial("udp4", group[0].LocalAddr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			packet := headerOf(false, reuseport.QUICID(1, 32))
			for b.Loop() {
				c.Write(packet)
			}
		})
	}
}
