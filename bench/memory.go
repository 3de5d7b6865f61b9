//go:build linux

package main

import (
	"bufio"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/gopherpack/gopherpack/bench/internal/procs"
)

// idleConns is how many idle connections there are for what one costs in memory.
const idleConns = 1000

// memory measures what a server that has answered some requests has in memory, and what idle connections add.
func memory(c *cell) (v values, err error) {
	r, err := c.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	for range 100 {
		if _, err := r.ask(); err != nil {
			return nil, err
		}
	}
	if v, err = r.sizes(); err != nil {
		return nil, err
	}
	conns := make([]net.Conn, 0, idleConns)
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	reader := bufio.NewReader(nil)
	for range idleConns {
		conn, err := r.dial()
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
		reader.Reset(conn)
		if _, err := askOn(conn, reader, "/hello"); err != nil {
			return nil, err
		}
	}
	with, err := r.sizes()
	if err != nil {
		return nil, err
	}
	v["connection"] = (with["total"] - v["total"]) * 1e3 / idleConns
	return v, nil
}

// sizes returns what the server's processes have in memory, in MB.
func (r *running) sizes() (values, error) {
	time.Sleep(100 * time.Millisecond) // connections that were closed are gone by then
	all, err := r.processes()
	if err != nil {
		return nil, err
	}
	serving, err := r.serving()
	if err != nil {
		return nil, err
	}
	v := values{}
	for _, pid := range all {
		m, err := procs.MemoryOf(pid)
		if err != nil {
			return nil, err
		}
		mb := float64(m.PSS) / 1e6
		v["total"] += mb
		if slices.Contains(serving, pid) {
			v["worker"] += mb / float64(len(serving))
			v["private"] += float64(m.Private) / 1e6 / float64(len(serving))
		} else {
			v["master"] += mb
		}
	}
	return v, nil
}
