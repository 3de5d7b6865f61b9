package pack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/executable"
	"github.com/gopherpack/gopherpack/internal/inplace"
	"github.com/gopherpack/gopherpack/procgroup"
)

// A succession is what a master passes on to the program that takes its place in the process: what it knows, as JSON in
// a file in memory, and descriptors, which it names by their numbers. PROTOCOL.md describes it.

// successionVersion is the version of that. A program that does not know it says so in the rehearsal.
const successionVersion = 1

// successionEnv tells a program that it is the successor: "version=1 pid=123 fd=7 previous=8". Its descriptors have not
// been touched before it is read.
const successionEnv = "GOPHERPACK_SUCCESSION"

// returnedWord precedes, in successionEnv, why a successor gave the legacy back.
const returnedWord = " returned="

// legacy is what a master leaves behind.
type legacy struct {
	Path        string            `json:"path"` // where the next version of the executable will be
	Begun       time.Time         `json:"begun"`
	Count       int               `json:"count"`   // how many generations there have been
	Current     int               `json:"current"` // whose workers accept, in the successor's view
	Former      int               `json:"former"`  // in the view of the one that goes back to work if the successor cannot
	Generations []generationState `json:"generations"`
	Sockets     []socketState     `json:"sockets"`
	Tickets     [][]byte          `json:"tickets"`
	TicketsMade time.Time         `json:"ticketsMade"` // the newest
}

// generationState is a generation in a legacy.
type generationState struct {
	Number    int               `json:"number"`
	Up        bool              `json:"up"`
	User      string            `json:"user,omitempty"`
	Shares    []affinity.Set    `json:"shares"`
	Unpinned  string            `json:"unpinned,omitempty"`
	Uses      []endpoint        `json:"uses"`
	Group     *procgroup.State  `json:"group"`
	Lifelines map[int]int       `json:"lifelines"` // descriptors, by worker ID
	Links     map[int]linkState `json:"links"`     // of workers that have said hello, by PID
}

// socketState is the sockets of an endpoint in a legacy.
type socketState struct {
	Endpoint  endpoint `json:"endpoint"`
	Shared    bool     `json:"shared,omitempty"`
	Path      string   `json:"path,omitempty"` // of a Unix socket in the file system
	Inode     fileID   `json:"inode,omitzero"`
	Listeners []int    `json:"listeners"`          // descriptors
	Steering  int      `json:"steering,omitempty"` // a descriptor that its steering needs
}

// succession is a legacy in the hands of the successor.
type succession struct {
	legacy
	source   string            // the value of successionEnv
	memory   *os.File          // where the legacy is written
	previous *executable.Image // the program to go back to
	files    map[int]*os.File  // the descriptors in the legacy, by number
	returned string            // if this is the program that was gone back to: why
	err      error             // why it cannot be understood
}

// inheritSuccession returns what a predecessor left; nil if there was none.
func inheritSuccession() *succession {
	text, ok := os.LookupEnv(successionEnv)
	if !ok {
		return nil
	}
	os.Unsetenv(successionEnv)
	s := &succession{source: text, files: map[int]*os.File{}}
	numbers := map[string]int{}
	words, reason, _ := strings.Cut(text, returnedWord)
	s.returned = reason
	for word := range strings.FieldsSeq(words) {
		name, value, _ := strings.Cut(word, "=")
		numbers[name], _ = strconv.Atoi(value)
	}
	if numbers["pid"] != os.Getpid() || numbers["fd"] < 3 || numbers["previous"] < 3 {
		return nil // it was meant for a process that started this one
	}
	closeOnExec(numbers["fd"])
	closeOnExec(numbers["previous"])
	s.memory = os.NewFile(uintptr(numbers["fd"]), "succession")
	s.previous = executable.Adopt("the previous executable", os.NewFile(uintptr(numbers["previous"]), "previous executable"))
	s.err = s.read(numbers["version"])
	return s
}

// read reads the legacy and takes the descriptors, but does not use them up: they can go back.
func (s *succession) read(version int) error {
	if version != successionVersion {
		return fmt.Errorf("the state is of version %d, this program knows version %d", version, successionVersion)
	}
	text, err := io.ReadAll(io.NewSectionReader(s.memory, 0, 1<<30))
	if err != nil {
		return err
	}
	if s.legacy, err = parseLegacy(text); err != nil {
		return fmt.Errorf("the state: %w", err)
	}
	for _, fd := range s.descriptors() {
		closeOnExec(fd)
		s.files[fd] = os.NewFile(uintptr(fd), "inherited")
	}
	return nil
}

