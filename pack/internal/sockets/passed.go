package sockets

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gopherpack/gopherpack/internal/systemd"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// passed is a listening socket with which systemd has started this process.
type passed struct {
	systemd.Descriptor
	socket socket
	kept   bool // for a pack that was here before; else it is of a socket unit
	v6only bool
	taken  bool
}

func (p *passed) String() string { return fmt.Sprintf("%s (%s)", p.socket.Addr(), p.Name) }

// leave leaves a socket, unless it is taken. One that was not kept for us is open on, for whoever knows what it is for.
func (p *passed) leave() {
	if p.taken {
		return
	}
	p.socket.Close()
	if p.kept {
		closeDescriptor(p.FD)
	}
}

// TakePassed has the endpoints whose addresses they have take sockets that systemd has passed, instead of opening some.
// It is called before the first Open, and returns what is wrong with those that no endpoint can take.
func (k *Keeper) TakePassed(all []systemd.Descriptor) (wrong []error) {
	for _, d := range all {
		p, err := newPassed(d)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("systemd has passed a socket that no pack can serve (%s): %w", d.Name, err))
			continue
		}
		k.passed = append(k.passed, p)
	}
	return wrong
}

func newPassed(d systemd.Descriptor) (*passed, error) {
	f, err := copyDescriptor(d.FD, d.Name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	packets, err := isServable(f)
	if err != nil {
		return nil, err
	}
	p := &passed{Descriptor: d, kept: IsKept(d.Name), v6only: isV6Only(f)}
	p.socket, err = takeOver(f, packets)
	return p, err
}

// Left returns what systemd has passed that no endpoint has taken; from then on none does. What it has kept for a pack
// that was here before, and nobody wants any more, is closed.
func (k *Keeper) Left() (all []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.passed {
		if !p.taken && !p.kept {
			all = append(all, p.String())
		}
		p.leave()
	}
	k.passed = nil
	return all
}

// near returns what to say of an address that is in use, if it is by a socket that systemd has passed.
func (k *Keeper) near(e wire.Endpoint) string {
	_, port, _ := net.SplitHostPort(e.Address)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.passed {
		if _, has, _ := net.SplitHostPort(p.socket.Addr().String()); !p.taken && port != "" && has == port &&
			isPacket(p.socket) == e.IsPacket() {
			return fmt.Sprintf("systemd has passed a socket that listens on %v, which is not the same: have its unit and "+
				"Handle name one address", p)
		}
	}
	return ""
}

// openPassed returns the sockets of an endpoint if systemd has passed any; nil if it has not.
func (k *Keeper) openPassed(ctx context.Context, e wire.Endpoint, workers int) *set {
	k.mu.Lock()
	none := len(k.passed) == 0
	k.mu.Unlock()
	if none || e.QUIC {
		return nil
	}
	at, isInet := resolve(ctx, e) // which may take long
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &set{own: e.Own, seed: rand.Uint32()}
	if e.Network == "unix" {
		k.takeUnix(s, e)
	} else if isInet {
		k.takeInet(s, e, at)
	}
	if len(s.listeners) == 0 {
		return nil
	}
	if s.given != "" && e.Network != "unix" {
		s.alone = cannotShare(s.listeners[0])
	}
	if e.Network == "unix" {
		s.shared = true
	} else if s.alone == nil {
		k.complete(ctx, s, e, workers)
	}
	if s.given != "" && s.alone != nil { // one for all, that is
		s.closeLast(1)
		s.shared = true
	}
	return s
}

// add adds a socket to a set.
func (s *set) add(p *passed) {
	p.taken = true
	closeDescriptor(p.FD)
	s.listeners = append(s.listeners, p.socket)
	if p.kept {
		s.kept++
	} else {
		s.given = p.Name
	}
}

// takeInet takes the socket of a socket unit, and those that were kept: of the same name, or, if the address is written
// otherwise now, at the same address.
func (k *Keeper) takeInet(s *set, e wire.Endpoint, at spot) {
	var alike []*passed
	for _, p := range k.passed {
		if p.taken || isUnix(p.socket) || isPacket(p.socket) != e.IsPacket() {
			continue
		}
		if !p.kept && !e.Own && len(s.listeners) == 0 && at.port != 0 && at.is(p) {
			s.add(p)
		} else if p.kept && (at.port == 0 || e.Own || at.is(p)) {
			alike = append(alike, p)
		}
	}
	named := func(name string) *passed {
		i := slices.IndexFunc(alike, func(p *passed) bool { return p.Name == name })
		if i < 0 {
			return nil
		}
		return alike[i]
	}
	first := len(s.listeners)
	for p := named(keptName(e, first, nil)); p != nil; p = named(keptName(e, len(s.listeners), nil)) {
		s.add(p)
	}
	if len(s.listeners) > first || at.port == 0 || e.Own {
		return
	}
	slices.SortStableFunc(alike, func(a, b *passed) int { return cmp.Compare(keptIndex(a.Name), keptIndex(b.Name)) })
	for _, p := range alike {
		if keptIndex(p.Name) == len(s.listeners) {
			s.add(p)
		}
	}
}

// complete opens the sockets that are missing, closes those that are too many, and has the kernel choose among those
// that there are: what it was told before, by a process that has ended, may be wrong now.
func (k *Keeper) complete(ctx context.Context, s *set, e wire.Endpoint, workers int) {
	for len(s.listeners) < workers {
		l, err := k.openMore(ctx, e, s)
		if err != nil {
			s.alone = err
			break
		}
		s.listeners = append(s.listeners, l)
	}
	if s.own || s.alone != nil && s.given != "" {
		return
	}
	if n := max(workers, 1); len(s.listeners) > n {
		s.direct(n)
		s.closeLast(n)
	}
	s.direct(len(s.listeners))
}

// takeUnix takes a Unix socket, if the file is in its place. That of a socket unit is systemd's to remove.
func (k *Keeper) takeUnix(s *set, e wire.Endpoint) {
	path := e.Address
	if abs, err := filepath.Abs(path); err == nil && !nameless(path) {
		path = abs
	}
	for _, p := range k.passed {
		a, unix := p.socket.Addr().(*net.UnixAddr)
		switch {
		case !unix || p.taken:
		case !p.kept && a.Name != "" && abstractName(a.Name) == abstractName(path):
			s.add(p)
			return
		case !p.kept:
		case nameless(e.Address):
			if e.Address != "" && p.Name == keptName(e, 0, nil) {
				s.add(p)
				return
			}
		default:
			if f := fileOf(e.Address); f != nil && p.Name == keptName(e, 0, f) && isListening(p.socket) {
				s.file = f
				s.add(p)
				return
			} else if f != nil {
				f.release()
			}
		}
	}
}

// fileOf returns the file of a Unix socket that is there; nil if there is none.
func fileOf(path string) *file {
	dir, name := filepath.Split(path)
	f := &file{path: path, name: name}
	var err error
	if f.dir, err = openDirectory(dir); err != nil {
		return nil
	}
	if f.id, _, err = f.stat(name); err != nil {
		f.release()
		return nil
	}
	return f
}

// spot is where a socket of TCP or UDP would be bound.
type spot struct {
	ip     net.IP // nil if it is the wildcard
	v4     bool
	v6only bool
	port   int
	zone   string
}

var errFound = errors.New("found out")

// resolve returns where package net would bind the socket of an endpoint, and lets it go no further.
func resolve(ctx context.Context, e wire.Endpoint) (at spot, ok bool) {
	config := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return err
		}
		host, zone, _ := strings.Cut(host, "%")
		at = spot{ip: net.ParseIP(host), v4: strings.HasSuffix(network, "4")}
		at.zone = zoneOf(&net.TCPAddr{IP: at.ip, Zone: zone})
		if at.ip.IsUnspecified() {
			at.ip = nil
		}
		if at.port, err = strconv.Atoi(port); err != nil {
			return err
		}
		at.v6only = isV6OnlyConn(c)
		return errFound
	}}
	config.SetMultipathTCP(false)
	var err error
	if e.IsPacket() {
		_, err = config.ListenPacket(ctx, e.Network, e.Address)
	} else {
		_, err = config.Listen(ctx, e.Network, e.Address)
	}
	return at, errors.Is(err, errFound)
}

