//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// result is what came of all cases with one server.
type result struct {
	config *config.Config
	cases  []*outcome
}

// outcome is what came of a case.
type outcome struct {
	*spec.TestCase
	name string
	err  error // nil if it passed, or does not apply
}

func newResult(address string, secure bool) *result {
	c := &config.Config{Path: "/", Timeout: time.Second, MaxHeaderLen: 4000, Strict: true, TLS: secure, Insecure: true}
	c.Host, c.Port = hostPort(address)
	r := &result{config: c}
	for _, g := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		r.add(g)
	}
	return r
}

// add adds the cases of a group, and of those in it.
func (r *result) add(g *spec.TestGroup) {
	for i, c := range append(g.Tests[:len(g.Tests):len(g.Tests)], g.StrictTests...) {
		r.cases = append(r.cases, &outcome{TestCase: c, name: fmt.Sprintf("%s/%d (%s)", g.ID(), i+1, c.Desc)})
	}
	for _, g := range g.Groups {
		r.add(g)
	}
}

func (r *result) run() {
	for _, c := range r.cases {
		c.err = r.try(c)
	}
}

// try runs a case on a connection of its own. (TestCase.Test prints, and so there can be one at a time.)
func (r *result) try(c *outcome) error {
	conn, err := spec.Dial(r.config)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err = c.Run(r.config, conn); errors.Is(err, spec.ErrSkipped) {
		return nil
	}
	return err
}

// tries is how often a case is tried again.
const tries = 5

// again tries a case again, with more time, and returns how often it passed, and its last error.
func (r *result) again(c *outcome) (err error, passed int) {
	patient := *r.config
	patient.Timeout = 3 * time.Second
	for range tries {
		if e := (&result{config: &patient}).try(c); e != nil {
			err = e
		} else {
			passed++
		}
	}
	return err, passed
}

func (r *result) failed() (n int) {
	for _, c := range r.cases {
		if c.err != nil {
			n++
		}
	}
	return n
}
