//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"syscall"
	"time"
)

// half is a request of which the server has got a part.
type half struct {
	net.Conn
	answers *bufio.Reader
	rest    string
}

// sendHalf has clients send a part of a request's header, and the rest when the pack has been reloaded, upgraded, or a
// worker been told to stop. All are answered.
func sendHalf(s *subject, random *rand.Rand) (int, error) {
	all := make([]*half, 30)
	for i := range all {
		h, err := s.begin(random)
		if err != nil {
			return 0, err
		}
		defer h.Close()
		all[i] = h
	}
	pause := time.Duration(random.Int64N(int64(time.Second)))
	var err error
	switch random.IntN(3) {
	case 0:
		s.signal(syscall.SIGHUP)
		err = s.says("reloaded", 20*time.Second)
	case 1:
		s.signal(syscall.SIGUSR2)
		err = s.says("upgraded", 20*time.Second)
	case 2:
		pid, serr := s.some(random)
		if serr != nil {
			return 0, serr
		}
		syscall.Kill(pid, syscall.SIGTERM)
		err = s.says("replacing worker", 5*time.Second)
	}
	if err != nil {
		return 0, err
	}
	time.Sleep(pause)
	for _, h := range all {
		if err := h.finish(); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// begin sends a part of a request: the first on its connection, or one after another, or together with that.
func (s *subject) begin(random *rand.Rand) (*half, error) {
	const request = "GET / HTTP/1.1\r\nHost: strict\r\nX-Half: 1\r\n\r\n"
	cut := 1 + random.IntN(len(request)-1)
	kind := random.IntN(3)
	c, err := net.DialTimeout("tcp", s.address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	h := &half{c, bufio.NewReader(c), request[cut:]}
	c.SetDeadline(time.Now().Add(longestWait))
	text := request[:cut]
	switch kind {
	case 1:
		if _, err = io.WriteString(c, request); err == nil {
			err = h.answer()
		}
	case 2:
		text = request + text
	}
	if err == nil {
		_, err = io.WriteString(c, text)
	}
	if err == nil && kind == 2 {
		err = h.answer()
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("before a request that is begun (%d): %w", kind, err)
	}
	return h, nil
}

// answer reads an answer.
func (h *half) answer() error {
	resp, err := http.ReadResponse(h.answers, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// finish sends the rest, and reads the answer.
func (h *half) finish() error {
	h.SetDeadline(time.Now().Add(5 * time.Second))
	_, err := io.WriteString(h, h.rest)
	if err == nil {
		err = h.answer()
	}
	if err != nil {
		return fmt.Errorf("a request that was begun before, from %v, with %q to come: %w", h.LocalAddr(), h.rest, err)
	}
	return nil
}
