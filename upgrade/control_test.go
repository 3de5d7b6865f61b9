//go:build unix && !aix

package upgrade

import (
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
)

// controls returns both ends of a control socket.
func controls(t *testing.T) (predecessor, successor *control) {
	t.Helper()
	conn, theirs, err := fdmsg.Pair("control")
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	other, err := fdmsg.Conn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		other.Close()
	})
	return &control{conn: conn}, &control{conn: other, replaced: make(chan struct{}), ended: make(chan struct{})}
}

// pipes returns files.
func pipes(t *testing.T, n int) (all []syscall.Conn) {
	t.Helper()
	for range n {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		t.Cleanup(func() { r.Close() })
		all = append(all, r)
	}
	return all
}

// TestTakeOverFromStranger has predecessors say what this program does not understand: it must neither wait nor panic.
func TestTakeOverFromStranger(t *testing.T) {
	hello := message{Type: msgHello, Version: protocolVersion}
	item := message{Type: msgItem, Name: &name{Kind: "file", Address: "x"}}
	for what, c := range map[string]struct {
		messages []message
		files    int // with each but the first
		want     string
	}{
		"nothing":            {nil, 0, io.EOF.Error()},
		"no hello":           {[]message{item}, 0, "it speaks version 0"},
		"another version":    {[]message{{Type: msgHello, Version: protocolVersion + 1}}, 0, "it speaks version 3"},
		"no end":             {[]message{hello, {Type: msgState, State: []byte("x")}}, 0, io.EOF.Error()},
		"no descriptor":      {[]message{hello, item}, 0, "a descriptor is missing"},
		"two descriptors":    {[]message{hello, item}, 2, "a descriptor is missing"},
		"no name":            {[]message{hello, {Type: msgItem}}, 1, "a descriptor is missing"},
		"a name twice":       {[]message{hello, item, item}, 1, "has come before"},
		"an empty ancestor":  {[]message{hello, {Type: msgAncestor}}, 0, "a descriptor is missing"},
		"what is not known":  {[]message{hello, {Type: "news"}, {Type: msgEnd}}, 1, ""},
		"an end, and then":   {[]message{hello, {Type: msgEnd}, item}, 1, ""},
		"everything at once": {[]message{hello, item, {Type: msgAncestor}, {Type: msgEnd}}, 1, ""},
	} {
		t.Run(what, func(t *testing.T) {
			predecessor, successor := controls(t)
			for i, m := range c.messages {
				files := pipes(t, c.files*min(i, 1))
				if err := predecessor.send(m, files...); err != nil {
					t.Fatal(err)
				}
			}
			predecessor.close()
			all, err := successor.takeOver()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err == nil {
				all.close()
			}
		})
	}
}

// TestGarbageAfterTakeOver has a predecessor say what this program does not understand when it has handed over: that is
// neither the word that it is replaced nor its end.
func TestGarbageAfterTakeOver(t *testing.T) {
	for _, garbage := range []string{"\x00\x00\x00\x01x", "\xff\xff\xff\xff", "\x00\x00\x00\x02{}", "\x00"} {
		predecessor, successor := controls(t)
		go successor.listen()
		if _, err := predecessor.conn.Write([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-successor.ended:
			t.Errorf("%q was taken for the end", garbage)
		case <-time.After(20 * time.Millisecond): // for what should not happen
		}
		predecessor.close()
		select {
		case <-successor.ended:
		case <-time.After(30 * time.Second):
			t.Fatalf("after %q the successor waits", garbage)
		}
		select {
		case <-successor.replaced:
			t.Errorf("%q was taken for the word", garbage)
		default:
		}
	}
}
