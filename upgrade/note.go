package upgrade

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// The variables by which a program learns what it inherits: see [note]. It also tells whether this program is meant, or
// has merely inherited the variable: by its PID and when it was started, or by which socket a descriptor is.
const (
	estateEnv    = "GOPHERPACK_ESTATE"    // what Become passes on
	preflightEnv = "GOPHERPACK_PREFLIGHT" // from Preflight
	successorEnv = "GOPHERPACK_SUCCESSOR" // from an Upgrader, to a new process
)

// textWord begins the last word of a note, which may contain anything.
const textWord = " text="

// note is the value of such a variable, "version=1 pid=123 memory=7 text=any text".
type note struct {
	numbers map[string]uint64
	text    string
}

// takeNotes returns the notes in the environment, by variable, and removes them from it.
func takeNotes() map[string]note {
	notes := map[string]note{}
	for _, variable := range []string{estateEnv, preflightEnv, successorEnv} {
		if value, ok := os.LookupEnv(variable); ok {
			os.Unsetenv(variable)
			notes[variable] = parseNote(value)
		}
	}
	return notes
}

func parseNote(value string) note {
	words, text, _ := strings.Cut(value, textWord)
	n := note{map[string]uint64{}, text}
	for word := range strings.FieldsSeq(words) {
		name, number, _ := strings.Cut(word, "=")
		if number, err := strconv.ParseUint(number, 10, 64); err == nil {
			n.numbers[name] = number
		}
	}
	return n
}

// descriptor returns the number of a descriptor, -1 if it cannot be one that was passed on.
func (n note) descriptor(name string) int {
	if fd := n.numbers[name]; fd >= 3 && fd < 1<<31 {
		return int(fd)
	}
	return -1
}

// setting returns the note as an element of an environment. names has the order of the numbers.
func (n note) setting(variable string, names ...string) string {
	var b strings.Builder
	for i, name := range names {
		fmt.Fprintf(&b, "%.*s%s=%d", min(i, 1), " ", name, n.numbers[name])
	}
	return variable + "=" + b.String() + textWord + strings.ReplaceAll(n.text, "\x00", "")
}
