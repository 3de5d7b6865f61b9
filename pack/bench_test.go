//go:build linux

package pack_test

import (
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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

// BenchmarkBusyWorker has a handler spin on one of two workers, and clients on both CPUs that connect for each request: which
// share of them meets that worker, and how long the slowest 1 % of the others and of all wait.
func BenchmarkBusyWorker(b *testing.B) {
	const clients = 16
	for _, mode := range []struct {
		name string
		args []string
	}{
		{"hash", []string{"http"}},
		{"by CPU alone", []string{"steered", "-epsilon=Inf"}},
		{"bounded", []string{"steered", "-epsilon=0.25"}},
		{"by load alone", []string{"steered", "-epsilon=0"}},
	} {
		b.Run(mode.name, func(b *testing.B) {
			p := start(b, mode.args[0], nil, append(mode.args[1:], "-workers=2")...)
			address := p.address()
			busy, err := net.Dial("tcp", address)
			if err != nil {
				b.Fatal(err)
			}
			defer busy.Close()
			io.WriteString(busy, "GET /spin HTTP/1.1\r\nHost: x\r\n\r\n")
			first := make([]byte, 4096)
			n, err := busy.Read(first) // it says who it is, and spins until the connection is closed
			if err != nil {
				b.Fatal(err)
			}
			_, who, _ := strings.Cut(string(first[:n]), "pid=")
			pid, _, _ := strings.Cut(who, " ")
			var mu sync.Mutex
			var all, others []time.Duration
			var running sync.WaitGroup
			b.ResetTimer()
			for range clients {
				running.Go(func() {
					for range b.N/clients + 1 {
						begun := time.Now()
						body, err := getOnce(address)
						if err != nil {
							b.Error(err)
							return
						}
						took := time.Since(begun)
						mu.Lock()
						all = append(all, took)
						if !strings.Contains(body, "pid="+pid+" ") {
							others = append(others, took)
						}
						mu.Unlock()
					}
				})
			}
			running.Wait()
			b.StopTimer()
			b.ReportMetric(100*float64(len(all)-len(others))/float64(len(all)), "%met")
			b.ReportMetric(milliseconds(all, 0.99), "p99-ms")
			b.ReportMetric(milliseconds(others, 0.99), "others-p99-ms")
			busy.Close()
			p.stop()
		})
	}
}

// milliseconds returns a quantile.
func milliseconds(all []time.Duration, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000
}

// getOnce sends a request on a connection of its own.
func getOnce(address string) (body string, err error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	answer, err := io.ReadAll(c)
	return string(answer), err
}
