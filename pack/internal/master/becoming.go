package master

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/upgrade"
)

// onUpgrade does a step of an upgrade.
func (m *Master) onUpgrade(e effect) {
	switch e := e.(type) {
	case openImage:
		go func() {
			image, err := upgrade.OpenImage(m.path)
			if err == nil {
				m.mu.Lock()
				m.images[e.change] = image
				m.mu.Unlock()
			}
			m.post(imageOpened{e.change, m.path, err})
		}()
	case dropImage:
		m.mu.Lock()
		image := m.images[e.change]
		delete(m.images, e.change)
		m.mu.Unlock()
		if image != nil {
			image.Close()
		}
	case preflight:
		go func() {
			s, err := m.preflight(e)
			m.post(preflown{e.change, s, err})
		}()
	case release:
		go func() {
			m.release()
			m.post(released{})
		}()
	case execute:
		go func() {
			err := m.become(e)
			failed := execFailed{err: err}
			if late, ok := errors.AsType[upgrade.LateSignal](err); ok {
				failed.late = late
			}
			m.post(failed)
		}()
	case settled:
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.estate != nil {
			m.estate.Close()
			m.estate, m.foreign = nil, nil
		}
	}
}

// imageFor returns what a change upgrades to; nil if that was given up.
func (m *Master) imageFor(change int) *upgrade.Image {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.images[change]
}

// preflight has the new executable show that it can be the master, and returns what workers it wants.
func (m *Master) preflight(e preflight) (spec, error) {
	image := m.imageFor(e.change)
	if image == nil {
		return spec{}, errors.New("it was given up")
	}
	ctx, cancel := context.WithTimeoutCause(m.hooks, m.ReadyTimeout, fmt.Errorf("no answer within %v", m.ReadyTimeout))
	defer cancel()
	question, err := json.Marshal(e.question)
	if err != nil {
		return spec{}, err
	}
	text, err := upgrade.Preflight(ctx, image, question, m.PreflightEnv...)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if cause := errors.Unwrap(err); cause != nil { // which executable it was is known
			err = cause
		}
		return spec{}, fmt.Errorf("the new executable did not come as far as Run: %w", err)
	}
	var a handoff.Answer
	if err := json.Unmarshal(text, &a); err != nil {
		return spec{}, fmt.Errorf("the answer of the new executable, %.100q: %w", text, err)
	}
	if a.Error != "" {
		return spec{}, fmt.Errorf("the new executable will not be the master: %s", a.Error)
	}
	if err := plan.Check(len(a.Shares)); err != nil {
		return spec{}, fmt.Errorf("the new executable wants %w", err)
	}
	return spec{plan: plan.Plan{Shares: a.Shares, Unpinned: a.Unpinned}, user: a.User, image: e.change}, nil
}

// become becomes the new executable, or the one before. It returns only if that fails.
func (m *Master) become(e execute) error {
	s, image := e.state, m.imageFor(e.change)
	if e.back {
		image = m.estate.Previous()
	}
	if image == nil {
		return errors.New("the executable is not open any more")
	}
	var files, own []*os.File // which the adopted groups close, and which are copies
	defer func() { closeFiles(own) }()
	s.Image = m.path
	s.Generations = slices.DeleteFunc(s.Generations, func(g handoff.Generation) bool {
		return m.adopted[g.Number] == nil // it has just ended
	})
	for i := range s.Generations {
		g := &s.Generations[i]
		g.Group, g.Controls, g.Crashes = m.adopted[g.Number], map[int]int{}, map[int]int{}
		g.Stdouts, g.Stderrs = map[int]int{}, map[int]int{}
		pass := func(numbers map[int]int, id int, f *os.File) {
			if f != nil {
				numbers[id] = len(files)
				files = append(files, f)
			}
		}
		for id, member := range g.Group.Members {
			pass(g.Controls, id, member.Control)
			pass(g.Stdouts, id, member.Stdout)
			pass(g.Stderrs, id, member.Stderr)
			pass(g.Crashes, id, m.crashes.get(seat{g.Number, id}))
		}
	}
	exported := len(files)
	states, files, err := m.sockets.Export(files, m.steering.export)
	if err != nil {
		return err
	}
	own, s.Sockets = files[exported:], states
	m.manager.flush()
	m.log.Flush()
	s.LostLines = m.log.Left()
	s.NoHUP = m.signals.nohup.Load()
	text, err := s.Encode()
	if err != nil {
		return err
	}
	defer m.signals.again(m)
	return Become(image, text, files, m.signals.during(m))
}
