//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

// beHostile has a worker break the protocol. It is killed and replaced for that.
func beHostile(s *subject, random *rand.Rand) (int, error) {
	names := slices.Sorted(maps.Keys(attacks))
	name := names[random.IntN(len(names))]
	l := strictclient.Load{
		Network: "tcp", Address: s.address, Clients: 1, PerClient: 1, Timeout: 5 * time.Second,
		Path: "/hostile?what=" + strings.ReplaceAll(name, " ", "+"),
	}
	pid := 0
	r := l.Run(context.Background())
	for body := range r.Bodies {
		fmt.Sscan(body, &pid)
	}
	if pid == 0 {
		return 0, fmt.Errorf("no worker was there for the attack %q: %v", name, r)
	}
	failed := s.await(s.begun, hangTimeout+10*time.Second, about(pid, "worker failed"))
	if failed == nil || !strings.Contains(fmt.Sprint(failed["error"]), "it does not keep to the protocol") {
		return 1, fmt.Errorf("the log does not say that worker %d was killed for the attack %q, but %v", pid, name, failed)
	}
	return 1, nil
}

// attacks are what a hostile worker writes to its control socket while it serves, all of which the protocol forbids.
var attacks = map[string]func() (what []byte, rights []int){
	"quiesce":  always(frame(`{"type":"quiesce"}`)),
	"closed":   always(frame(`{"type":"closed"}`)),
	"end":      always(frame(`{"type":"end","cut":1}`)),
	"ready":    always(frame(`{"type":"ready"}`)),
	"listen":   always(frame(`{"type":"listen","endpoint":{"network":"tcp","address":"127.0.0.1:22"}}`)),
	"drained":  always(frame(`{"type":"drained","endpoint":{"network":"tcp","address":"127.0.0.1:22"},"socket":1}`)),
	"invented": always(frame(`{"type":"invented"}`)),
	"untyped":  always(frame(`{}`)),
	"no JSON":  always(frame(`quiesce`)),
	"hellos":   always(repeat(200, frame(`{"type":"hello","version":2}`))),
	"beats":    always(repeat(5000, frame(`{"type":"beat","vitals":{}}`))),
	"long":     always(frame(`{"type":"beat","vitals":{"probe":"` + strings.Repeat("x", 60_000) + `"}}`)),
	"longer":   always(binary.BigEndian.AppendUint32(nil, 1<<30)),
	"half":     always(append(binary.BigEndian.AppendUint32(nil, 100), '{')),
	"garbage": func() ([]byte, []int) {
		return append([]byte{0xff}, repeat(100, []byte("\x80\x01 no frame \xff"))...), nil
	},
	"descriptors": func() ([]byte, []int) { return frame(`{"type":"beat","vitals":{}}`), []int{0, 1, 2} },
	"hand over":   func() ([]byte, []int) { return frame(`{"type":"handover","endpoint":{"network":"tcp"}}`), []int{0} },
}

func always(what []byte) func() ([]byte, []int) {
	return func() ([]byte, []int) { return what, nil }
}

func frame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func repeat(n int, what []byte) (all []byte) {
	for range n {
		all = append(all, what...)
	}
	return all
}

// attack has this worker be hostile.
func attack(name string) {
	fd, err := controlSocket()
	if err == nil {
		err = write(fd, name)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "the attack %q: %v\n", name, err)
	}
}

// write writes what belongs to an attack, until nobody reads it any more.
func write(fd int, name string) error {
	prepare, ok := attacks[name]
	if !ok {
		return errors.New("there is none")
	}
	what, fds := prepare()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for len(what) > 0 {
		n, err := unix.SendmsgN(fd, what, rights, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EAGAIN:
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 1000)
		case err == unix.EINTR:
		case err != nil:
			return nil // it has been found out
		default:
			what, rights = what[n:], nil
		}
	}
	return nil
}

// controlSocket returns the descriptor of the only Unix stream socket that this process has.
func controlSocket() (int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	var found []int
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		kind, kerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if err == nil && kerr == nil && domain == unix.AF_UNIX && kind == unix.SOCK_STREAM {
			found = append(found, fd)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("the control socket is one of %v", found)
	}
	return found[0], nil
}
