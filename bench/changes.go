//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

// startUp measures the time from the start of a server until it answers for the first time.
func startUp(c *cell) (v values, err error) {
	r, err := c.launch()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	for {
		if _, err := r.ask(); err == nil {
			return values{"first": milliseconds(time.Since(r.begun))}, nil
		}
		if r.gone() || time.Since(r.begun) > patience {
			return nil, r.explain(errors.New("it does not answer"))
		}
		time.Sleep(500 * time.Microsecond)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// atOnce is how many clients ask when a process was killed.
const atOnce = 32

// crash kills the process that serves, and measures how long it takes until clients that connect from then on have all
// been answered, which try again if they must, and until a new process answers. Some servers end then.
func crash(c *cell) (v values, err error) {
	r, err := c.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	old, err := r.serving()
	if err != nil {
		return nil, err
	}
	victim, err := r.ask()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(old, victim) {
		return nil, fmt.Errorf("process %d answered, and those that serve are %v", victim, old)
	}
	begun := time.Now()
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		return nil, err
	}
	served, again, err := r.askAll(begun)
	if err == nil {
		var replaced time.Duration
		if replaced, err = r.awaitNew(old, begun); err == nil {
			return values{
				"served": milliseconds(served), "again": float64(again), "replaced": milliseconds(replaced), "ended": 0,
			}, nil
		}
	}
	if r.dead() {
		return values{"ended": 1}, nil
	}
	return nil, err
}

// askAll has clients ask at once, each until it is answered, and returns when the last was, and how often one had to
// try again.
func (r *running) askAll(begun time.Time) (last time.Duration, again int, err error) {
	var mu sync.Mutex
	var clients sync.WaitGroup
	for range atOnce {
		clients.Go(func() {
			for {
				_, failed := r.ask()
				since := time.Since(begun)
				mu.Lock()
				if failed == nil {
					last = max(last, since)
				} else {
					again++
				}
				hopeless := failed != nil && (since > patience || r.dead())
				if hopeless {
					err = failed
				}
				mu.Unlock()
				if failed == nil || hopeless {
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	clients.Wait()
	return last, again, err
}

// awaitNew asks until a process answers that was not there before.
func (r *running) awaitNew(old []int, begun time.Time) (time.Duration, error) {
	for {
		pid, err := r.ask()
		since := time.Since(begun)
		if err == nil && !slices.Contains(old, pid) {
			return since, nil
		}
		if since > patience || r.dead() {
			return 0, fmt.Errorf("no new process serves; it said %q", r.said())
		}
		time.Sleep(500 * time.Microsecond)
	}
}

// replace measures the time from the order to replace all that serves until the new version answers for the first time,
// and until the old one has for the last time.
func replace(c *cell) (v values, err error) {
	r, err := c.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	old, err := r.serving()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := r.change(c.scenario.change); err != nil {
		return nil, err
	}
	first, err := r.awaitNew(old, begun)
	if err != nil {
		return nil, err
	}
	// When the old one has gone it answers no more; one that stays, to serve what it has, has not for a while.
	last := first
	for quiet := first; quiet < last+time.Second && time.Since(begun) < patience; {
		pid, err := r.ask()
		if err != nil {
			return nil, err
		}
		quiet = time.Since(begun)
		if slices.Contains(old, pid) {
			last = quiet
		}
		now, err := r.serving()
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(old, pid) }) {
			break
		}
		time.Sleep(500 * time.Microsecond)
	}
	return values{"first": milliseconds(first), "last": milliseconds(last)}, nil
}

// The ways to replace what serves.
const (
	byReload  = "reload"
	byUpgrade = "upgrade"
)

// change replaces what serves.
func (r *running) change(way string) error {
	s := r.reload
	if way == byUpgrade {
		s = r.upgrade
		if r.second {
			return r.secondInstance()
		}
	}
	if s == 0 {
		return fmt.Errorf("there is no way to %s it", way)
	}
	return r.cmd.Process.Signal(s)
}

// secondInstance starts another instance beside the first, and then stops that.
func (r *running) secondInstance() error {
	second, err := r.instance()
	if err != nil {
		return err
	}
	r.others = append(r.others, second)
	time.Sleep(time.Second) // it does not tell when its children listen
	return r.cmd.Process.Signal(syscall.SIGTERM)
}

// strictClients is how many clients of each kind there are in a change.
const strictClients = 32

// lost counts what clients lose that retry nothing while what serves is replaced once: on new connections, on kept
// ones, and on kept ones with pauses, all at once.
func lost(c *cell) (v values, err error) {
	if c.server.own {
		c.args = []string{"-minready", "100ms"}
	}
	r, err := c.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	old, err := r.serving()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(c.bench.ctx)
	defer cancel()
	results := make([]*strictclient.Result, len(strict))
	var loads sync.WaitGroup
	for i, s := range strict {
		s.Network, s.Address, s.Path, s.Clients, s.Timeout = "tcp", r.address, "/hello", strictClients, patience
		loads.Go(func() { results[i] = s.Run(ctx) })
	}
	err = r.changeUnderLoad(c, old)
	cancel()
	loads.Wait()
	if err != nil {
		return nil, err
	}
	v = values{}
	for i, s := range strict {
		v["lost "+s.name] = float64(results[i].Failed())
		if s.KeepAlive {
			v["again "+s.name] = float64(results[i].Conns - strictClients)
		}
		v["requests"] += float64(results[i].Requests)
	}
	return v, nil
}

// strict are the loads of which nothing should be lost.
var strict = []struct {
	name string
	strictclient.Load
}{
	{"new", strictclient.Load{}},
	{"kept", strictclient.Load{KeepAlive: true}},
	{"pausing", strictclient.Load{KeepAlive: true, Pause: 20 * time.Millisecond}},
}

// changeUnderLoad returns when what served before has gone, or does nothing any more.
func (r *running) changeUnderLoad(c *cell, old []int) error {
	if err := sleepUntil(c.bench.ctx, time.Now().Add(c.bench.warmUp())); err != nil {
		return err
	}
	begun := time.Now()
	if err := r.change(c.scenario.change); err != nil {
		return err
	}
	if _, err := r.awaitNew(old, begun); err != nil {
		return err
	}
	for {
		now, err := r.serving()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(old, pid) }) {
			break
		}
		if time.Since(begun) > patience {
			return fmt.Errorf("what served before does not end; it said %q", strings.TrimSpace(r.said()))
		}
		if err := sleepUntil(c.bench.ctx, time.Now().Add(10*time.Millisecond)); err != nil {
			return err
		}
	}
	return sleepUntil(c.bench.ctx, time.Now().Add(c.bench.warmUp()))
}
