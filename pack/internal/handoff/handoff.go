// Package handoff is what a master passes on to the program that takes its place in the process, as JSON beside
// descriptors, and what a program is asked before that, in its preflight. PROTOCOL.md describes both.
package handoff

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/procgroup"
)

// Version is the version of State. A program that does not know it says so in the preflight.
const Version = 2

// State is what a master knows. Descriptors are numbers in the list that goes along, from 0 on.
type State struct {
	Version     int             `json:"version"`
	Image       string          `json:"image"`              // where the next version of the executable will be
	Begun       time.Duration   `json:"begun"`              // how long ago the pack was started
	Change      time.Duration   `json:"change"`             // how long ago the upgrade was begun
	Count       int             `json:"count"`              // how many generations there have been
	Current     int             `json:"current"`            // whose workers accept, in the successor's view
	Former      int             `json:"former"`             // in the view of who goes back to work if the successor cannot
	Workers     int             `json:"workers"`            // how many there are to be, if that was changed; else 0
	Wish        Wish            `json:"wish,omitzero"`      // what was asked for meanwhile
	Returned    string          `json:"returned,omitempty"` // why the successor handed back; "" if it has not
	Generations []Generation    `json:"generations"`
	Sockets     []sockets.State `json:"sockets"`
	Addresses   []Address       `json:"addresses"`
	Tickets     [][]byte        `json:"tickets"`
	TicketsAge  time.Duration   `json:"ticketsAge"`          // of the newest
	LostLines   int             `json:"lostLines,omitempty"` // of the log, which nobody has read
	NoHUP       bool            `json:"noHUP,omitempty"`     // the pack was started with HUP ignored
}

// Address is what an endpoint is listening on, for the log, and whose sockets listen on some of the same.
type Address struct {
	Endpoint wire.Endpoint   `json:"endpoint"`
	Address  string          `json:"address"`
	Beside   []wire.Endpoint `json:"beside,omitempty"`
}

// Wish is a change that was asked for during another, and is to be made afterwards.
type Wish struct {
	Reload  bool `json:"reload,omitempty"`
	Upgrade bool `json:"upgrade,omitempty"`
	Workers int  `json:"workers,omitempty"` // so many more, or fewer
}

// Generation is one set of workers.
type Generation struct {
	Number   int                `json:"number"`
	Up       bool               `json:"up"`
	Held     bool               `json:"held,omitempty"`    // its workers are started one by one
	Stopped  bool               `json:"stopped,omitempty"` // it was told to drain
	User     string             `json:"user,omitempty"`
	Plan     plan.Plan          `json:"plan"`
	Uses     []wire.Endpoint    `json:"uses"`
	Written  []Written          `json:"written,omitempty"` // those that its workers write otherwise
	Defers   []wire.Endpoint    `json:"defers,omitempty"`  // those whose clients speak first
	Group    *procgroup.State   `json:"group"`
	Controls map[int]int        `json:"controls"`          // descriptors of control sockets, by worker ID
	Crashes  map[int]int        `json:"crashes,omitempty"` // of files that tell why they have crashed
	Stdouts  map[int]int        `json:"stdouts,omitempty"` // of pipes that they write to
	Stderrs  map[int]int        `json:"stderrs,omitempty"`
	Workers  map[int]wire.State `json:"workers"` // how far those have come that have a process, by worker ID
	InPlace  []int              `json:"inPlace,omitempty"`
	Places   map[int]int        `json:"places,omitempty"` // of QUIC, by worker ID
}

// Written is an endpoint that the workers of a generation write otherwise than it is known by.
type Written struct {
	Endpoint wire.Endpoint `json:"endpoint"`
	Written  wire.Endpoint `json:"written"`
}

// Encode returns the state as a successor reads it.
func (s *State) Encode() ([]byte, error) { return json.Marshal(s) }

// Parse reads what a predecessor wrote, and finds what cannot be. files is how many descriptors came along; returned,
// if not "", is why the successor handed all back as it was.
func Parse(text []byte, files int, returned string) (*State, error) {
	s := new(State)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, err
	}
	s.Returned = cmp.Or(returned, s.Returned)
	if s.Version != Version {
		return nil, fmt.Errorf("it is of version %d, and this program knows version %d", s.Version, Version)
	}
	known := map[int]bool{}
	for i := range s.Generations {
		g := &s.Generations[i]
		if err := g.check(files); err != nil {
			return nil, fmt.Errorf("generation %d: %w", g.Number, err)
		}
		known[g.Number] = true
	}
	for _, e := range s.Sockets {
		if len(e.Listeners) == 0 {
			return nil, fmt.Errorf("there is no socket for %s", e.Endpoint)
		}
	}
	if !known[s.Goes()] {
		return nil, fmt.Errorf("there is no generation %d", s.Goes())
	}
	return s, nil
}

func (g *Generation) check(files int) error {
	if g.Group == nil || len(g.Plan.Shares) != len(g.Group.Members) || len(g.Plan.Shares) == 0 {
		return fmt.Errorf("it has no members")
	}
	for _, numbers := range []map[int]int{g.Controls, g.Crashes, g.Stdouts, g.Stderrs} {
		for id, n := range numbers {
			if id < 0 || id >= len(g.Group.Members) || n < 0 || n >= files {
				return fmt.Errorf("there is no worker %d with descriptor %d", id, n)
			}
		}
	}
	for id, state := range g.Workers {
		if id < 0 || id >= len(g.Group.Members) || state < wire.Joining || state > wire.Closing {
			return fmt.Errorf("there is no worker %d in state %d", id, int(state))
		}
	}
	return nil
}

// Goes returns the number of the generation that goes on.
func (s *State) Goes() int {
	if s.Returned != "" {
		return s.Former
	}
	return s.Current
}

// Question is what a program is asked in its preflight.
type Question struct {
	Version  int `json:"version"`  // of the state that it would take over
	Protocol int `json:"protocol"` // that the running workers speak
	Workers  int `json:"workers"`  // how many there are to be, if that was changed; else 0
	Master   int `json:"master"`   // the process that asks, whose child is to answer; 0 from older ones
}

// Answer is what it says.
type Answer struct {
	Error    string         `json:"error,omitempty"` // why it cannot be the master
	Shares   []affinity.Set `json:"shares,omitempty"`
	Unpinned string         `json:"unpinned,omitempty"`
	User     string         `json:"user,omitempty"`
}
