package upgrade

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"
)

// name is what a descriptor is known by to both sides.
type name struct {
	Kind    string `json:"kind"` // listener, packet or file
	Network string `json:"network,omitempty"`
	Address string `json:"address"`
	Index   int    `json:"index,omitempty"` // of several with the same address
}

func (n name) String() string {
	if n.Network == "" {
		return n.Kind + " " + n.Address
	}
	return n.Network + " " + n.Address
}

// maxName is how many bytes a name may have: a message holds it, however its bytes are written in JSON.
const maxName = 4096

// check reports that a name cannot be handed on as it is.
func (n name) check() error {
	if !utf8.ValidString(n.Address) {
		return fmt.Errorf("the name %.100q is not UTF-8", n.Address)
	}
	if len(n.Address) > maxName {
		return fmt.Errorf("the name %.100q... has %d bytes, at most %d are handed on", n.Address, len(n.Address), maxName)
	}
	return nil
}

// item is a descriptor that is handed on, a copy of what the caller has.
type item struct {
	file      *os.File
	path      string // of a Unix socket, which is removed in the end
	id        fileID // what was there when it was opened
	inherited bool
}

// fileID tells one file from another, as long as it is in use. All zero, it is not known.
type fileID struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// close closes the copy and, for the last process that has it, removes the Unix socket, unless another server has put
// its own there.
func (i *item) close(last bool) error {
	var err error
	if last && i.path != "" && isSocket(i.path, i.id) {
		if err = os.Remove(i.path); os.IsNotExist(err) {
			err = nil
		}
	}
	return errors.Join(err, i.file.Close()) // closed first, another file could be the one with this ID
}

// isSocket reports whether there is a socket, and the one that is meant.
func isSocket(path string, meant fileID) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket && runtime.GOOS != "windows" {
		return false
	}
	return meant == fileID{} || identify(info) == meant
}

// holdings are what one process hands on to the next.
type holdings struct {
	items     map[name]*item
	ancestors []syscall.Conn // end with earlier processes
	state     []byte         // nil if there is none
}

// names returns the names of the items, those of one address in their order.
func (h *holdings) names() []name {
	var all []name
	for n := range h.items {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b name) int { return a.Index - b.Index })
	return all
}

func (h *holdings) close() {
	for _, i := range h.items {
		i.close(false)
	}
	for _, a := range h.ancestors {
		a.(*os.File).Close()
	}
}

// Listen returns the predecessor's listener for the same network (tcp, tcp4, tcp6, unix or unixpacket) and address, or
// opens one. The n-th call for an address returns the n-th socket that the predecessor had for it, so that two for
// ":0", or a group of sockets with SO_REUSEPORT, stay two. A socket is also found if the predecessor has written its
// address in another way: as a name, say, or with port 0, where this one has the port that the kernel chose.
//
// The caller closes the listener. Whatever becomes of it, the socket stays open for the successor until Close, or until
// a new process has taken over.
func (u *Upgrader) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return u.ListenFunc(ctx, network, address, u.listenConfig().Listen)
}

// ListenFunc is Listen for listeners that are opened in a way of the caller's, such as the members of a group that
// package reuseport opens: open is called for one that is not inherited. What it returns must be a [syscall.Conn]; the
// file of a Unix socket must be at address, and is removed in the end. A socket that another owns, such as systemd, is
// handed on by AddFile instead.
func (u *Upgrader) ListenFunc(
	ctx context.Context, network, address string,
	open func(ctx context.Context, network, address string) (net.Listener, error),
) (net.Listener, error) {
	n := name{Kind: "listener", Network: network, Address: address}
	l, err := socket(ctx, u, n, u.listenConfig().fromFile, open)
	if err != nil {
		return nil, fmt.Errorf("upgrade: listen on %s: %w", n, err)
	}
	if unix, ok := l.(interface{ SetUnlinkOnClose(bool) }); ok && handsOn {
		unix.SetUnlinkOnClose(false) // the successor listens there
	}
	return l, nil
}

// ListenPacket is Listen for packet sockets: udp, udp4, udp6 or unixgram.
func (u *Upgrader) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return u.ListenPacketFunc(ctx, network, address, u.listenConfig().ListenPacket)
}

// ListenPacketFunc is ListenFunc for packet sockets.
func (u *Upgrader) ListenPacketFunc(
	ctx context.Context, network, address string,
	open func(ctx context.Context, network, address string) (net.PacketConn, error),
) (net.PacketConn, error) {
	n := name{Kind: "packet", Network: network, Address: address}
	p, err := socket(ctx, u, n, net.FilePacketConn, open)
	if err != nil {
		return nil, fmt.Errorf("upgrade: listen on %s: %w", n, err)
	}
	return p, nil
}

func (u *Upgrader) listenConfig() *listenConfig {
	if u.config.ListenConfig != nil {
		return &listenConfig{*u.config.ListenConfig}
	}
	c := new(listenConfig)
	c.SetMultipathTCP(false)
	return c
}

// listenConfig also makes inherited listeners.
type listenConfig struct{ net.ListenConfig }

