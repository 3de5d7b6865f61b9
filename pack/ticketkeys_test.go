//go:build linux

package pack_test

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"strings"
	"syscall"
	"testing"
)

// ticketKey returns a key as a line of a file.
func ticketKey() string {
	key := make([]byte, 48)
	rand.Read(key) // never fails
	return base64.StdEncoding.EncodeToString(key) + "\n"
}

// TestTicketKeysOfMachines has two packs share the keys of their tickets: a session of one is resumed by the other,
// while keys are rotated, and no more when its key is gone. What they serve has different certificates, as of machines
// that do not get theirs at the same time.
func TestTicketKeysOfMachines(t *testing.T) {
	t.Parallel()
	dirs := [2]string{t.TempDir(), t.TempDir()}
	keys := t.TempDir() + "/tickets"
	one, two, three := ticketKey(), ticketKey(), ticketKey()
	put(t, keys, []byte(one))
	var packs [2]*running
	for i, dir := range dirs {
		writePair(t, dir, "site", "site.example", later())
		packs[i] = start(t, "certificates", nil, "-workers=2", "-in="+dir, "-ticketkeys="+keys, "-level=debug",
			"-address=tcp 127.0.0.1:0")
		packs[i].Logged(1, "pack is up")
	}
	client := func(version uint16) *tls.Config {
		c := stranger("site.example")
		c.MaxVersion = version
		return c
	}
	comesBack := func(when string, c *tls.Config) {
		t.Helper()
		for range 5 {
			for i, p := range packs {
				if _, resumed := visitTLS(t, p, c); !resumed {
					t.Errorf("%s, %s: pack %d does not resume", when, tls.VersionName(c.MaxVersion), i)
				}
			}
		}
	}
	// rotate writes keys, and waits until every worker has them: worker 0 says so, and the other does at DEBUG.
	rotate := func(lines ...string) {
		t.Helper()
		n := [2]int{packs[0].Count(used), packs[1].Count(used)}
		putAside(t, keys, []byte("# keys of tickets\n"+strings.Join(lines, "")))
		for i, p := range packs {
			p.Until("uses the keys", inTime, func() bool { return p.Count(used) >= n[i]+2 }) // of both workers
		}
	}
	versions := []uint16{tls.VersionTLS12, tls.VersionTLS13}
	var clients, gone []*tls.Config
	for _, version := range versions {
		clients, gone = append(clients, client(version)), append(gone, client(version))
		visitTLS(t, packs[0], clients[len(clients)-1])
		visitTLS(t, packs[0], gone[len(gone)-1])
		comesBack("at first", clients[len(clients)-1])
	}
	rotate(one, two)
	rotate(two, one)
	for _, c := range clients {
		comesBack("after rotation", c)
	}
	packs[1].Signal(syscall.SIGHUP)
	packs[1].Logged(1, "generation has drained")
	for _, c := range clients {
		comesBack("after a reload", c)
	}
	rotate(two)
	for _, c := range clients {
		comesBack("without the old key", c) // they have tickets of the new one
	}
	for i, c := range gone {
		if _, resumed := visitTLS(t, packs[i], c); resumed {
			t.Errorf("%s: a ticket of a key that is gone is good", tls.VersionName(c.MaxVersion))
		}
	}

	put(t, keys, []byte("not a key"))
	for _, p := range packs {
		p.Until("says what is wrong", inTime, func() bool { return complains(p, notUsed, "line 1 is no key in base64") })
	}
	for _, c := range clients {
		comesBack("with a bad file", c)
	}
	packs[0].Signal(syscall.SIGHUP)
	why := packs[0].Logged(1, "reload failed, the old workers go on")["error"]
	if !strings.Contains(why.(string), "keys of session tickets in") {
		t.Error(why)
	}
	rotate(three)
	for i, c := range clients {
		if _, resumed := visitTLS(t, packs[i], c); resumed {
			t.Errorf("%s: a ticket of a key that is gone is good", tls.VersionName(c.MaxVersion))
		}
	}
	for _, p := range packs {
		p.Stop()
	}
}

// TestTicketKeysOpenNothingElse has a pack with a file of keys refuse tickets of another service, as without.
func TestTicketKeysOpenNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys := dir + "/tickets"
	put(t, keys, []byte(ticketKey()))
	writePair(t, dir, "site", "site.example", later())
	a := start(t, "certificates", nil, "-workers=1", "-in="+dir, "-ticketkeys="+keys, "-address=unix "+dir+"/a")
	b := start(t, "certificates", nil, "-workers=1", "-in="+dir, "-ticketkeys="+keys, "-address=unix "+dir+"/b")
	without := start(t, "certificates", nil, "-workers=1", "-in="+dir, "-address=unix "+dir+"/c")
	c := stranger("site.example")
	visitTLS(t, a, c)
	if _, resumed := visitTLS(t, a, c); !resumed {
		t.Error("a session is not resumed where it began")
	}
	for _, p := range []*running{b, without} {
		if _, resumed := visitTLS(t, p, c); resumed {
			t.Error("a ticket of another service is good")
		}
	}
	for _, p := range []*running{a, b, without} {
		p.Stop()
	}
}
