package sockets

import (
	"errors"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/reuseport"
)

func udp(address string) wire.Endpoint { return wire.Endpoint{Network: "udp", Address: address} }

// sendFrom sends a datagram to a UDP address from each of n senders.
func sendFrom(t *testing.T, address string, n int) {
	t.Helper()
	for range n {
		c, err := net.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
}

// readAll reads what is queued on the first n sockets of an endpoint until it has so many datagrams, and returns how many
// each had.
func readAll(t *testing.T, k *Keeper, e wire.Endpoint, n, datagrams int) []int {
	t.Helper()
	got, total := make([]int, n), 0
	deadline := time.Now().Add(10 * time.Second)
	buf := make([]byte, 10)
	for total < datagrams && time.Now().Before(deadline) {
		for i := range n {
			s, err := k.Socket(e, i)
			if err != nil {
				t.Fatal(err)
			}
			rc, err := s.(*net.UDPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			rc.Control(func(fd uintptr) {
				for {
					if _, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); err != nil {
						return
					}
					got[i]++
					total++
				}
			})
			s.Close()
		}
	}
	if total != datagrams {
		t.Fatalf("%d datagrams of %d, by socket %v", total, datagrams, got)
	}
	return got
}

// TestPackets has packet sockets be chosen by flow: all of them, those that are not absent, more, and fewer; and a keeper
// take them over from another, with what is queued.
func TestPackets(t *testing.T) {
	const datagrams = 60
	used := func(k *Keeper, e wire.Endpoint, n int) (all []int) {
		t.Helper()
		sendFrom(t, k.Infos()[0].Address, datagrams)
		for i, got := range readAll(t, k, e, n, datagrams) {
			if got > 0 {
				all = append(all, i)
			}
		}
		return all
	}
	check := func(what string, got, want []int) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: sockets %v got datagrams, want %v", what, got, want)
		}
	}
	k := keeper(t)
	e := udp("127.0.0.1:0")
	info := open(t, k, e, 3)
	if info.Sockets != 3 || info.Shared || k.Listeners(e, 3) != nil {
		t.Errorf("%+v; packet sockets are no listeners to steer", info)
	}
	check("at first", used(k, e, 3), []int{0, 1, 2})
	k.DirectPackets(3, []int{1})
	check("1 is absent", used(k, e, 3), []int{0, 2})
	if err := k.Grow(t.Context(), 5, nil); err != nil {
		t.Fatal(err)
	}
	check("more, nobody there yet", used(k, e, 5), []int{0, 2})
	if err := k.Direct(5, nil); err != nil {
		t.Fatal(err)
	}
	check("more", used(k, e, 5), []int{0, 1, 2, 3, 4})
	if err := k.Direct(2, nil); err != nil {
		t.Fatal(err)
	}
	check("fewer", used(k, e, 5), []int{0, 1})
	k.Shrink(2)
	if queued := k.Queued(); queued != nil {
		t.Errorf("%v: nobody is to look after datagrams", queued)
	}

	sendFrom(t, info.Address, datagrams)
	states, files := export(t, k, nil)
	after := keeper(t)
	if _, err := after.Import(states, files); err != nil {
		t.Fatal(err)
	}
	readAll(t, after, e, 2, datagrams)
	check("taken over", used(after, e, 2), []int{0, 1})

	if err := k.QuiesceFinal(1); err != nil {
		t.Fatal(err)
	}
	k.DirectPackets(2, []int{0})
	sendFrom(t, info.Address, 3)                // to nobody
	if _, err := after.Copy(e, 1); err != nil { // a worker comes
		t.Fatal(err)
	}
	sendFrom(t, info.Address, 5)
	if got := readAll(t, after, e, 2, 5); got[0] != 0 {
		t.Errorf("socket 0 got %d datagrams", got[0])
	}
}

