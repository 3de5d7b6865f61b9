//go:build linux

package pack_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
)

// TestWorkersChangeWithUpgrade upgrades to executables that want more workers, and fewer.
func TestWorkersChangeWithUpgrade(t *testing.T) {
	t.Parallel()
	for _, rolling := range test.Some(1, []string{"-rolling=false", "-rolling"}) {
		t.Run(rolling, func(t *testing.T) {
			t.Parallel()
			workersChangeWithUpgrade(t, rolling)
		})
	}
}

func workersChangeWithUpgrade(t *testing.T, rolling string) {
	p, path := startVersion(t, nil, "-workers=4", rolling)
	keeping, connecting := applyBoth(t, p, 8)
	version := ""
	for i, n := range append(test.Some(2, []int{2, 5, 1, 3, 3, 1}), 4) {
		version = strconv.Itoa(i + 2)
		deploy(t, path, version, fmt.Sprintf("workers=%d", n))
		connecting.until(&connecting.answered, connecting.answered.Load()+200)
		p.Signal(syscall.SIGUSR2)
		if r := p.Logged(i+1, "upgraded"); r["workers"] != float64(n) {
			t.Errorf("%v; want %d workers", r, n)
		}
		p.HasWorkers(n)
		p.answersVersion(version)
		p.hasSockets(n)
	}
	deploy(t, path, "bad", "workers=6 panics")
	p.Signal(syscall.SIGUSR2)
	p.Logged(1, "upgrade failed, the old workers go on")
	p.HasWorkers(4)
	p.hasSockets(4)
	p.answersVersion(version)
	loseLittle(t, keeping, connecting)
	p.Stop()
}

// hasSockets waits until the pack has n listening sockets.
func (p *running) hasSockets(n int) {
	p.t.Helper()
	_, port, _ := strings.Cut(p.Address(), ":")
	number, _ := strconv.Atoi(port)
	count := func() (got int) {
		f, err := os.Open("/proc/net/tcp")
		if err != nil {
			p.t.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan(); lines.Scan(); {
			field := strings.Fields(lines.Text())
			if field[3] != "0A" {
				break // listening sockets come first
			}
			if strings.HasSuffix(field[1], fmt.Sprintf(":%04X", number)) {
				got++
			}
		}
		return got
	}
	for deadline := time.Now().Add(20 * time.Second); count() != n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("%d listening sockets; want %d", count(), n)
		}
	}
}

// TestEndpointsChangeWithUpgrade upgrades to an executable that serves one address more, and back.
func TestEndpointsChangeWithUpgrade(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("keeping new connections out needs CAP_NET_ADMIN")
	}
	for rolling, times := range map[string]int{"-rolling=false": test.Times(1, 3), "-rolling": test.Times(1, 2)} {
		t.Run(rolling, func(t *testing.T) {
			t.Parallel()
			endpointsChangeWithUpgrade(t, times, rolling)
		})
	}
}

// listenBelowEphemeral listens at a port that no client gets, so that it is free again when the listener is closed
// (ip_local_port_range, ip(7)).
func listenBelowEphemeral(t *testing.T) net.Listener {
	t.Helper()
	for range 100 {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 20000+rand.IntN(10000))); err == nil {
			return l
		}
	}
	t.Fatal("no port is free")
	return nil
}

func endpointsChangeWithUpgrade(t *testing.T, times int, rolling string) {
	p, path := startVersion(t, nil, "-drain=1s", "-workers=3", rolling)
	l := listenBelowEphemeral(t)
	extra := l.Addr().String()
	main := apply(t, load(p, 4, 0))
	// As long as somebody else has the address, the upgrade cannot be.
	deploy(t, path, "2", "extra="+extra)
	p.Signal(syscall.SIGUSR2)
	failed := p.Logged(1, "upgrade failed, the old workers go on")
	if !strings.Contains(fmt.Sprint(failed["error"]), "address already in use") {
		t.Errorf("%v", failed)
	}
	l.Close()
	for i := range times {
		deploy(t, path, "2", "extra="+extra)
		p.Signal(syscall.SIGUSR2)
		p.Logged(2*i+1, "upgraded")
		u, kept := apply(t, loadOn("tcp", extra, 8, 0)), loadOn("tcp", extra, 8, 0)
		kept.KeepAlive, kept.Pause = true, time.Millisecond
		keeping := apply(t, kept)
		u.until(&u.answered, 100)
		keeping.until(&keeping.answered, 100)
		deploy(t, path, "3")
		p.Signal(syscall.SIGUSR2)
		p.Logged(2*i+2, "upgraded")
		for c, err := net.Dial("tcp", extra); err == nil; c, err = net.Dial("tcp", extra) {
			c.Close()
		}
		comeTooLate(t, u, keeping)
	}
	loseNothing(t, main)
	p.Stop()
}
