package affinity

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// chunk is how many hexadecimal digits the kernel writes without a comma: 32 CPUs.
const chunk = 8

// Mask returns the set as a hexadecimal mask, the bit of CPU 0 the last, with a comma between every 32 CPUs: "10f",
// "1,00000000", or "0" if the set is empty. taskset(1) reads that, and so do files of the kernel such as
// /proc/irq/N/smp_affinity and /sys/class/net/DEVICE/queues/rx-N/rps_cpus.
func (s Set) Mask() string {
	var b strings.Builder
	for i := len(s.words) - 1; i >= 0; i-- {
		for _, half := range []uint32{uint32(s.words[i] >> 32), uint32(s.words[i])} {
			switch {
			case b.Len() > 0:
				fmt.Fprintf(&b, ",%0*x", chunk, half)
			case half != 0:
				fmt.Fprintf(&b, "%x", half)
			}
		}
	}
	if b.Len() == 0 {
		return "0"
	}
	return b.String()
}

// ParseMask reads a hexadecimal mask, as taskset(1), /proc/PID/status (Cpus_allowed) and the kernel's other files show
// them: "3", "0x3", "00000000,0000000f". After a comma there must be eight digits, since others are read differently by
// the kernel and by taskset. White space around the mask is ignored.
func ParseMask(text string) (Set, error) {
	s, err := parseMask(strings.TrimSpace(text))
	if err != nil {
		return Set{}, fmt.Errorf("affinity: CPU mask %.200q: %w", text, err)
	}
	return s, nil
}

func parseMask(text string) (s Set, err error) {
	digits := strings.TrimPrefix(strings.ToLower(text), "0x")
	chunks := strings.Split(digits, ",")
	for i, c := range chunks {
		switch {
		case c == "":
			return s, errors.New("want hexadecimal digits")
		case i > 0 && len(c) != chunk, len(chunks) > 1 && len(c) > chunk:
			return s, fmt.Errorf("%.40q: want %d digits between commas", c, chunk)
		}
	}
	digits = strings.Join(chunks, "")
	for i := range digits {
		digit, err := strconv.ParseUint(digits[i:i+1], 16, 4)
		if err != nil {
			return Set{}, fmt.Errorf("%q is not a hexadecimal digit", digits[i])
		}
		cpu := 4 * (len(digits) - 1 - i)
		if last := cpu + bits.Len64(digit) - 1; digit != 0 && last >= MaxCPUs {
			return Set{}, fmt.Errorf("CPU %d is not within 0-%d", last, MaxCPUs-1)
		}
		if digit != 0 {
			s.words[cpu/64] |= digit << (cpu % 64)
		}
	}
	return s, nil
}
