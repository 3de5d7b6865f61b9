//go:build unix

package scoreboard

import (
	"math"
	"os"
	"strings"
	"testing"
)

// boardFile returns a file of so many bytes.
func boardFile(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(t.TempDir() + "/board")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestShortFile maps more than there is, which would end the process at the first store.
func TestShortFile(t *testing.T) {
	for _, tt := range []struct {
		size  int64
		slots int
		want  string // in the error; "" if there is none
	}{
		{0, 1, "the file has 0 bytes, not 64"}, {63, 1, "has 63 bytes"}, {100 * SlotSize, 101, "has 6400 bytes, not 6464"},
		{SlotSize, 1, ""}, {100 * SlotSize, 100, ""},
		{SlotSize, 0, "0 slots: there must be 1 to"}, {SlotSize, math.MaxInt/SlotSize + 2, "there must be 1 to"},
	} {
		b, err := Map(boardFile(t, tt.size), tt.slots)
		if err == nil != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d slots of %d bytes: %v; want %q", tt.slots, tt.size, err, tt.want)
		}
		if err == nil {
			s, err := b.Slot(tt.slots - 1)
			if err != nil {
				t.Fatal(err)
			}
			s.Beat()
		}
	}
}

// TestNeverFewerThanNone has more connections closed than were opened.
func TestNeverFewerThanNone(t *testing.T) {
	b, err := Map(boardFile(t, SlotSize), 1)
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.Slot(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		more int
		want uint32
	}{{-1, 0}, {1, 1}, {-2, 0}, {5, 5}, {-1, 4}} {
		if s.Open(step.more); s.Read().Open != step.want {
			t.Errorf("after %+d there are %d; want %d", step.more, s.Read().Open, step.want)
		}
	}
	(*Slot)(nil).Open(-1)
}