// TestPacketSocketIsMended has a worker connect its packet socket to somebody, as it must not.
func TestPacketSocketIsMended(t *testing.T) {
	k := keeper(t)
	e := udp("127.0.0.1:0")
	address := open(t, k, e, 1).Address
	f, err := k.Copy(e, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := descriptor(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	open := func() error {
		next, err := k.Copy(e, 0)
		if err == nil {
			next.Close()
		}
		return err
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	sendFrom(t, address, 1)
	readAll(t, k, e, 1, 1)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	unix.Shutdown(fd, unix.SHUT_RD) // which is for good
	if err := open(); err == nil {
		t.Error("a socket that was shut down is given to a worker")
	}
}

// TestPacketsPassed has an endpoint take the packet socket of a socket unit, and those that were kept, with what is
// queued, and leave that of a TCP service at the same port alone.
func TestPacketsPassed(t *testing.T) {
	for _, shares := range []bool{false, true} {
		config := net.ListenConfig{}
		if shares {
			config.Control = reuseport.Control
		}
		theirs, err := config.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		e := udp(theirs.LocalAddr().String())
		sendFrom(t, e.Address, 3)
		k := keeper(t)
		passTo(t, k, pass(t, "dns", theirs.(*net.UDPConn)))
		info := open(t, k, e, 3)
		if info.Given != "dns" || info.Shared == shares || info.Sockets != map[bool]int{false: 1, true: 3}[shares] {
			t.Errorf("shares %v: %+v", shares, info)
		}
		readAll(t, k, e, info.Sockets, 3)
		sendFrom(t, e.Address, 30)
		readAll(t, k, e, info.Sockets, 30)
	}

	before := keeper(t)
	e := udp("127.0.0.1:0")
	info := open(t, before, e, 3)
	beside, err := net.Listen("tcp", info.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		t.Skip("another program listens there")
	} else if err != nil {
		t.Fatal(err)
	}
	defer beside.Close()
	sendFrom(t, info.Address, 20)
	k := keeper(t)
	web := pass(t, "web", beside.(*net.TCPListener))
	defer syscall.Close(web.FD) // nobody takes it
	passTo(t, k, append(keepAllOf(t, before), web)...)
	after := open(t, k, udp(info.Address), 3)
	if after.Kept != 3 || after.Given != "" || after.Address != info.Address {
		t.Errorf("%+v", after)
	}
	readAll(t, k, udp(info.Address), 3, 20)
	if left := k.Left(); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
}

// TestPlaces has places of QUIC be opened as they are needed, and none closed before the end.
func TestPlaces(t *testing.T) {
	k := keeper(t)
	e := wire.Endpoint{Network: "udp", Address: "127.0.0.1:0", QUIC: true}
	info := open(t, k, e, 2)
	k.DirectQUIC([]int{0, 1}, []int{0, 1})
	key := wire.QUICIDKey(k.Secret(e))
	send := func(place int) {
		t.Helper()
		c, err := net.Dial("udp", info.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(append(append([]byte{0x40}, reuseport.QUICID(key, place)...), make([]byte, 20)...)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := k.Copy(e, 5)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	k.DirectQUIC([]int{4, 5}, []int{0, 1, 4, 5})
	send(1)
	send(5)
	send(5)
	send(3) // unknown: to 4 or 5
	if got := readAll(t, k, e, 6, 4); got[1] != 1 || got[5] < 2 || got[4]+got[5] != 3 {
		t.Errorf("places got %v", got)
	}
	k.Shrink(1)
	if err := errors.Join(k.Direct(1, nil), k.QuiesceFinal(1), k.QuiesceEndpoint(e)); err != nil {
		t.Fatal(err)
	}
	send(5)
	readAll(t, k, e, 6, 1)
	if len(k.ToKeep()) > 0 {
		t.Error("sockets of QUIC are to be kept by systemd")
	}
	states, files := export(t, k, nil)
	after := keeper(t)
	if _, err := after.Import(states, files); err != nil {
		t.Fatal(err)
	}
	if string(after.Secret(e)) != string(k.Secret(e)) {
		t.Error("the secret does not go along")
	}
	send(4)
	readAll(t, after, e, 6, 1)
	after.Close()
	k.Close()
	again, err := net.ListenPacket("udp", info.Address)
	if err == nil {
		again.Close()
		t.Error("sockets of QUIC are closed while workers may have them")
	}
	k.End()
	after.End()
	for _, f := range files {
		f.Close()
	}
	if again, err = net.ListenPacket("udp", info.Address); err != nil {
		t.Error(err)
	} else {
		again.Close()
	}
}
