package upgrade

import (
	"context"
	"fmt"
	"net"
	"os"
)

// name is what a descriptor is known by to both sides.
type name struct {
	Kind    string `json:"kind"` // listener, packet or file
	Network string `json:"network,omitempty"`
	Address string `json:"address"`
}

func (n name) String() string {
	if n.Network == "" {
		return n.Kind + " " + n.Address
	}
	return n.Network + " " + n.Address
}

// item is a descriptor that is handed on, a copy of what the caller has.
type item struct {
	file *os.File
	path string // of a Unix socket, which is removed in the end
}

// Listen returns the predecessor's listener for the same network (tcp, tcp4, tcp6, unix or unixpacket) and address, as
// they are written, or opens one. The caller closes it. Whatever becomes of it, the socket stays open for the successor
// until Close.
func (u *Upgrader) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	n := name{"listener", network, address}
	l, err := socket(u, n, net.FileListener, func() (net.Listener, error) { return u.listenConfig().Listen(ctx, network, address) })
	if err != nil {
		return nil, fmt.Errorf("upgrade: listen on %s: %w", n, err)
	}
	if unix, ok := l.(interface{ SetUnlinkOnClose(bool) }); ok {
		unix.SetUnlinkOnClose(false) // the successor listens there
	}
	return l, nil
}

// ListenPacket is Listen for packet sockets: udp, udp4, udp6 or unixgram.
func (u *Upgrader) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	n := name{"packet", network, address}
	p, err := socket(u, n, net.FilePacketConn, func() (net.PacketConn, error) { return u.listenConfig().ListenPacket(ctx, network, address) })
	if err != nil {
		return nil, fmt.Errorf("upgrade: listen on %s: %w", n, err)
	}
	return p, nil
}

func (u *Upgrader) listenConfig() *net.ListenConfig {
	if u.config.ListenConfig != nil {
		return u.config.ListenConfig
	}
	c := new(net.ListenConfig)
	c.SetMultipathTCP(false)
	return c
}

// socket returns an inherited socket, or opens one, and keeps a copy of it.
func socket[S interface{ Close() error }](u *Upgrader, n name, from func(*os.File) (S, error), open func() (S, error)) (s S, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.handed {
		return s, ErrDone
	}
	if i := u.items[n]; i != nil { // asked for again
		return from(i.file)
	}
	if i := u.inherited[n]; i != nil {
		if s, err = from(i.file); err == nil {
			u.items[n] = i
			delete(u.inherited, n)
		}
		return s, err
	}
	if s, err = open(); err != nil {
		return s, err
	}
	filer, ok := any(s).(interface{ File() (*os.File, error) })
	if !ok {
		s.Close()
		return s, fmt.Errorf("%T has no descriptor", s)
	}
	i := &item{}
	if i.file, err = filer.File(); err != nil {
		s.Close()
		return s, err
	}
	if (n.Network == "unix" || n.Network == "unixpacket" || n.Network == "unixgram") && n.Address != "" && n.Address[0] != '@' {
		i.path = n.Address
	}
	u.items[n] = i
	return s, nil
}

// AddFile hands a copy of a file's descriptor to the successor under a name. The file stays the caller's.
func (u *Upgrader) AddFile(fileName string, f *os.File) error {
	n := name{Kind: "file", Address: fileName}
	copied, err := dup(f)
	if err != nil {
		return fmt.Errorf("upgrade: add %s: %w", n, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if old := u.items[n]; old != nil {
		old.file.Close()
	}
	u.items[n] = &item{file: copied}
	return nil
}

// File returns a copy of the file that the predecessor added under a name, or nil and no error if there is none. The
// caller closes it. It is handed on to the successor in turn.
func (u *Upgrader) File(fileName string) (*os.File, error) {
	n := name{Kind: "file", Address: fileName}
	u.mu.Lock()
	defer u.mu.Unlock()
	i := u.items[n]
	if i == nil {
		if i = u.inherited[n]; i == nil {
			return nil, nil
		}
		u.items[n] = i
		delete(u.inherited, n)
	}
	f, err := dup(i.file)
	if err != nil {
		return nil, fmt.Errorf("upgrade: %s: %w", n, err)
	}
	return f, nil
}
