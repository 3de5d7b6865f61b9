package upgrade

import (
	"slices"
	"strings"
	"testing"
)

func TestNote(t *testing.T) {
	n := note{map[string]uint64{"version": 1, "fd": 3, "huge": 1<<64 - 1}, "a text= with spaces\n"}
	text := strings.TrimPrefix(n.setting("X", "version", "fd", "huge"), "X=")
	got := parseNote(text)
	if got.text != n.text || got.numbers["huge"] != n.numbers["huge"] || got.descriptor("fd") != 3 {
		t.Errorf("%q was read as %v", text, got)
	}
	for _, fd := range []string{"fd=2", "fd=-1", "fd=4294967296", "fd=x", "", "fd"} {
		if got := parseNote(fd).descriptor("fd"); got != -1 {
			t.Errorf("%q is descriptor %d", fd, got)
		}
	}
}

func TestMerge(t *testing.T) {
	got := merge([]string{"A=1", "B=2", "AB=3", "A=4", "odd"}, []string{"A=5", "C=6", "A=7"})
	if want := []string{"B=2", "AB=3", "odd", "C=6", "A=7"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzNote(f *testing.F) {
	f.Add("version=1 pid=2 memory=3 text=x")
	f.Fuzz(func(t *testing.T, text string) {
		n := parseNote(text)
		if fd := n.descriptor("memory"); fd < 3 && fd != -1 {
			t.Errorf("%q has descriptor %d", text, fd)
		}
	})
}

func FuzzInventory(f *testing.F) {
	f.Add([]byte(`{"files":[3,4]}` + "\nstate"))
	f.Add([]byte("\n"))
	f.Add([]byte(`{"files":[3,3]}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		i, _, err := parseMemory(text)
		if err != nil {
			return
		}
		sorted := slices.Sorted(slices.Values(i.Files))
		if len(sorted) > 0 && sorted[0] < 3 || len(slices.Compact(sorted)) != len(i.Files) {
			t.Errorf("%q has descriptors %v", text, i.Files)
		}
	})
}
