// Package rlimit reads and raises the resource limits of this process, getrlimit(2): open files, processes,
// locked memory and the rest.
//
// A limit has two values. The soft one is enforced; the process may move it up to the hard one. Only a
// process with CAP_SYS_RESOURCE (on Linux; root elsewhere) may move the hard one up, and whoever moves it down
// cannot go back. Limits belong to the process, not to a thread, and child processes inherit them.
//
// The Go runtime raises the soft limit of open files to the hard one when a program starts, and gives child
// processes the former value back. After a [Set] or [Raise] of [NOFILE] children get what this process has.
//
// All functions are safe for concurrent use. Where an operating system has no such limit the error matches
// [errors.ErrUnsupported]; on all but Linux, macOS and FreeBSD this package knows of none.
package rlimit

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Resource is what a limit is about, by its name without RLIMIT_, in lower case.
type Resource string

// The resources of POSIX, then those that some systems add.
const (
	AS     Resource = "as"     // address space, bytes
	CORE   Resource = "core"   // size of a core file, bytes
	CPU    Resource = "cpu"    // processor time, seconds
	DATA   Resource = "data"   // data segment and heap, bytes
	FSIZE  Resource = "fsize"  // size of a file that the process writes, bytes
	NOFILE Resource = "nofile" // one more than the highest descriptor
	STACK  Resource = "stack"  // stack of the first thread, bytes

	MEMLOCK Resource = "memlock" // memory locked into RAM, bytes
	NPROC   Resource = "nproc"   // processes and threads of this user
	RSS     Resource = "rss"     // resident memory, bytes; Linux ignores it

	LOCKS      Resource = "locks"      // file locks; Linux before 2.4.25
	MSGQUEUE   Resource = "msgqueue"   // POSIX message queues, bytes; Linux
	NICE       Resource = "nice"       // 20 minus the lowest nice value; Linux
	RTPRIO     Resource = "rtprio"     // real-time priority; Linux
	RTTIME     Resource = "rttime"     // real-time processor time without a pause, microseconds; Linux
	SIGPENDING Resource = "sigpending" // queued signals; Linux
)

// Infinity is no limit.
const Infinity uint64 = math.MaxUint64

// Limit is the two values of a limit, in the unit of its resource; [Infinity] is none.
type Limit struct {
	Soft uint64 // what is enforced
	Hard uint64 // how far the process may raise Soft
}

// String returns "soft:hard", with "unlimited" for Infinity.
func (l Limit) String() string { return format(l.Soft) + ":" + format(l.Hard) }

// Get returns the limit of a resource.
func Get(r Resource) (Limit, error) {
	l, err := get(r)
	if err != nil {
		return Limit{}, fmt.Errorf("rlimit: get %s: %w", r, err)
	}
	return l, nil
}

// Set sets both values of a limit. A soft value above the hard one is EINVAL; raising the hard one without the
// right to is EPERM, and so is, even for root, NOFILE above /proc/sys/fs/nr_open on Linux.
func Set(r Resource, l Limit) error {
	if err := set(r, l); err != nil {
		return fmt.Errorf("rlimit: set %s to %s: %w", r, l, err)
	}
	return nil
}

// Raise makes the soft limit of a resource at least n and returns what holds then. It lowers nothing: a limit
// that is higher already stays. If n is above the hard limit, Raise raises that as well, which takes
// privilege: without it the limit stays as it is and the error matches [os.ErrPermission].
func Raise(r Resource, n uint64) (Limit, error) {
	now, err := Get(r)
	if err != nil {
		return Limit{}, err
	}
	if now.Soft >= n {
		return now, nil
	}
	want := Limit{Soft: n, Hard: max(n, now.Hard)}
	err = set(r, want)
	switch {
	case err == nil:
		return want, nil
	case n > now.Hard:
		return now, fmt.Errorf("rlimit: raise %s to %s: the hard limit is %s: %w", r, format(n), format(now.Hard), err)
	}
	return now, fmt.Errorf("rlimit: raise %s to %s: %w", r, format(n), err)
}

// Resources returns the resources that this operating system has, sorted by name.
func Resources() []Resource { return slices.Sorted(maps.Keys(numbers)) }

// Setting is a limit together with its resource, for flags ([flag.TextVar]) and configuration files.
//
// The text form is "resource=soft:hard", such as "nofile=65536:1048576"; either value may be "unlimited". One
// value alone, "nofile=65536", is meant for both, as it is to docker run --ulimit.
type Setting struct {
	Resource Resource
	Limit    Limit
}

// Apply sets the limit; see [Set].
func (s Setting) Apply() error { return Set(s.Resource, s.Limit) }

// String returns the text form, with both values.
func (s Setting) String() string { return string(s.Resource) + "=" + s.Limit.String() }

// MarshalText returns the text form. It never fails.
func (s Setting) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the text form. It does not ask whether this operating system has the resource, but the
// resource must be one of the constants. On error s is unchanged.
func (s *Setting) UnmarshalText(text []byte) error {
	parsed, err := parse(string(text))
	if err != nil {
		return fmt.Errorf("rlimit: %.100q: %w", text, err)
	}
	*s = parsed
	return nil
}

var known = []Resource{AS, CORE, CPU, DATA, FSIZE, LOCKS, MEMLOCK, MSGQUEUE, NICE, NOFILE, NPROC, RSS, RTPRIO, RTTIME, SIGPENDING, STACK}

func parse(text string) (Setting, error) {
	name, values, ok := strings.Cut(text, "=")
	if !ok {
		return Setting{}, errors.New("want resource=soft:hard, such as nofile=65536:1048576")
	}
	r := Resource(name)
	if !slices.Contains(known, r) {
		return Setting{}, fmt.Errorf("unknown resource %q, want one of %s", name, join(known))
	}
	soft, hard, both := strings.Cut(values, ":")
	if !both {
		hard = soft
	}
	var l Limit
	var err error
	if l.Soft, err = parseValue(soft); err != nil {
		return Setting{}, fmt.Errorf("soft value: %w", err)
	}
	if l.Hard, err = parseValue(hard); err != nil {
		return Setting{}, fmt.Errorf("hard value: %w", err)
	}
	if l.Soft > l.Hard {
		return Setting{}, fmt.Errorf("the soft value %s is above the hard value %s", format(l.Soft), format(l.Hard))
	}
	return Setting{r, l}, nil
}

const unlimited = "unlimited"

func parseValue(text string) (uint64, error) {
	if text == unlimited {
		return Infinity, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == Infinity {
		return 0, fmt.Errorf("%q is neither a number below 2^64-1 nor %q", text, unlimited)
	}
	return n, nil
}

func format(n uint64) string {
	if n == Infinity {
		return unlimited
	}
	return strconv.FormatUint(n, 10)
}

func join(rs []Resource) string {
	names := make([]string, len(rs))
	for i, r := range rs {
		names[i] = string(r)
	}
	return strings.Join(names, ", ")
}
