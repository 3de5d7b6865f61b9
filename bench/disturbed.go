//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// hog has one request compute for as long as clients are measured.
func hog(r *running) (undo func() error, err error) {
	conn, err := r.dial()
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		_, err := askOn(conn, bufio.NewReader(conn), "/burn")
		done <- err
	}()
	return func() error {
		err := <-done
		conn.Close()
		if err != nil {
			return fmt.Errorf("the request that computes: %w", err)
		}
		return nil
	}, nil
}

// burn is how long that request computes.
func (b *bench) burn() time.Duration { return b.warmUp() + b.duration + 200*time.Millisecond }

// stopOne stops a process that serves by SIGSTOP.
func stopOne(r *running) (undo func() error, err error) {
	pid, err := r.toSpare()
	if err != nil {
		return nil, err
	}
	return func() error { return signalIf(pid, syscall.SIGCONT) }, syscall.Kill(pid, syscall.SIGSTOP)
}

// stopOften stops a process that serves for 150, 300 and 500 ms in turn, and lets it go on for 200 ms in between.
func stopOften(r *running) (undo func() error, err error) {
	pid, err := r.toSpare()
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		stops := []time.Duration{150 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond}
		var err error
		for i := 0; ctx.Err() == nil; i++ {
			err = errors.Join(err, signalIf(pid, syscall.SIGSTOP))
			sleepUntil(ctx, time.Now().Add(stops[i%len(stops)]))
			err = errors.Join(err, signalIf(pid, syscall.SIGCONT))
			sleepUntil(ctx, time.Now().Add(200*time.Millisecond))
		}
		done <- err
	}()
	return func() error { end(); return <-done }, nil
}

// toSpare returns one of several processes that serve.
func (r *running) toSpare() (pid int, err error) {
	pids, err := r.serving()
	if err != nil {
		return 0, err
	}
	if len(pids) < 2 {
		return 0, fmt.Errorf("of processes %v none is to spare", pids)
	}
	return pids[0], nil
}

// signalIf signals a process that the server may have replaced meanwhile.
func signalIf(pid int, s syscall.Signal) error {
	if err := syscall.Kill(pid, s); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// whileStopped is what clients get when one worker is stopped, for good or again and again. Requests without an answer
// at the end count in the percentiles, as having taken the time until then.
func whileStopped(m *measured) (values, error) {
	v := latency(m)
	delete(v, "p50")
	v["waiting"] = float64(m.Waiting)
	v["failed"] = float64(m.Failed)
	return v, nil
}

// balance is how evenly connections that are kept are spread over the processes that serve, and requests on them.
func balance(m *measured) (values, error) {
	pids, err := m.serving()
	if err != nil {
		return nil, err
	}
	for pid := range m.HeldBy {
		if n, err := strconv.Atoi(pid); err != nil || !slices.Contains(pids, n) {
			return nil, fmt.Errorf("process %s answered, and those that serve are %v", pid, pids)
		}
	}
	if m.Requests == 0 {
		return values{"opened": float64(m.Opened), "rate": 0}, nil
	}
	return values{
		"requests":    maxToMean(m.ByPID, len(pids)),
		"connections": maxToMean(m.HeldBy, len(pids)),
		"apart":       float64(maxLessMin(m.HeldBy, len(pids))),
		"opened":      float64(m.Opened),
		"rate":        m.rate(),
	}, nil
}

// maxToMean returns how many times the mean over so many processes the one with most has. Those that have none may be
// missing from count.
func maxToMean(count map[string]int, processes int) float64 {
	most, total := 0, 0
	for _, n := range count {
		most = max(most, n)
		total += n
	}
	return float64(most) * float64(processes) / float64(total)
}

// maxLessMin returns by how much the one with most of so many processes has more than the one with least.
func maxLessMin(count map[string]int, processes int) int {
	has := slices.Sorted(maps.Values(count))
	if len(has) == 0 {
		return 0
	}
	least := has[0]
	if len(has) < processes {
		least = 0
	}
	return has[len(has)-1] - least
}
