//go:build linux

package pack_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test/hangtest"
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
				network, address := p.Listening(mode.up)
				l := loadOn(network, address, clients, b.N/clients+1)
				l.KeepAlive = keepAlive
				b.ResetTimer()
				r := l.Run(b.Context())
				b.StopTimer()
				if r.Failed() != 0 {
					b.Error(r)
				}
				p.Stop()
			})
		}
	}
}

func init() {
	systemHandlers["/block"] = func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "pid=%d \n", os.Getpid())
		w.(http.Flusher).Flush()
		pause := 100 * time.Millisecond
		if r.URL.RawQuery == "long" {
			pause = time.Hour
		}
		for r.Context().Err() == nil {
			hangtest.Sleep(pause)
		}
	}
}

// BenchmarkBusyWorker keeps one of two workers from its work, and has clients on both CPUs that connect for each
// request: which share of them meets that worker, and how long the slowest 1 % of all, and of those that others answer,
// wait. An answer is waited for for a second.
func BenchmarkBusyWorker(b *testing.B) {
	for _, how := range []string{"spins", "blocks", "stopped"} {
		for _, mode := range []struct {
			name string
			args []string
		}{
			{"hash", []string{"http"}},
			{"by CPU alone", []string{"steered", "-epsilon=Inf"}},
			{"bounded", []string{"steered", "-epsilon=0.25"}},
			{"by load alone", []string{"steered", "-epsilon=0"}},
		} {
			b.Run(how+"/"+mode.name, func(b *testing.B) {
				p := start(b, mode.args[0], nil, append(mode.args[1:], "-workers=2")...)
				pid, end := keepBusy(b, p, how)
				if how == "stopped" && mode.args[0] == "steered" {
					p.becomes("hung", 1)
				}
				b.ResetTimer()
				all, others, met := connectAndAsk(b, p.Address(), pid)
				b.StopTimer()
				b.ReportMetric(100*float64(met)/float64(len(all)), "%met")
				b.ReportMetric(milliseconds(all, 0.99), "p99-ms")
				b.ReportMetric(milliseconds(others, 0.99), "others-p99-ms")
				end()
				p.Stop()
			})
		}
	}
}

// keepBusy keeps a worker from its work until end is called: a handler spins, or makes system calls that block without
// the runtime knowing, or the process is stopped.
func keepBusy(b *testing.B, p *running, how string) (pid string, end func()) {
	path := map[string]string{"spins": "/spin", "blocks": "/block"}[how]
	if path == "" {
		p.Addresses()
		stopped := p.Workers()[0]
		freeze(b, stopped)
		return strconv.Itoa(stopped), func() { syscall.Kill(stopped, syscall.SIGCONT) }
	}
	occupied, c := occupy(b, p, path)
	return strconv.Itoa(occupied), func() { c.Close() }
}

// connectAndAsk sends b.N requests, each on a connection of its own, and returns how long each took, those that others
// than pid answered, and how many met pid, or nobody.
func connectAndAsk(b *testing.B, address, pid string) (all, others []time.Duration, met int) {
	const clients = 16
	var mu sync.Mutex
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for range b.N/clients + 1 {
				begun := time.Now()
				body, err := getWithin(address, time.Second)
				took := time.Since(begun)
				mu.Lock()
				all = append(all, took)
				if err != nil || strings.Contains(body, "pid="+pid+" ") {
					met++
				} else {
					others = append(others, took)
				}
				mu.Unlock()
			}
		})
	}
	running.Wait()
	return all, others, met
}

// milliseconds returns a quantile.
func milliseconds(all []time.Duration, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000
}
