package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// group is the program of a group of sockets.
type group struct {
	objects struct {
		Program *ebpf.Program `ebpf:"choose_worker"`
		Sockets *ebpf.Map     `ebpf:"sockets"`
	}
	members []syscall.Conn
}

// newGroup loads the program once more, with room for the sockets of a group, or with a map that has them.
func (k *kernel) newGroup(sockets *ebpf.Map) (*group, error) {
	m := &k.maps
	g := &group{}
	shared := map[string]*ebpf.Map{
		plainMapRules: m.Rules, plainMapWorkers: m.Workers, plainMapEligible: m.Eligible, plainMapReports: m.Reports,
		plainMapCounts: m.Counts,
	}
	if sockets != nil {
		shared[plainMapSockets] = sockets
	}
	err := k.spec.Copy().LoadAndAssign(&g.objects, &ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// freedWithin is how long the kernel may take to free the map of a program that was replaced: it does so in the
// background, which takes seconds if nobody else leaves it a CPU. Until then connections go by hash.
const freedWithin = 10 * time.Second

// attach has the program choose among the sockets of a group. before, if it is not nil, is what this group was until
// now: since a socket can be in one map only, its map goes on.
func (k *kernel) attach(sockets []syscall.Conn, inherited *os.File, before *group) (g *group, err error) {
	if g, err = k.inherit(inherited, len(sockets)); err != nil {
		return nil, err
	}
	if g == nil && before != nil {
		if g, err = k.newGroup(before.objects.Sockets); err != nil {
			return nil, err
		}
	}
	if g == nil {
		g, k.first = k.first, nil
	}
	if g == nil {
		if g, err = k.newGroup(nil); err != nil {
			return nil, err
		}
	}
	g.members = sockets
	g.vacate()
	err = g.fill(0)
	busy := errors.Is(err, unix.EBUSY) // in another's map, whose program must go first
	if err == nil || busy {
		err = g.attach()
	}
	if busy && err == nil {
		if err = g.fill(freedWithin); errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("%w: another Steering has it, which must be closed first", err)
		}
	}
	if err != nil {
		g.close()
		if before != nil {
			before.resume()
		}
		return nil, err
	}
	return g, nil
}

// resume has the group be what it was, as far as can be.
func (g *group) resume() {
	g.vacate()
	g.fill(0)
	g.attach()
}

// inherit makes a group of the map that another process has left, if it is one for as many sockets; else g is nil, and
// f is closed.
func (k *kernel) inherit(f *os.File, sockets int) (g *group, err error) {
	if f == nil {
		return nil, nil
	}
	var m *ebpf.Map
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := rc.Control(func(fd uintptr) {
		var own int
		if own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3); err == nil {
			m, err = ebpf.NewMapFromFD(own) // which closes it
		}
	})
	if err = errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("what was inherited: %w", err)
	}
	defer m.Close() // the program's is a copy
	if m.Type() != ebpf.ReusePortSockArray || int(m.MaxEntries()) != sockets {
		return nil, f.Close() // while it is open no other map can have the sockets
	}
	return k.newGroup(m)
}

// file returns a copy of the map of the sockets.
func (g *group) file() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(g.objects.Sockets.FD()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	return os.NewFile(uintptr(fd), "sockets"), nil
}

// holds reports whether a socket is in its place already.
func (g *group) holds(i, fd int) bool {
	var there uint64
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	return err == nil && g.objects.Sockets.Lookup(uint32(i), &there) == nil && there == cookie
}

// cookie identifies a socket, also among copies of its descriptor; 0 is none.
func cookie(socket syscall.Conn) (is uint64) {
	withDescriptor(socket, func(fd int) (err error) {
		is, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		return err
	})
	return is
}

// places returns where in the map sockets are, by their cookies.
func (g *group) places() map[uint64]int {
	all := map[uint64]int{}
	for i := range g.objects.Sockets.MaxEntries() {
		var there uint64
		if g.objects.Sockets.Lookup(i, &there) == nil && there != 0 {
			all[there] = int(i)
		}
	}
	return all
}

// holdsAny returns the first of some sockets that is in the map.
func (g *group) holdsAny(sockets []syscall.Conn) (i int, ok bool) {
	places := g.places()
	for i, socket := range sockets {
		if _, ok := places[cookie(socket)]; ok {
			return i, true
		}
	}
	return 0, false
}

// vacate takes members out of the map that are in another's place: they could not be put into their own.
func (g *group) vacate() {
	places := g.places()
	for i, socket := range g.members {
		if at, ok := places[cookie(socket)]; ok && at != i {
			g.objects.Sockets.Delete(uint32(at))
		}
	}
}

// fill puts the sockets into the map, and tries for some time if they are in another that is just going.
func (g *group) fill(patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for i, socket := range g.members {
		for {
			err := g.put(i, socket)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) || !time.Now().Before(deadline) {
				return fmt.Errorf("socket %d: %w", i, err)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// put puts a socket into its place, unless it is there. One that was shut down, and listens again, has lost it.
func (g *group) put(i int, socket syscall.Conn) error {
	return withDescriptor(socket, func(fd int) error {
		if g.holds(i, fd) {
			return nil
		}
		return g.objects.Sockets.Put(uint32(i), uint64(fd))
	})
}

// attach attaches the program. Any of the sockets will do for that, but for those that a process has locked
// (SO_LOCK_FILTER).
func (g *group) attach() (err error) {
	for _, member := range g.members {
		err = withDescriptor(member, func(fd int) error {
			err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, g.objects.Program.FD())
			return os.NewSyscallError("setsockopt SO_ATTACH_REUSEPORT_EBPF", err)
		})
		if !errors.Is(err, unix.EPERM) {
			break
		}
	}
	return err
}

func (g *group) close() error {
	return errors.Join(g.objects.Program.Close(), g.objects.Sockets.Close())
}

// sameGroup reports what the kernel would not tell: a socket of another group in the map is never chosen, without a
// word.
func sameGroup(sockets []syscall.Conn) error {
	var address netip.AddrPort
	seen := map[uint64]int{}
	for i, socket := range sockets {
		is := cookie(socket)
		if first, twice := seen[is]; twice && is != 0 {
			return fmt.Errorf("socket %d is the same as socket %d", i, first)
		}
		seen[is] = i
		err := withDescriptor(socket, func(fd int) error {
			name, err := unix.Getsockname(fd)
			if err != nil {
				return os.NewSyscallError("getsockname", err)
			}
			at, ok := addrPort(name)
			switch {
			case !ok:
				return errors.New("it is neither IPv4 nor IPv6")
			case i > 0 && at != address:
				return fmt.Errorf("it is on %v, not on %v as the first", at, address)
			}
			address = at
			if shared, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || shared == 0 {
				return errors.New("it was bound without SO_REUSEPORT")
			}
			kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
			listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
			if kind == unix.SOCK_STREAM && listens == 0 {
				return errors.New("it does not listen")
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("socket %d: %w", i, err)
		}
	}
	return nil
}

func addrPort(name unix.Sockaddr) (netip.AddrPort, bool) {
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), true
	}
	return netip.AddrPort{}, false
}

// withDescriptor calls f with the descriptor of a connection, which stays open meanwhile.
func withDescriptor(c syscall.Conn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) })
	if cerr != nil {
		return cerr
	}
	return err
}
