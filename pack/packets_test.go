//go:build linux

package pack_test

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test/program"
)

// sender sends datagrams from an address of its own, and wants each to be answered: it sends none again.
type sender struct {
	net.Conn
	sent int
}

func newSender(t *testing.T, network, address string) *sender {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &sender{Conn: c}
}

// send sends the next datagram, with a text.
func (s *sender) send(text string) (whole string, err error) {
	s.sent++
	_, err = s.Write([]byte(text))
	return text, err
}

// receive waits for an answer, and returns who gave it, and to what.
func (s *sender) receive(limit time.Duration) (id, pid int, text string, err error) {
	buf := make([]byte, 1<<16)
	s.SetReadDeadline(time.Now().Add(limit))
	n, err := s.Read(buf)
	if err != nil {
		return -1, 0, "", err
	}
	if k, err := fmt.Sscanf(string(buf[:n]), "id=%d pid=%d %s", &id, &pid, &text); k < 3 {
		return -1, 0, "", fmt.Errorf("answer %q: %w", buf[:n], err)
	}
	return id, pid, text, nil
}

// ask sends a datagram and waits for the answer.
func (s *sender) ask() (id, pid int, err error) {
	want, err := s.send(fmt.Sprint("number", s.sent))
	if err != nil {
		return -1, 0, err
	}
	id, pid, text, err := s.receive(program.Patience)
	if err == nil && text != want {
		err = fmt.Errorf("answer to %q, want %q", text, want)
	}
	return id, pid, err
}

// sending is senders that ask, one datagram at a time each, until they are stopped.
type sending struct {
	t        *testing.T
	asked    atomic.Int64
	stop     context.CancelFunc
	senders  sync.WaitGroup
	mu       sync.Mutex
	ids      []map[int]bool // of who has answered, by sender
	failures []error
}

func sendFrom(t *testing.T, network, address string, n int) *sending {
	ctx, cancel := context.WithCancel(t.Context())
	s := &sending{t: t, stop: cancel, ids: make([]map[int]bool, n)}
	for i := range s.ids {
		s.ids[i] = map[int]bool{}
		c := newSender(t, network, address)
		s.senders.Go(func() {
			for pace := time.Tick(time.Millisecond); ctx.Err() == nil; <-pace {
				id, _, err := c.ask()
				s.asked.Add(1)
				s.mu.Lock()
				s.ids[i][id] = true
				if err != nil {
					s.failures = append(s.failures, err)
				}
				s.mu.Unlock()
			}
		})
	}
	t.Cleanup(cancel)
	return s
}

// more waits until each sender has asked a few times more.
func (s *sending) more() {
	s.t.Helper()
	want := s.asked.Load() + 5*int64(len(s.ids))
	for deadline := time.Now().Add(program.Patience); s.asked.Load() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d datagrams asked; want %d", s.asked.Load(), want)
		}
	}
}

// lostNothing ends them. It returns how many workers have answered the same sender, at most.
func (s *sending) lostNothing() (most int) {
	s.t.Helper()
	s.stop()
	s.senders.Wait()
	s.t.Logf("%d datagrams, %d without an answer", s.asked.Load(), len(s.failures))
	if len(s.failures) > 0 {
		s.t.Errorf("lost: %v", s.failures[:min(3, len(s.failures))])
	}
	for _, ids := range s.ids {
		most = max(most, len(ids))
	}
	return most
}

// TestPackets has senders of datagrams ask through reloads, upgrades, and numbers of workers that change.
func TestPackets(t *testing.T) {
	t.Parallel()
	for network, host := range map[string]string{"udp4": "127.0.0.1", "udp6": "[::1]", "udp": "localhost"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			p := start(t, "packets", nil, "-workers=3", "-address="+network+" "+host+":0")
			s := sendFrom(t, network, p.Address(), 12)
			s.more()
			for i := range 2 {
				p.Signal(syscall.SIGHUP)
				p.Logged(2*i+1, "reloaded", "upgraded")
				s.more()
				p.Signal(syscall.SIGUSR2)
				p.Logged(2*i+2, "reloaded", "upgraded")
				s.more()
			}
			if most := s.lostNothing(); most != 1 {
				t.Errorf("one sender was answered by %d workers; each has its own", most)
			}
			s = sendFrom(t, network, p.Address(), 12)
			for i, sig := range []syscall.Signal{syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGTTOU, syscall.SIGTTIN} {
				s.more()
				p.Signal(sig)
				p.Logged(i+1, "number of workers changed")
			}
			s.more()
			s.lostNothing()
			p.Stop()
		})
	}
}

// of returns senders that one worker answers, and one more that another does.
func of(t *testing.T, p *running, n int) (all []*sender, id, pid int, other *sender) {
	t.Helper()
	id = -1
	for len(all) < n || other == nil {
		s := newSender(t, "udp4", p.Address())
		answered, who, err := s.ask()
		switch {
		case err != nil:
			t.Fatal(err)
		case id < 0 || id == answered:
			all, id, pid = append(all, s), answered, who
		default:
			other = s
		}
	}
	return all, id, pid, other
}

