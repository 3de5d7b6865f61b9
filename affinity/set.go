package affinity

import (
	"fmt"
	"iter"
	"math/bits"
	"strconv"
	"strings"
)

// MaxCPUs is how many CPUs a [Set] can name: 0 to MaxCPUs-1. It is the most that Linux can be built for (NR_CPUS). The
// C library's cpu_set_t has an eighth of that, too little for sched_getaffinity(2) where the kernel counts with more
// CPUs, be they there or not.
const MaxCPUs = 8192

// Set is a set of CPUs, numbered as the kernel numbers them. The zero value is the empty set. Sets can be
// compared with == and used as map keys. A Set takes 1 KiB.
//
// The text form is the kernel's list format, such as "0-3,8": what /sys/devices/system/cpu/online, taskset -c
// and cpuset.cpus use. A Set can be a flag by [flag.TextVar] and a field of a JSON or YAML document. For masks, such as
// "10f", there are [ParseMask] and [Set.Mask].
type Set struct {
	words [MaxCPUs / 64]uint64
}

// Of returns the set of the given CPUs. It panics if one of them is not within 0 to MaxCPUs-1.
func Of(cpus ...int) Set {
	var s Set
	for _, cpu := range cpus {
		s.Add(cpu)
	}
	return s
}

// Add adds a CPU to the set. It panics if cpu is not within 0 to MaxCPUs-1.
func (s *Set) Add(cpu int) {
	if cpu < 0 || cpu >= MaxCPUs {
		panic(fmt.Sprintf("affinity: CPU %d is not within 0-%d", cpu, MaxCPUs-1))
	}
	s.words[cpu/64] |= 1 << (cpu % 64)
}

// Contains reports whether cpu is in the set.
func (s Set) Contains(cpu int) bool {
	return cpu >= 0 && cpu < MaxCPUs && s.words[cpu/64]&(1<<(cpu%64)) != 0
}

// Len returns the number of CPUs in the set.
func (s Set) Len() int {
	n := 0
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// IsEmpty reports whether there is no CPU in the set.
func (s Set) IsEmpty() bool { return s == Set{} }

// IsSubsetOf reports whether t has all CPUs of s.
func (s Set) IsSubsetOf(t Set) bool { return s.Minus(t).IsEmpty() }

// All yields the CPUs of the set in ascending order.
func (s Set) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, w := range s.words {
			for ; w != 0; w &= w - 1 {
				if !yield(i*64 + bits.TrailingZeros64(w)) {
					return
				}
			}
		}
	}
}

// First returns the lowest CPU of the set, and false if the set is empty.
func (s Set) First() (int, bool) {
	for cpu := range s.All() {
		return cpu, true
	}
	return 0, false
}

// Union returns the CPUs that are in s, in t, or in both.
func (s Set) Union(t Set) Set {
	for i := range s.words {
		s.words[i] |= t.words[i]
	}
	return s
}

// Intersect returns the CPUs that are in both s and t.
func (s Set) Intersect(t Set) Set {
	for i := range s.words {
		s.words[i] &= t.words[i]
	}
	return s
}

// Minus returns the CPUs that are in s and not in t.
func (s Set) Minus(t Set) Set {
	for i := range s.words {
		s.words[i] &^= t.words[i]
	}
	return s
}

// String returns the set in the kernel's list format: "0-3,8", or "" if it is empty.
func (s Set) String() string {
	var b []byte
	next := -1 // the CPU that would prolong the range being written
	start := -1
	closeRange := func() {
		if start >= 0 && next-1 > start {
			b = append(b, '-')
			b = strconv.AppendInt(b, int64(next-1), 10)
		}
	}
	for cpu := range s.All() {
		if cpu != next {
			closeRange()
			if len(b) > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(cpu), 10)
			start = cpu
		}
		next = cpu + 1
	}
	closeRange()
	return string(b)
}

// Parse reads the kernel's list format: CPUs and ranges, separated by commas, in any order, "0-3,8". A range
// may have a stride, as the kernel's own parser allows: "0-15:2/4" is the first two CPUs of every four. White
// space around an element is ignored, and the empty text is the empty set.
func Parse(text string) (Set, error) {
	var s Set
	if strings.TrimSpace(text) == "" {
		return s, nil
	}
	for elem := range strings.SplitSeq(text, ",") {
		elem = strings.TrimSpace(elem)
		if err := s.addRange(elem); err != nil {
			return Set{}, fmt.Errorf("affinity: CPU list %.200q: %w", text, err)
		}
	}
	return s, nil
}

// addRange adds one element of a list: "3", "0-7" or "0-15:2/4".
func (s *Set) addRange(elem string) error {
	span, stride, strided := strings.Cut(elem, ":")
	first, last, ranged := strings.Cut(span, "-")
	if !ranged {
		last = first
	}
	lo, err := parseNumber(first)
	if err != nil {
		return fmt.Errorf("element %.40q: %w", elem, err)
	}
	hi, err := parseNumber(last)
	if err != nil {
		return fmt.Errorf("element %.40q: %w", elem, err)
	}
	if hi >= MaxCPUs {
		return fmt.Errorf("element %.40q: CPU %d is not within 0-%d", elem, hi, MaxCPUs-1)
	}
	if lo > hi {
		return fmt.Errorf("element %.40q: the range runs backwards", elem)
	}
	used, group := 1, 1
	if strided {
		u, g, ok := strings.Cut(stride, "/")
		if !ok || !ranged {
			return fmt.Errorf("element %.40q: a stride is written first-last:used/group", elem)
		}
		if used, err = parseNumber(u); err != nil {
			return fmt.Errorf("element %.40q: %w", elem, err)
		}
		if group, err = parseNumber(g); err != nil {
			return fmt.Errorf("element %.40q: %w", elem, err)
		}
		if used < 1 || used > group {
			return fmt.Errorf("element %.40q: a stride uses 1 to all CPUs of its group", elem)
		}
	}
	for cpu := lo; cpu <= hi; cpu++ {
		if (cpu-lo)%group < used {
			s.Add(cpu)
		}
	}
	return nil
}

// parseNumber reads a decimal number without the signs and underscores that strconv would accept.
func parseNumber(text string) (int, error) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%q is too large", text)
	}
	return n, nil
}

// MarshalText returns the set in the kernel's list format. It never fails.
func (s Set) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets s to the list that text holds; see [Parse]. On error s is unchanged.
func (s *Set) UnmarshalText(text []byte) error {
	t, err := Parse(string(text))
	if err != nil {
		return err
	}
	*s = t
	return nil
}