func (c *listenConfig) fromFile(f *os.File) (net.Listener, error) {
	l, err := net.FileListener(f)
	if tcp, ok := l.(*net.TCPListener); ok && (c.KeepAlive != 0 || c.KeepAliveConfig.Enable) {
		return &keepAliveListener{tcp, c}, nil
	}
	return l, err
}

// keepAliveListener does for an inherited listener what net does for one that a ListenConfig has opened.
type keepAliveListener struct {
	*net.TCPListener
	config *listenConfig
}

func (l *keepAliveListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (l *keepAliveListener) AcceptTCP() (*net.TCPConn, error) {
	c, err := l.TCPListener.AcceptTCP()
	if err != nil {
		return nil, err
	}
	switch { // as in net, errors are ignored
	case l.config.KeepAliveConfig.Enable:
		c.SetKeepAliveConfig(l.config.KeepAliveConfig)
	case l.config.KeepAlive < 0:
		c.SetKeepAlive(false)
	default:
		c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: l.config.KeepAlive})
	}
	return c, nil
}

// socket returns an inherited socket, or opens one, without the lock, since a host name may have to be resolved.
func socket[S interface{ Close() error }](
	ctx context.Context, u *Upgrader, n name, from func(*os.File) (S, error),
	open func(ctx context.Context, network, address string) (S, error),
) (s S, err error) {
	i, err := u.claim(&n)
	if err == nil && i == nil {
		i = u.claimOther(n, sameAddress(ctx, u, n))
	}
	if err != nil {
		return s, err
	} else if i != nil {
		if s, err = from(i.file); err != nil {
			u.unclaim(n, i)
		}
		return s, err
	}
	if s, err = opened(ctx, u, n, open); err != nil {
		u.unclaim(n, nil)
	}
	return s, err
}

// opened opens a socket and keeps a copy of it.
func opened[S interface{ Close() error }](
	ctx context.Context, u *Upgrader, n name, open func(ctx context.Context, network, address string) (S, error),
) (s S, err error) {
	i := &item{}
	if err = n.check(); err == nil {
		i.path, err = socketPath(n)
	}
	if err == nil {
		s, err = open(ctx, n.Network, n.Address)
	}
	if err != nil || !handsOn {
		return s, err
	}
	if err = u.keep(n, i, s); err != nil {
		s.Close()
	}
	return s, err
}

// keep keeps a copy of a socket that was opened.
func (u *Upgrader) keep(n name, i *item, s any) error {
	c, ok := s.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%T has no descriptor", s)
	}
	var err error
	if i.file, err = duplicate(c, n.String(), 3); err != nil {
		return err
	}
	if info, err := os.Lstat(i.path); i.path != "" && err == nil {
		i.id = identify(info)
	}
	if err = u.add(n, i); err != nil {
		i.close(true)
	}
	return err
}

// socketPath returns where a Unix socket will be in the file system, whatever becomes of the working directory.
func socketPath(n name) (string, error) {
	if !strings.HasPrefix(n.Network, "unix") || n.Address == "" || n.Address[0] == '@' || n.Address[0] == 0 {
		return "", nil
	}
	return filepath.Abs(n.Address)
}

// claim gives the next socket of an address its index, and returns the inherited one, if there is one.
func (u *Upgrader) claim(n *name) (*item, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.phase > serving {
		return nil, ErrDone
	}
	for u.claimed[*n] {
		n.Index++
	}
	u.claimed[*n] = true
	i := u.inherited[*n]
	if i != nil {
		u.items[*n] = i
		delete(u.inherited, *n)
	}
	return i, nil
}

// hasOthers reports whether sockets of the same kind were inherited and not asked for yet.
func (u *Upgrader) hasOthers(n name) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for other := range u.inherited {
		if other.Kind == n.Kind {
			return true
		}
	}
	return false
}

// claimOther returns the first inherited socket that is the one of a name, which was claimed, nil if none is.
func (u *Upgrader) claimOther(n name, is func(name, *item) bool) *item {
	if is == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, other := range (&holdings{items: u.inherited}).names() {
		if i := u.inherited[other]; other.Kind == n.Kind && is(other, i) {
			u.items[n] = i
			delete(u.inherited, other)
			return i
		}
	}
	return nil
}

// unclaim undoes claim.
func (u *Upgrader) unclaim(n name, i *item) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.claimed, n)
	if i != nil && u.items[n] == i {
		delete(u.items, n)
		u.inherited[n] = i
	}
}

// add adds a descriptor to what is handed on.
func (u *Upgrader) add(n name, i *item) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.phase == replaced || u.phase == closed {
		return ErrDone
	}
	if old := u.items[n]; old != nil {
		u.retired = append(u.retired, old.file)
	}
	u.items[n] = i
	u.retire()
	return nil
}

// retire closes what was replaced, unless an upgrade is under way, or the predecessor may get it back. It is called with
// mu locked.
func (u *Upgrader) retire() {
	if u.busy == nil && u.phase != starting {
		closeAll(u.retired)
		u.retired = nil
	}
}
