package rlimit

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// String returns "soft:hard", with "unlimited" for Infinity.
func (l Limit) String() string { return format(l.Soft) + ":" + format(l.Hard) }

// MarshalText returns what String does. It never fails.
func (l Limit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads "soft:hard", such as "1024:4096", or one value for both, as docker run --ulimit and systemd
// take it. A value is a number, which may have a suffix k, m, g, t, p or e, in either case, for powers of 1024: "64k"
// is 65536. No limit is "unlimited", as ulimit has it, "infinity", as systemd has it, or "-1", as docker has it. On
// error l is unchanged.
func (l *Limit) UnmarshalText(text []byte) error {
	parsed, err := parseLimit(string(text), parseValue)
	if err != nil {
		return fmt.Errorf("rlimit: %.100q: %w", text, err)
	}
	*l = parsed
	return nil
}

// Setting is a limit together with its resource, for flags ([flag.TextVar]) and configuration files.
//
// The text form is "resource=soft:hard", such as "nofile=65536:1048576", or "resource=value" for both. The values are
// as [Limit.UnmarshalText] reads them, in the unit of the resource; for those that are times, [CPU] and [RTTIME],
// without a suffix. The resource may also be spelled as systemd does, "LimitNOFILE=65536", or getrlimit(2),
// "RLIMIT_NOFILE=65536".
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
	parsed, err := parseSetting(string(text))
	if err != nil {
		return fmt.Errorf("rlimit: %.100q: %w", text, err)
	}
	*s = parsed
	return nil
}

var known = []Resource{
	AS, CORE, CPU, DATA, FSIZE, LOCKS, MEMLOCK, MSGQUEUE,
	NICE, NOFILE, NPROC, RSS, RTPRIO, RTTIME, SIGPENDING, STACK,
}

func parseSetting(text string) (Setting, error) {
	name, values, ok := strings.Cut(text, "=")
	if !ok {
		return Setting{}, errors.New("want resource=soft:hard, such as nofile=65536:1048576")
	}
	r := parseResource(name)
	if !slices.Contains(known, r) {
		return Setting{}, fmt.Errorf("unknown resource %q, want one of %s", name, join(known))
	}
	l, err := parseLimit(values, r.parseValue)
	return Setting{r, l}, err
}

func parseResource(name string) Resource {
	name = strings.TrimPrefix(strings.ToLower(name), "rlimit_")
	return Resource(strings.TrimPrefix(name, "limit"))
}

func parseLimit(text string, value func(string) (uint64, error)) (l Limit, err error) {
	soft, hard, both := strings.Cut(text, ":")
	if !both {
		hard = soft
	}
	if l.Soft, err = value(soft); err != nil {
		return Limit{}, fmt.Errorf("soft value: %w", err)
	}
	if l.Hard, err = value(hard); err != nil {
		return Limit{}, fmt.Errorf("hard value: %w", err)
	}
	if l.Soft > l.Hard {
		return Limit{}, fmt.Errorf("the soft value %s is above the hard value %s", format(l.Soft), format(l.Hard))
	}
	return l, nil
}

// unitOf has the resources that are times.
var unitOf = map[Resource]string{CPU: "seconds", RTTIME: "microseconds"}

// parseValue refuses what means something else to systemd: 5m of time is minutes, and -1 a nice level.
func (r Resource) parseValue(text string) (uint64, error) {
	n, err := parseValue(text)
	switch {
	case err != nil:
		return 0, err
	case unitOf[r] != "" && n != Infinity && text[len(text)-1] > '9':
		return 0, fmt.Errorf("%q has a suffix, want %s without one", text, unitOf[r])
	case r == NICE && text == "-1":
		return 0, fmt.Errorf("%q may mean a nice level, want %q, or 20 minus the lowest nice value", text, unlimited)
	}
	return n, nil
}

const unlimited = "unlimited"

// suffixes of values, each for 1024 times the one before.
const suffixes = "kmgtpe"

func parseValue(text string) (uint64, error) {
	switch text {
	case unlimited, "infinity", "-1":
		return Infinity, nil
	}
	digits, shift := text, 0
	if last := len(text) - 1; last > 0 {
		if i := strings.IndexByte(suffixes, text[last]|' '); i >= 0 { // in lower case
			digits, shift = text[:last], 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > (Infinity-1)>>shift {
		return 0, fmt.Errorf("%q is neither a number below 2^64-1, such as 65536 or 64k, nor %q", text, unlimited)
	}
	return n << shift, nil
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
