// Package report makes a report of what was measured: tables, plots, and where a pack loses. It reads nothing but what
// raw.json has.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Raw is all that was measured, and how.
type Raw struct {
	Begun     time.Time
	Command   string
	Rounds    int
	Duration  string // of a measurement
	Clients   int    // per CPU of the server
	Apart     bool   // clients had CPUs of their own
	Machine   Machine
	Versions  []string
	LeftOut   []string // servers, and why
	Scenarios []Scenario
	Samples   []Sample
}

// Machine is where it was.
type Machine struct {
	Model  string
	CPUs   string // that could be used
	Number int    // of them
	Memory string
	Kernel string
	Load   string   // average of the last minute, before
	Env    []string // what the environment said to the Go runtime
}

// Scenario is what servers were put to.
type Scenario struct {
	Name  string // as in -only
	Title string
	About string // how it is measured, in a sentence
	Base  string // the server to which others are compared; none: ""
	// Figures are what came of it. The first is plotted, and those that are compared are.
	Figures []Figure
}

// Figure is one of the values that a scenario yields.
type Figure struct {
	Name   string
	Title  string // with the unit
	Digits int    // after the point
	More   bool   // more is better; otherwise less is
	Ratio  bool   // it is compared to the base
	Sum    bool   // it is the sum of the rounds, not their median
	Goal   Goal
}

// Goal is what a pack should reach.
type Goal struct {
	Limit float64 // 0 and no Must: none
	Ratio bool    // Limit is of the ratio to the base, not of the value
	Must  bool    // a pack that does not reach it is broken
}

// Sample is what one round gave.
type Sample struct {
	Scenario, Server string
	Own              bool // the server is a pack
	CPUs, Round      int
	Values           map[string]float64
	Failed           string // why there are no values
}

// Write writes raw.json.
func (r *Raw) Write(file string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// Read reads what Write wrote.
func Read(file string) (*Raw, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(Raw)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}
