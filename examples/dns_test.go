//go:build linux

package examples_test

import (
	"context"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/gopherpack/gopherpack/internal/test/program"
)

// TestDNS asks by UDP and TCP through a reload and an upgrade. No question is asked twice.
func TestDNS(t *testing.T) {
	t.Parallel()
	p := start(t, build(t, "dns"), "-addr=127.0.0.1:0")
	answer := regexp.MustCompile(`^worker \d+, process \d+$`)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var asking sync.WaitGroup
	var answered [2]atomic.Int64
	for i, network := range []string{"tcp", "udp"} { // in the order of the log
		for range 4 {
			asking.Go(func() {
				client := dns.Client{Net: network, Timeout: program.Patience}
				for pace := time.Tick(time.Millisecond); ctx.Err() == nil; <-pace {
					reply, _, err := client.Exchange(new(dns.Msg).SetQuestion("who.example.", dns.TypeTXT), p.addresses[i])
					if err != nil {
						t.Errorf("%s: %v", network, err)
						return
					}
					if len(reply.Answer) != 1 || !answer.MatchString(reply.Answer[0].(*dns.TXT).Txt[0]) {
						t.Errorf("%s: answer %v", network, reply.Answer)
					}
					answered[i].Add(1)
				}
			})
		}
	}
	for _, change := range []struct {
		signal syscall.Signal
		want   string
	}{{syscall.SIGHUP, "reloaded"}, {syscall.SIGUSR2, "upgraded"}, {syscall.SIGHUP, "reloaded"}} {
		before := answered[1].Load()
		p.Until("questions to be answered", program.Patience, func() bool { return answered[1].Load() > before+10 })
		p.change(change.signal, change.want)
	}
	stop()
	asking.Wait()
	t.Logf("answered by TCP %d, by UDP %d", answered[0].Load(), answered[1].Load())
}
