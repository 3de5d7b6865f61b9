// Package systemd is what a service and the systemd that has started it tell each other: see sd_notify(3),
// sd_watchdog_enabled(3) and sd_listen_fds(3). It is for Linux; elsewhere no service is started so.
package systemd

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Service is what systemd told this process when it started it. The zero value is that of a process that it has not
// started, or to which it has nothing to say.
type Service struct {
	Socket   string        // to which it is to write; "" if it does not want to know
	Watchdog time.Duration // at the latest after which it wants a sign of life; 0 if it wants none
	Store    int           // so many descriptors it keeps for this process, should that end: see Keep
	Passed   []Descriptor  // with these it has started this process; they are not passed on to others
	Warnings []string      // what is wrong with the unit, or with how this process was started
}

// Descriptor is one that systemd has passed: of a socket unit, or one that it has kept.
type Descriptor struct {
	FD   int
	Name string // FileDescriptorName= of the unit, or as it was kept
}

// variables are those that are meant for the process that systemd has started, and for no other.
var variables = []string{
	"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "FDSTORE",
	"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES",
}

// IsMeantForOne reports whether a variable, by its name, is meant for the process that systemd has started, and not for
// those that this one starts: they must not answer in its name.
func IsMeantForOne(name string) bool { return slices.Contains(variables, name) }

// Unset returns settings of these variables for a program that is only tried out, of no effect.
func Unset() (environ []string) {
	for _, name := range variables {
		environ = append(environ, name+"=")
	}
	return environ
}

// Take returns what the environment of this process says, and takes it out of there, so that no program that is
// started from here on takes it for itself. Who has unset NOTIFY_SOCKET before has systemd told nothing.
func Take() Service {
	if runtime.GOOS != "linux" {
		return Service{}
	}
	s := read(os.Getenv, os.Getpid())
	for _, d := range s.Passed {
		closeOnExec(d.FD)
	}
	for _, name := range variables {
		os.Unsetenv(name)
	}
	return s
}

// read returns what an environment says to a process.
func read(getenv func(string) string, pid int) (s Service) {
	s.Socket = getenv("NOTIFY_SOCKET")
	main, _ := strconv.Atoi(getenv("SYSTEMD_EXEC_PID"))
	switch {
	case s.Socket != "" && s.Socket[0] != '/' && s.Socket[0] != '@':
		s.warn("NOTIFY_SOCKET=%.100q of systemd is neither a path nor an abstract name: it is told nothing", s.Socket)
		s.Socket = ""
	case s.Socket != "" && main != 0 && main != pid:
		s.warn("systemd listens to process %d, which has started this one, and not to process %d: "+
			"what ExecStart= runs must exec the program, as in exec server \"$@\"", main, pid)
	case s.Socket == "" && main == pid:
		s.warn("systemd does not listen to this service: with Type=notify-reload (Type=notify before systemd 253) " +
			"instead of Type=simple or exec it knows when the pack is up, and waits for a reload")
	}
	s.readWatchdog(getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID"), pid)
	s.readPassed(getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES"), getenv("LISTEN_PID"), pid)
	if n, err := strconv.Atoi(getenv("FDSTORE")); err == nil && s.Socket != "" {
		s.Store = max(n, 0)
	}
	return s
}

// firstPassed is the first descriptor of those that are passed, and maxPassed how many there may be.
const (
	firstPassed = 3
	maxPassed   = 1 << 16
)

func (s *Service) readPassed(count, names, whose string, pid int) {
	if count == "" {
		return
	}
	n, err := strconv.Atoi(count)
	switch owner, _ := strconv.Atoi(whose); {
	case err != nil || n < 0 || n > maxPassed:
		s.warn("LISTEN_FDS=%.100q of systemd is no number of sockets: they are not used", count)
		return
	case owner != pid:
		s.warn("the sockets that LISTEN_FDS tells of are for process %.20s, and not for process %d: what ExecStart= runs "+
			"must exec the program", whose, pid)
		return
	}
	all := strings.Split(names, ":")
	for i := range n {
		d := Descriptor{FD: firstPassed + i, Name: "unknown"} // as systemd calls it
		if i < len(all) && all[i] != "" {
			d.Name = all[i]
		}
		s.Passed = append(s.Passed, d)
	}
}

func (s *Service) readWatchdog(text, whose string, pid int) {
	if text == "" {
		return
	}
	usec, err := strconv.ParseInt(text, 10, 64)
	switch n, _ := strconv.Atoi(whose); {
	case err != nil || usec <= 0 || usec > int64(time.Hour*24*365/time.Microsecond):
		s.warn("WATCHDOG_USEC=%.100q of systemd is no number of microseconds: its watchdog gets no sign of life", text)
	case whose != "" && n != pid:
		s.warn("systemd's watchdog is for process %.20s, and not for process %d: what ExecStart= runs must exec the "+
			"program", whose, pid)
	case s.Socket == "":
		s.warn("systemd's watchdog cannot be reached, since NOTIFY_SOCKET is not set")
	default:
		s.Watchdog = time.Duration(usec) * time.Microsecond
	}
}

func (s *Service) warn(format string, args ...any) {
	s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...))
}

// KeepAlive gives systemd's watchdog a sign of life again and again, until stop is called.
func (s Service) KeepAlive() (stop func()) {
	if s.Watchdog == 0 {
		return func() {}
	}
	done := make(chan struct{})
	tick := time.NewTicker(s.Watchdog / 4)
	go func() {
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.Notify(Message{Alive: true})
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// Message is what systemd is told: sd_notify(3). Fields that are empty are left out.
type Message struct {
	State  State
	Status string        // in words, on one line; what is too long is cut
	Errno  int           // what is wrong, by its number; NoError takes that back
	Extend time.Duration // at least for so long from now on, it is to wait for what it waits for
	Alive  bool          // a sign of life, for the watchdog
}

// State is what a service is from now on.
type State string

const (
	Ready     State = "READY"
	Reloading State = "RELOADING"
	Stopping  State = "STOPPING"
)

// Failed is an Errno for what has failed, whose reason the status has: ECANCELED. NoError says that nothing is wrong any
// more.
const (
	Failed  = 125
	NoError = -1
)

const maxStatus = 1000 // of 4096 bytes in all

// Text returns a message as systemd reads it. now is the time of CLOCK_MONOTONIC, by which it knows whether a reload
// was begun before it asked for one.
func (m Message) Text(now time.Duration) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if m.State != "" {
		add("%s=1", m.State)
	}
	if m.State == Reloading {
		add("MONOTONIC_USEC=%d", now.Microseconds())
	}
	if m.Status != "" {
		add("STATUS=%s", oneLine(m.Status))
	}
	if m.Errno != 0 {
		add("ERRNO=%d", max(m.Errno, 0))
	}
	if m.Extend > 0 {
		add("EXTEND_TIMEOUT_USEC=%d", m.Extend.Microseconds())
	}
	if m.Alive {
		add("WATCHDOG=1")
	}
	return strings.Join(lines, "\n")
}

// oneLine returns the first line of a text, in UTF-8 and without control characters, since a line that begins otherwise
// is another message to systemd.
func oneLine(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	for i := range text {
		if i > maxStatus {
			return text[:i] + "…"
		}
	}
	return text
}
