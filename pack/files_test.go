package pack

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// TestWatchedFiles looks at files between changes, and wants what is wrong to be told once, when it stays.
func TestWatchedFiles(t *testing.T) {
	path := t.TempDir() + "/file"
	var taken []string
	w := &watchedFiles{what: "text", paths: []string{path}, take: func(contents [][]byte) error {
		if strings.HasPrefix(string(contents[0]), "bad") {
			return errors.New("not so")
		}
		taken = append(taken, string(contents[0]))
		return nil
	}}
	if err := w.begin(); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "text in "+path+": ") {
		t.Error(err)
	}
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look := func(changed, complains bool) {
		t.Helper()
		if is, err := w.look(); is != changed || (err != nil) != complains {
			t.Errorf("changed %v, %v; want %v and %v", is, err, changed, complains)
		}
	}
	put("1")
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	look(false, false)
	put("2")
	look(true, false)
	look(false, false)
	put("bad")
	look(false, false) // may be half-written
	put("bad, too")
	look(false, false)
	look(false, true)
	look(false, false)
	put("2") // as before: nothing has changed
	look(false, false)
	put("bad, too")
	look(false, false)
	look(false, true)
	os.Remove(path)
	look(false, false)
	look(false, true)
	look(false, false)
	put("3")
	look(true, false)
	if got := strings.Join(taken, " "); got != "1 2 3" {
		t.Errorf("taken: %s", got)
	}
}

// TestParseTicketKeys reads files of keys as they should be, and as they should not.
func TestParseTicketKeys(t *testing.T) {
	const key32 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	key48 := strings.Repeat("B", 64)
	for _, tt := range []struct {
		text string
		keys int
		says string // if it is wrong
	}{
		{key32, 1, ""},
		{"# of today\n" + key48 + "\n\n# of yesterday\r\n" + key32 + "\r\n", 2, ""},
		{"", 0, "there is no key"},
		{"# none\n", 0, "there is no key"},
		{key32 + "\nsecret!\n", 0, "line 2 is no key"},
		{"c2hvcnQ=", 0, "the key of line 1 has 5 bytes"},
		{strings.Repeat(key48, 2), 0, "the key of line 1 has 96 bytes"},
		{strings.Repeat(key32+"\n", 17), 0, "17 keys: at most 16"},
	} {
		keys, err := parseTicketKeys([]byte(tt.text))
		if len(keys) != tt.keys || (err != nil) != (tt.says != "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %d keys, %v", tt.text, len(keys), err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("an error tells of a key: %v", err)
		}
	}
}

// FuzzParseTicketKeys wants what is read to be as long as it must be.
func FuzzParseTicketKeys(f *testing.F) {
	f.Add([]byte("# a\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseTicketKeys(text)
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		for _, key := range keys {
			if len(key) < minTicketKey || len(key) > maxTicketKey {
				t.Errorf("a key of %d bytes", len(key))
			}
		}
	})
}

// BenchmarkLook is what a worker does once a second for a certificate and its key.
func BenchmarkLook(b *testing.B) {
	dir := b.TempDir()
	w := &watchedFiles{paths: []string{dir + "/1", dir + "/2"}, take: func([][]byte) error { return nil }}
	for _, path := range w.paths {
		if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.begin(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if changed, err := w.look(); changed || err != nil {
			b.Fatal(changed, err)
		}
	}
}
