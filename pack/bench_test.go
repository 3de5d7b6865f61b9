//go:build linux

package pack_test

import (
	"os/exec"
	"testing"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

// BenchmarkServe compares a pack with the same server in one process. The clients run on the same CPUs, so what is
// compared is the processor time of both sides together.
func BenchmarkServe(b *testing.B) {
	const clients = 32
	for _, mode := range []struct{ name, value, up string }{
		{"one-process", "1", "pack serves in line, in one process"},
		{"pack", "0", "pack is up"},
	} {
		for _, keepAlive := range []bool{true, false} {
			name := "/new-connections"
			if keepAlive {
				name = "/keep-alive"
			}
			b.Run(mode.name+name, func(b *testing.B) {
				p := start(b, "lazy", func(c *exec.Cmd) { c.Env = append(c.Env, "GOPHERPACK_INLINE="+mode.value) })
				network, address := p.listening(mode.up)
				l := strictclient.Load{Network: network, Address: address, Clients: clients, PerClient: b.N/clients + 1, KeepAlive: keepAlive}
				b.ResetTimer()
				r := l.Run(b.Context())
				b.StopTimer()
				if r.Failed() != 0 {
					b.Error(r)
				}
				p.stop()
			})
		}
	}
}