// TestPacketsOfKilled kills a worker to which datagrams have come that it has not read: the one that comes in its place
// answers them. Until then, what comes newly goes to others, as when it hangs, and not for longer.
func TestPacketsOfKilled(t *testing.T) {
	t.Parallel()
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprintf("hangs %v", hangs), func(t *testing.T) {
			t.Parallel()
			args := []string{"-workers=3", "-address=udp4 127.0.0.1:0"}
			if hangs {
				args = append(args, "-hang=1", "-hangtimeout=300ms") // reported only
			}
			p := start(t, "packets", nil, args...)
			all, id, pid, other := of(t, p, 20)
			freeze(t, pid)
			for _, s := range all {
				s.send("queued")
			}
			if hangs {
				p.Until("its senders to be answered by others", program.Patience, func() bool {
					all[0].send("new")
					by, _, text, err := all[0].receive(100 * time.Millisecond)
					if text == "queued" { // it was late already, on a busy machine
						all = all[1:]
						return false
					}
					return err == nil && text == "new" && by != id
				})
				syscall.Kill(pid, syscall.SIGCONT)
			} else {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			for i, s := range all {
				for text := ""; text != "queued"; { // the first may have asked again and again
					by, now, got, err := s.receive(program.Patience)
					if text = got; err != nil || now == pid && !hangs {
						t.Fatalf("sender %d: %q by worker %d, process %d, %v", i, text, by, now, err)
					}
				}
			}
			p.Until("it to have its senders again", program.Patience, func() bool {
				s := all[1]
				by, _, err := s.ask()
				return err == nil && by == id
			})
			if _, _, err := other.ask(); err != nil {
				t.Error(err)
			}
			p.Stop()
		})
	}
}

// TestPacketsAtTheEnd has datagrams wait when a pack is told to stop: they are answered, and so is one that takes long.
func TestPacketsAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"stopped", "one worker fewer", "the master is killed", "in line"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			args := []string{"-workers=2", "-address=udp4 127.0.0.1:0"}
			up := "pack is up"
			if how == "in line" {
				args, up = append(args, "-inline"), "pack serves in line, in one process"
			}
			p := start(t, "packets", nil, args...)
			_, address := p.Listening(up)
			var all []*sender
			pids := map[int]int{}
			for i := 0; i < 20 || len(pids) < 2 && how != "in line"; i++ {
				s := newSender(t, "udp4", address)
				id, pid, err := s.ask()
				if err != nil {
					t.Fatal(err)
				}
				all, pids[id] = append(all, s), pid
			}
			all[0].send("300ms")
			for _, pid := range pids {
				freeze(t, pid)
			}
			for _, s := range all {
				s.send("queued")
			}
			switch how {
			case "one worker fewer":
				p.Signal(syscall.SIGTTOU)
			case "the master is killed":
				p.Signal(syscall.SIGKILL)
			default:
				p.Signal(syscall.SIGTERM)
			}
			for _, pid := range pids {
				syscall.Kill(pid, syscall.SIGCONT)
			}
			for i, s := range all {
				want := []string{"queued"}
				if i == 0 {
					want = append(want, "300ms")
				}
				var got []string
				for range want {
					_, _, text, err := s.receive(program.Patience)
					if err != nil {
						t.Fatalf("sender %d got %q: %v", i, got, err)
					}
					got = append(got, text)
				}
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("sender %d got %q, want %q", i, got, want)
				}
			}
			switch how {
			case "one worker fewer":
				p.Logged(1, "number of workers changed")
				p.Stop()
			case "the master is killed":
				p.Wait(program.Patience)
			default:
				if status := p.Wait(program.Patience); status != 0 {
					t.Errorf("exit status %d", status)
				}
			}
		})
	}
}

// TestPacketsBeside has one address serve datagrams and connections.
func TestPacketsBeside(t *testing.T) {
	t.Parallel()
	p := start(t, "packets", nil, "-workers=2", "-beside", "-address=udp 127.0.0.1:0")
	var packets, conns string
	for _, address := range p.ListeningOn("pack is up") {
		network, at, _ := strings.Cut(address, " ")
		if network == "udp" {
			packets = at
		} else {
			conns = at
		}
	}
	if _, _, err := newSender(t, "udp", packets).ask(); err != nil {
		t.Error(err)
	}
	if !answersWithin(conns, program.Patience) {
		t.Error("no answer by HTTP")
	}
	same := start(t, "packets", nil, "-workers=2", "-address=udp "+conns) // the port of others' TCP
	if _, _, err := newSender(t, "udp", same.Address()).ask(); err != nil {
		t.Error(err)
	}
	second := start(t, "packets", nil, "-workers=2", "-address=udp "+conns)
	second.Says(regexp.MustCompile("pack: listen udp .*: bind: address already in use " +
		`\(is another instance running\? processes .*\b` + fmt.Sprint(same.PID()) + " "))
	if second.Wait(program.Patience) == 0 {
		t.Error("a second instance ends well")
	}
	same.Stop()
	p.Stop()
}
