package handoff

import (
	"strings"
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

const good = `{"version":2,"image":"/x","current":2,"former":1,"generations":[{"number":2,"up":true,"plan":{"shares":["0"]},` +
	`"group":{"members":[{"phase":"ready","pid":7}]},"controls":{"0":1},"workers":{"0":2}}],` +
	`"sockets":[{"endpoint":{"network":"tcp","address":":1"},"listeners":[0]}]}`

func TestParse(t *testing.T) {
	s, err := Parse([]byte(good), 2, "")
	if err != nil || s.Goes() != 2 || s.Generations[0].Workers[0] != wire.Serving {
		t.Fatalf("%+v, %v", s, err)
	}
	for text, want := range map[string]string{
		`{`: "unexpected end",
		strings.Replace(good, `"version":2`, `"version":3`, 1):               "it is of version 3, and this program knows version 2",
		strings.Replace(good, `"current":2`, `"current":3`, 1):               "there is no generation 3",
		strings.Replace(good, `"listeners":[0]`, `"listeners":[]`, 1):        "there is no socket for tcp :1",
		strings.Replace(good, `"controls":{"0":1}`, `"controls":{"0":2}`, 1): "there is no worker 0 with descriptor 2",
		strings.Replace(good, `"controls":{"0":1}`, `"controls":{"1":1}`, 1): "there is no worker 1",
		strings.Replace(good, `"workers":{"0":2}`, `"workers":{"0":9}`, 1):   "in state 9",
		strings.Replace(good, `"shares":["0"]`, `"shares":[]`, 1):            "it has no members",
		strings.Replace(good, `"number":2`, `"number":1`, 1):                 "there is no generation 2",
	} {
		if _, err := Parse([]byte(text), 2, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}

// TestHandedBack reads a state that the successor has handed back as it was.
func TestHandedBack(t *testing.T) {
	if _, err := Parse([]byte(good), 2, "no memory"); err == nil || !strings.Contains(err.Error(), "there is no generation 1") {
		t.Errorf("the former generation is gone: %v", err)
	}
	s, err := Parse([]byte(strings.Replace(good, `"former":1`, `"former":2`, 1)), 2, "no memory")
	if err != nil || s.Returned != "no memory" || s.Goes() != 2 {
		t.Errorf("%+v, %v", s, err)
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(good), 2)
	f.Fuzz(func(t *testing.T, text []byte, files int) {
		s, err := Parse(text, files, "")
		if err != nil {
			return
		}
		found := false
		for _, g := range s.Generations {
			found = found || g.Number == s.Goes()
			for id, n := range g.Controls {
				if id < 0 || id >= len(g.Group.Members) || n < 0 || n >= files {
					t.Errorf("worker %d with descriptor %d of %d", id, n, files)
				}
			}
		}
		if !found {
			t.Errorf("there is no generation %d", s.Goes())
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(again, files, ""); err != nil {
			t.Errorf("%s, read from %s, does not read back: %v", again, text, err)
		}
	})
}