// parseLegacy reads a legacy that a predecessor wrote, and finds what cannot be.
func parseLegacy(text []byte) (l legacy, err error) {
	if err := json.Unmarshal(text, &l); err != nil {
		return l, err
	}
	for _, g := range l.Generations {
		if g.Group == nil || len(g.Shares) != len(g.Group.Members) || len(g.Shares) == 0 {
			return l, fmt.Errorf("generation %d has no members", g.Number)
		}
		for id := range g.Lifelines {
			if id < 0 || id >= len(g.Group.Members) {
				return l, fmt.Errorf("generation %d has no worker %d", g.Number, id)
			}
		}
	}
	for _, e := range l.Sockets {
		if len(e.Listeners) == 0 {
			return l, fmt.Errorf("there is no socket for %s", e.Endpoint)
		}
	}
	all := slices.Sorted(slices.Values(l.descriptors()))
	if len(all) > 0 && all[0] < 3 || len(slices.Compact(slices.Clone(all))) != len(all) {
		return l, fmt.Errorf("the descriptors cannot be: %v", all)
	}
	return l, nil
}

// descriptors returns the numbers of all descriptors in a legacy.
func (l *legacy) descriptors() (all []int) {
	for _, e := range l.Sockets {
		all = append(all, e.Listeners...)
		if e.Steering != 0 {
			all = append(all, e.Steering)
		}
	}
	for _, g := range l.Generations {
		all = slices.AppendSeq(all, maps.Values(g.Lifelines))
	}
	return all
}

// close closes what was not used.
func (s *succession) close() {
	for _, f := range s.files {
		f.Close()
	}
	s.memory.Close()
	s.previous.Close()
}

// bequeath makes a legacy of the state. frozen is what the groups released.
func (m *masterState) bequeath(frozen map[*generation]*procgroup.State, current *generation, begun time.Time) (
	l *legacy, lifelines, sockets []*os.File, err error,
) {
	l = &legacy{Path: m.path, Begun: begun, Count: m.generations, Current: current.number, Former: m.current.number}
	l.Tickets, l.TicketsMade = m.tickets.all()
	for g, state := range frozen {
		gs := generationState{
			Number: g.number, Up: g.isUp(), User: g.user, Shares: g.plan.shares, Unpinned: g.plan.unpinned, Group: state,
			Lifelines: map[int]int{}, Links: map[int]linkState{},
		}
		for e := range g.uses {
			gs.Uses = append(gs.Uses, e)
		}
		for id, member := range state.Members {
			if member.Lifeline == nil {
				continue
			}
			lifelines = append(lifelines, member.Lifeline)
			if gs.Lifelines[id], err = inplace.Descriptor(member.Lifeline); err != nil {
				return l, lifelines, sockets, err
			}
		}
		for p, link := range m.links {
			if link.generation == g {
				gs.Links[p.PID] = link.state
			}
		}
		l.Generations = append(l.Generations, gs)
	}
	l.Sockets, sockets, err = m.sockets.bequeath(m.config.Steering)
	return l, lifelines, sockets, err
}

// takeSockets makes this master's sockets of those in the succession.
func (s *succession) takeSockets() (all map[endpoint]*socketSet, err error) {
	all = map[endpoint]*socketSet{}
	for _, e := range s.Sockets {
		set := &socketSet{shared: e.Shared, path: e.Path, inode: e.Inode, inherited: s.files[e.Steering]}
		all[e.Endpoint] = set
		for _, fd := range e.Listeners {
			l, err := net.FileListener(s.files[fd]) // a copy
			if err != nil {
				return all, fmt.Errorf("take over %s: %w", e.Endpoint, err)
			}
			set.listeners = append(set.listeners, l)
			if u, ok := l.(*net.UnixListener); ok {
				u.SetUnlinkOnClose(false)
			}
		}
	}
	return all, nil
}

// currentNumber returns the number of the generation that goes on.
func (s *succession) currentNumber() int {
	if s.returned != "" {
		return s.Former
	}
	return s.Current
}

// takeGenerations makes generations of those in the succession. They do not run yet.
func (s *succession) takeGenerations() (map[*generation]*procgroup.State, error) {
	all := map[*generation]*procgroup.State{}
	current := false
	for _, gs := range s.Generations {
		g, err := gs.generation()
		if err != nil {
			return nil, err
		}
		all[g] = gs.Group
		current = current || gs.Number == s.currentNumber()
	}
	if !current {
		return nil, fmt.Errorf("the state: there is no generation %d", s.currentNumber())
	}
	for _, gs := range s.Generations {
		for id, fd := range gs.Lifelines {
			gs.Group.Members[id].Lifeline = s.files[fd]
			delete(s.files, fd) // the group closes it
		}
	}
	return all, nil
}

func (gs *generationState) generation() (*generation, error) {
	g, err := newGeneration(generationSpec{number: gs.Number, plan: plan{shares: gs.Shares, unpinned: gs.Unpinned}, user: gs.User})
	if err != nil {
		return nil, err
	}
	g.links = gs.Links
	for _, e := range gs.Uses {
		g.uses[e] = true
	}
	if gs.Up {
		close(g.up)
	}
	return g, nil
}

// fileID identifies a file.
type fileID struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// fileAt returns which file is at a path now; the zero ID if there is none.
func fileAt(path string) (fileID, error) {
	info, err := os.Lstat(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return fileID{}, err
	}
	return identify(info), nil
}
