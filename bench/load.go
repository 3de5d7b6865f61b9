//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/bench/internal/load"
	"github.com/gopherpack/gopherpack/bench/internal/procs"
)

// crowd is a number of client processes, one on each CPU that clients have.
type crowd struct {
	bench   *bench
	members []*member
}

// member is one process of clients.
type member struct {
	cmd    *exec.Cmd
	orders *json.Encoder
	in     io.Closer
	out    *bufio.Reader
	failed bytes.Buffer
}

// gather starts clients, and returns when each has been answered once.
func (c *cell) gather(r *running, s load.Spec) (*crowd, error) {
	g := &crowd{bench: c.bench}
	cpus := c.bench.clientCPUs(c.cpus)
	s.Address = r.address
	all := s
	all.Clients, all.Slow = c.bench.clients*c.cpus, s.Slow*c.cpus
	if s.Streams > 0 {
		all.Clients = max(len(cpus), all.Clients/s.Streams)
	}
	for i, cpu := range cpus {
		s.Clients, s.Slow = share(all.Clients, i, len(cpus)), share(all.Slow, i, len(cpus))
		if s.Clients == 0 {
			continue
		}
		m, err := c.bench.startClients(cpu, s)
		if err != nil {
			return nil, errors.Join(err, g.end())
		}
		g.members = append(g.members, m)
	}
	for _, m := range g.members {
		if line, err := m.out.ReadString('\n'); err != nil || line != "ready\n" {
			return nil, errors.Join(fmt.Errorf("clients are not answered: %q", line), g.end())
		}
	}
	return g, nil
}

// share returns how many of n things the i-th of some gets.
func share(n, i, of int) int {
	if i < n%of {
		return n/of + 1
	}
	return n / of
}

func (b *bench) startClients(cpu int, s load.Spec) (*member, error) {
	m := &member{cmd: exec.Command(filepath.Join(b.programs, "clients"))}
	in, err := m.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.cmd.Stderr = &m.failed
	m.cmd.Env = b.clientEnv
	if err := affinity.Do(affinity.Of(cpu), m.cmd.Start); err != nil {
		return nil, err
	}
	b.addClient(m.cmd.Process.Pid)
	m.in, m.orders, m.out = in, json.NewEncoder(in), bufio.NewReader(out)
	return m, m.orders.Encode(s)
}

// tell says when what clients do counts.
func (g *crowd) tell(w load.Window) (err error) {
	for _, m := range g.members {
		err = errors.Join(err, m.orders.Encode(w))
	}
	return err
}

// results waits until the window is over, and returns what all clients did together.
func (g *crowd) results() (load.Result, error) {
	var total load.Result
	var failed error
	for _, m := range g.members {
		var result load.Result
		if err := json.NewDecoder(m.out).Decode(&result); err != nil {
			failed = err
			continue
		}
		total.Add(result)
	}
	return total, errors.Join(failed, g.end())
}

// end ends all clients.
func (g *crowd) end() (err error) {
	for _, m := range g.members {
		m.in.Close()
		kill := time.AfterFunc(patience, func() { m.cmd.Process.Kill() })
		if failed := m.cmd.Wait(); failed != nil {
			err = errors.Join(err, fmt.Errorf("%w: %s", failed, bytes.TrimSpace(m.failed.Bytes())))
		}
		kill.Stop()
		g.bench.removeClient(m.cmd.Process.Pid)
	}
	g.members = nil
	return err
}

// loading is a way to load a server.
type loading struct {
	load.Spec
	settle float64 // how often the time of a measurement clients go on before it counts; default: as little as it takes
	length float64 // how often that time they are measured; default 1
	// disturb does something to the server when clients have been answered, until undo is called when they are done.
	disturb func(*running) (undo func() error, err error)
	values  func(*measured) (values, error) // default: speed
}

// measured is what came of a load.
type measured struct {
	*running
	load.Result
	took   *hdrhistogram.Histogram
	length time.Duration
	cpu    time.Duration // of the server, from when clients were told to go on until they were done
	alone  bool          // no process of the server came or went meanwhile
}

// rate is in requests per second.
func (m *measured) rate() float64 { return float64(m.Requests) / m.length.Seconds() }

// measure loads a server.
func (l loading) measure(c *cell) (v values, err error) {
	c.secure = l.Secure
	r, err := c.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	m, err := l.run(c, r)
	if err != nil {
		return nil, err
	}
	if l.values != nil {
		return l.values(m)
	}
	return speed(m)
}

// run loads a server that runs.
func (l loading) run(c *cell, r *running) (m *measured, err error) {
	g, err := c.gather(r, l.Spec)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.end()) }()
	undo := func() error { return nil }
	if l.disturb != nil {
		if undo, err = l.disturb(r); err != nil {
			return nil, err
		}
	}
	defer func() { err = errors.Join(err, undo()) }()
	m = &measured{running: r, length: times(c.bench.duration, l.length, 1)}
	settle := c.bench.warmUp()
	if l.settle > 0 {
		settle = times(c.bench.duration, l.settle, 1)
	}
	before, usedBefore, err := r.used()
	if err != nil {
		return nil, err
	}
	begin := time.Now().Add(settle)
	w := load.Window{Begin: begin, End: begin.Add(m.length)}
	if err := g.tell(w); err != nil {
		return nil, err
	}
	if m.Result, err = g.results(); err != nil {
		return nil, err
	}
	m.took = hdrhistogram.Import(m.Took)
	after, usedAfter, err := r.used()
	m.alone, m.cpu = slices.Equal(before, after), usedAfter-usedBefore
	return m, err
}

func times(d time.Duration, factor, otherwise float64) time.Duration {
	if factor == 0 {
		factor = otherwise
	}
	return time.Duration(float64(d) * factor)
}

// used returns the processes of the server, and the processor time that they have used so far.
func (r *running) used() ([]int, time.Duration, error) {
	pids, err := r.processes()
	if err != nil {
		return nil, 0, err
	}
	t, err := procs.CPUTime(pids)
	return pids, t, err
}

// speed is how fast a server is, and what it costs.
func speed(m *measured) (values, error) {
	if !m.alone {
		return nil, errors.New("a process of the server has ended, or was started, meanwhile")
	}
	if m.Requests == 0 { // clients say so if none is answered later
		return values{"rate": 0}, nil
	}
	v := latency(m)
	v["cpu"] = float64(m.cpu) / 1e3 / float64(m.All)
	if m.Handshakes > 0 {
		v["resumed"] = 100 * float64(m.Resumed) / float64(m.Handshakes)
	}
	return v, nil
}

// latency is how long requests take, in milliseconds.
func latency(m *measured) values {
	v := values{"rate": m.rate()}
	for name, q := range map[string]float64{"p50": 50, "p99": 99, "p999": 99.9} {
		v[name] = float64(m.took.ValueAtQuantile(q)) / 1e3
	}
	return v
}
