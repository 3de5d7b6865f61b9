package reuseport_test

import (
	"bytes"
	"crypto/rand"
	"net"
	"slices"
	"testing"

	"github.com/gopherpack/gopherpack/reuseport"
)

// headerOf returns a packet of QUIC as far as a program looks at it.
func headerOf(long bool, id []byte) []byte {
	p := []byte{0x40}
	if long {
		p = append([]byte{0xc0, 0, 0, 0, 1}, byte(len(id)))
	}
	p = append(p, id...)
	return append(p, make([]byte, 20)...)
}

// TestAttachQUIC sends packets from many addresses. Those of a connection go to its member, if that is known, and all
// others to those that are fresh.
func TestAttachQUIC(t *testing.T) {
	takesPrograms(t)
	const n, key = 7, 0xdecade
	for network, host := range map[string]string{"udp4": "127.0.0.1", "udp6": "[::1]"} {
		group, err := reuseport.ListenPacketGroup(t.Context(), network, host+":0", n)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range group {
			defer p.Close()
		}
		to := func(packet []byte) int {
			t.Helper()
			c, err := net.Dial(network, group[0].LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(packet); err != nil {
				t.Fatal(err)
			}
			return whoGets(t, group)
		}
		for _, tt := range []struct{ fresh, known []int }{
			{[]int{0}, nil}, {[]int{0, 1}, []int{0, 1}}, {[]int{2, 3}, []int{0, 1, 2, 3}},
			{[]int{6, 0, 4}, []int{6, 0, 4, 2}}, {[]int{5}, []int{1, 3, 5}}, {[]int{6, 5}, []int{0, 1, 2, 3, 4, 5, 6, 90}},
		} {
			if err := reuseport.AttachQUIC(group[0], key, tt.fresh, tt.known); err != nil {
				t.Fatal(err)
			}
			for member := range n {
				for range 5 {
					id := reuseport.QUICID(key, member)
					for _, long := range []bool{false, true} {
						got := to(headerOf(long, id))
						if known := slices.Contains(tt.known, member); known && got != member || !known && !slices.Contains(tt.fresh, got) {
							t.Errorf("%s: a packet of member %d went to %d; known %v, fresh %v", network, member, got, tt.known, tt.fresh)
						}
					}
				}
			}
			chosen := map[int]int{}
			for range 60 {
				id := make([]byte, 8)
				rand.Read(id)
				chosen[to(headerOf(true, id))]++
			}
			for _, short := range [][]byte{{0x40}, {0xc0, 0, 0, 0, 1, 7}, bytes.Repeat([]byte{0x40}, 12)} {
				chosen[to(short)]++
			}
			for _, member := range tt.fresh {
				if chosen[member] < 60/len(tt.fresh)/4 {
					t.Errorf("%s: new connections went to %v; fresh %v", network, chosen, tt.fresh)
				}
				delete(chosen, member)
			}
			if len(chosen) > 0 {
				t.Errorf("%s: new connections went to %v, too; fresh %v", network, chosen, tt.fresh)
			}
		}
		for _, bad := range []struct{ fresh, known []int }{{nil, []int{1}}, {[]int{-1}, nil}, {[]int{1}, []int{1 << 16}}} {
			if err := reuseport.AttachQUIC(group[0], key, bad.fresh, bad.known); err == nil {
				t.Errorf("%v was taken", bad)
			}
		}
	}
}

// TestQUICID wants IDs that differ, and show nothing of who made them without the key.
func TestQUICID(t *testing.T) {
	seen := map[string]bool{}
	bits := [8 * reuseport.QUICIDLen]int{}
	const ids = 4000
	for range ids {
		id := reuseport.QUICID(7, 3)
		if seen[string(id)] {
			t.Errorf("%x is there twice", id)
		}
		seen[string(id)] = true
		for i := range bits {
			bits[i] += int(id[i/8] >> (i % 8) & 1)
		}
	}
	for i, n := range bits {
		if n < ids*2/5 || n > ids*3/5 {
			t.Errorf("bit %d is set in %d of %d", i, n, ids)
		}
	}
}
