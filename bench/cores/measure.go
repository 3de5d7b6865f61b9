//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/gopherpack/gopherpack/affinity"
)

// errNotServing is the error of a server that cannot run here, such as one that is steered without the right to it.
var errNotServing = errors.New("it does not serve")

// measure runs a server on some CPUs, and clients on each of others.
func (c *comparison) measure(name string, server, clients []int, path string, keepAlive bool) (o outcome, err error) {
	exe, err := os.Executable()
	if err != nil {
		return outcome{}, err
	}
	s, err := c.startServer(exe, name, affinity.Of(server...))
	if err != nil {
		return outcome{}, err
	}
	all, err := c.load(exe, len(server), clients, path, keepAlive)
	if err := errors.Join(err, s.end()); err != nil {
		return outcome{}, err
	}
	took, sent := newHistogram(), 0
	for _, l := range all {
		sent += l.Sent
		o.rate += float64(l.Counted) / l.Duration.Seconds()
		took.Merge(hdrhistogram.Import(l.Took))
	}
	// Of the master and of its workers, which it has waited for.
	spent := s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()
	o.cost = float64(spent.Microseconds()) / float64(sent)
	o.busy = o.cost * o.rate / 1e6
	o.p50, o.p99 = float64(took.ValueAtQuantile(50)), float64(took.ValueAtQuantile(99))
	return o, nil
}

// load runs a process of clients on each of some CPUs, for a server on so many.
func (c *comparison) load(exe string, servers int, cpus []int, path string, keepAlive bool) (all []loaded, err error) {
	results := make(chan error, len(cpus))
	all = make([]loaded, len(cpus))
	for i, cpu := range cpus {
		// All together they are as many as there should be for the server.
		n := c.clients * servers / len(cpus)
		if i < c.clients*servers%len(cpus) {
			n++
		}
		if n == 0 {
			results <- nil
			continue
		}
		cmd := exec.Command(exe, "-load", strconv.Itoa(n), "-addr", c.address, "-path", path,
			"-keepalive="+strconv.FormatBool(keepAlive), "-for", c.duration.String())
		cmd.Stderr = os.Stderr
		go func() {
			results <- affinity.Do(affinity.Of(cpu), func() error {
				text, err := cmd.Output()
				if err != nil {
					return fmt.Errorf("clients on CPU %d: %w", cpu, err)
				}
				return json.Unmarshal(text, &all[i])
			})
		}()
	}
	for range cpus {
		err = errors.Join(err, <-results)
	}
	return all, err
}

// server is a server that runs.
type server struct {
	cmd   *exec.Cmd
	ended chan error
}

func (c *comparison) startServer(exe, name string, cpus affinity.Set) (*server, error) {
	cmd := exec.Command(exe, "-serve", name, "-addr", c.address)
	cmd.Stderr = os.Stderr
	if err := affinity.Do(cpus, cmd.Start); err != nil {
		return nil, err
	}
	s := &server{cmd, make(chan error, 1)}
	go func() { s.ended <- cmd.Wait() }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("tcp", c.address); err == nil {
			conn.Close()
			break
		}
		select {
		case err := <-s.ended:
			return nil, fmt.Errorf("%w: %w", errNotServing, err)
		default:
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("nobody listens on %s", c.address), s.end())
		}
	}
	select { // it may not be the one that listens
	case err := <-s.ended:
		return nil, fmt.Errorf("%w: %w", errNotServing, err)
	case <-time.After(200 * time.Millisecond): // for the last worker
		return s, nil
	}
}

// end ends the server.
func (s *server) end() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return <-s.ended
}
