package sockets

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// State is the sockets of an endpoint as they go to the program that takes this one's place. Descriptors are indices
// into the files that come along.
type State struct {
	Endpoint  wire.Endpoint `json:"endpoint"`
	Shared    bool          `json:"shared,omitempty"`
	Path      string        `json:"path,omitempty"`      // of a Unix socket in the file system
	Directory int           `json:"directory,omitempty"` // where Path is, plus 1; 0 if only Path tells
	Inode     FileID        `json:"inode,omitzero"`      // at Path
	Quiesced  bool          `json:"quiesced,omitempty"`  // the file has another name, so that nobody connects
	Listeners []int         `json:"listeners"`
	Given     string        `json:"given,omitempty"`    // the name of the first, if systemd has passed it
	Seed      uint32        `json:"seed,omitempty"`     // of the choice among packet sockets
	Secret    []byte        `json:"secret,omitempty"`   // of QUIC
	Steering  int           `json:"steering,omitempty"` // what the steering needs, plus 1; 0 if it needs nothing
}

// FileID identifies a file.
type FileID struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// Export describes the sockets, and appends copies of their descriptors to files, which the caller closes. steering
// returns what the steering of an endpoint needs, a file that is the caller's too, or nil. If it fails, what it
// appended is closed.
func (k *Keeper) Export(files []*os.File, steering func(wire.Endpoint) (*os.File, error)) (
	states []State, all []*os.File, err error,
) {
	given := len(files)
	all = slices.Clip(files)
	defer func() {
		if err != nil {
			for _, f := range all[given:] {
				f.Close()
			}
			states, all = nil, files
		}
	}()
	states, all, err = k.export(all)
	if err != nil || steering == nil {
		return states, all, err
	}
	for i := range states { // without the lock: what it does is not ours
		f, err := steering(states[i].Endpoint)
		if err != nil {
			return states, all, fmt.Errorf("steering of %s: %w", states[i].Endpoint, err)
		}
		if f != nil {
			all = append(all, f)
			states[i].Steering = len(all)
		}
	}
	return states, all, nil
}

func (k *Keeper) export(files []*os.File) (states []State, all []*os.File, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.endpoints() {
		s := k.open[e]
		if len(s.final) > 0 {
			return states, files, fmt.Errorf("%s: new connections are kept out for good", e)
		}
		state := State{Endpoint: e, Shared: s.shared, Given: s.given, Seed: s.seed, Secret: s.secret}
		for _, l := range s.listeners {
			f, err := l.File()
			if err != nil {
				return states, files, fmt.Errorf("socket of %s: %w", e, err)
			}
			state.Listeners = append(state.Listeners, len(files))
			files = append(files, f)
		}
		if f := s.file; f != nil {
			state.Path, state.Inode, state.Quiesced = f.path, f.id, f.hidden
			dir, err := duplicate(f.dir)
			if err != nil {
				return states, files, fmt.Errorf("directory of %s: %w", e, err)
			}
			if dir != nil {
				files = append(files, dir)
				state.Directory = len(files)
			}
		}
		states = append(states, state)
	}
	return states, files, nil
}

// Import takes over the sockets that a predecessor exported, all or none. It takes copies: the files stay the
// caller's, which closes those that it returns for the steering, too.
func (k *Keeper) Import(states []State, files []*os.File) (steering map[wire.Endpoint]*os.File, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	taken := map[wire.Endpoint]*set{}
	steering = map[wire.Endpoint]*os.File{}
	defer func() {
		if err != nil { // they go on elsewhere
			for _, s := range taken {
				s.release()
			}
			for _, f := range steering {
				f.Close()
			}
			steering = nil
		}
	}()
	if k.closed || len(k.open) > 0 {
		return steering, fmt.Errorf("sockets cannot be taken over by a keeper that has some, or is closed")
	}
	for _, state := range states {
		if taken[state.Endpoint] != nil {
			return steering, fmt.Errorf("take over %s: it is there twice", state.Endpoint)
		}
		s := &set{shared: state.Shared, own: state.Endpoint.Own, given: state.Given, seed: state.Seed, secret: state.Secret}
		taken[state.Endpoint] = s
		if err := s.take(state, files); err != nil {
			return steering, fmt.Errorf("take over %s: %w", state.Endpoint, err)
		}
		f, err := copyOf(files, state.Steering)
		if err != nil {
			return steering, fmt.Errorf("take over the steering of %s: %w", state.Endpoint, err)
		}
		if f != nil {
			steering[state.Endpoint] = f
		}
	}
	k.open = taken
	k.polled.changed()
	return steering, nil
}

// take makes copies of what a state refers to.
func (s *set) take(state State, files []*os.File) error {
	if n := len(state.Listeners); n == 0 || s.shared && n > 1 {
		return fmt.Errorf("it has %d sockets, shared %v", n, s.shared)
	}
	for _, i := range state.Listeners {
		f, err := pick(files, i)
		if err != nil {
			return err
		}
		taken, err := takeOver(f, state.Endpoint.IsPacket())
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, taken)
		if isUnix(taken) != (state.Endpoint.Network == "unix") || isUnix(taken) && !s.shared {
			return fmt.Errorf("descriptor %d is a socket of another kind: %s", i, taken.Addr().Network())
		}
	}
	if state.Path == "" {
		return nil
	}
	dir, name := filepath.Split(state.Path)
	s.file = &file{path: state.Path, name: name, id: state.Inode, hidden: state.Quiesced}
	var err error
	if state.Directory == 0 {
		s.file.dir, err = openDirectory(dir)
	} else {
		s.file.dir, err = copyOf(files, state.Directory)
	}
	return err
}

// takeOver takes over a copy of a socket, for packets or listening.
func takeOver(f *os.File, packets bool) (socket, error) {
	if packets {
		p, err := net.FilePacketConn(f)
		if err != nil {
			return nil, err
		}
		if u, ok := p.(*net.UDPConn); ok {
			return keep(packetConn{u})
		}
		p.Close()
		return nil, fmt.Errorf("a packet socket of another kind: %s", p.LocalAddr().Network())
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		keepFile(u)
	}
	return keep(opened(l))
}

// pick returns the file of an index.
func pick(files []*os.File, i int) (*os.File, error) {
	if i < 0 || i >= len(files) || files[i] == nil {
		return nil, fmt.Errorf("there is no descriptor %d", i)
	}
	return files[i], nil
}

// copyOf returns a copy of the file of a number that is one more than its index; nil for 0.
func copyOf(files []*os.File, number int) (*os.File, error) {
	if number == 0 {
		return nil, nil
	}
	f, err := pick(files, number-1)
	if err != nil {
		return nil, err
	}
	return duplicate(f)
}