// is reports whether a socket is bound there.
func (at spot) is(p *passed) bool {
	a := inetAddr(p.socket.Addr())
	v4 := a.IP.To4() != nil
	switch {
	case a.Port != at.port || v4 != at.v4:
		return false
	case at.ip == nil:
		return a.IP.IsUnspecified() && (v4 || p.v6only == at.v6only)
	}
	return a.IP.Equal(at.ip) && zoneOf(a) == at.zone
}

// keptPrefix is that of the names by which systemd keeps sockets of packs.
const keptPrefix = "pack/"

// IsKept reports whether such a name is one by which systemd keeps sockets of packs.
func IsKept(name string) bool { return strings.HasPrefix(name, keptPrefix) }

// keptName is the name by which systemd keeps the socket of a worker: for people, and for who takes it over. For a Unix
// socket it says which file it has.
func keptName(e wire.Endpoint, i int, f *file) string {
	const longest = 255 // that systemd takes
	what := url.QueryEscape(e.Name())
	if f != nil {
		what += fmt.Sprintf("/%x-%x", f.id.Device, f.id.Inode)
	}
	if name := fmt.Sprint(keptPrefix, i, "/", what); len(name) <= longest {
		return name
	}
	return fmt.Sprintf("%s%d/%x", keptPrefix, i, sha256.Sum256([]byte(what)))
}

// keptIndex returns whose socket has such a name.
func keptIndex(name string) int {
	number, _, _ := strings.Cut(strings.TrimPrefix(name, keptPrefix), "/")
	i, err := strconv.Atoi(number)
	if err != nil {
		return -1
	}
	return i
}

// ToKeep returns the sockets that somebody else is to keep for who comes when this process has ended, by the names that
// are to tell them apart: all but those that somebody keeps anyway, and those that end with the pack.
func (k *Keeper) ToKeep() map[string]syscall.Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := map[string]syscall.Conn{}
	for e, s := range k.open {
		for i, l := range s.listeners {
			if isReplaced(e) || e.QUIC || s.isGiven(l) || s.final[l] {
				continue
			}
			all[keptName(e, i, s.file)] = l
		}
	}
	return all
}

// isGiven reports whether a socket is of a socket unit: systemd listens on it before and after.
func (s *set) isGiven(l socket) bool { return s.given != "" && l == s.listeners[0] }

// errGiven is why new connections are not kept out of such a socket.
var errGiven = errors.New("systemd keeps the socket: connections wait for who serves it next")

// leave has new connections come to the socket of a socket unit alone, since the others are about to go. That holds on
// when they are gone, since somebody may have a copy for a moment longer; who serves the address next undoes it.
func (s *set) leave() error {
	if s.shared {
		return nil
	}
	return s.limit(1)
}
