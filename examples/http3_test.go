//go:build linux

package examples_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/gopherpack/gopherpack/internal/test/program"
)

// http3Client returns a client that has a connection of its own. What it does not hear of for a moment it asks for.
func http3Client(t *testing.T) *http.Client {
	transport := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		QUICConfig:      &quic.Config{KeepAlivePeriod: 100 * time.Millisecond},
	}
	t.Cleanup(func() { transport.Close() })
	return &http.Client{Transport: transport, Timeout: program.Patience}
}

// getHTTP3 returns the body of an answer.
func getHTTP3(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// isWhole reports what is wrong with what /slow sent.
func isWhole(body string) error {
	lines := strings.Split(strings.TrimSpace(body), "\n")
	var first, pid int
	fmt.Sscanf(lines[0], "line 0 of process %d", &first)
	for i, line := range lines {
		if n, _ := fmt.Sscanf(line, fmt.Sprintf("line %d of process %%d", i), &pid); n != 1 || pid != first {
			return fmt.Errorf("line %d is %q, and the first one was of process %d", i, line, first)
		}
	}
	if len(lines) != 30 {
		return fmt.Errorf("%d lines", len(lines))
	}
	return nil
}

// TestHTTP3 has downloads go on through a reload and an upgrade, by HTTP/3, while new connections come.
func TestHTTP3(t *testing.T) {
	t.Parallel()
	p := start(t, build(t, "http3"), "-addr=127.0.0.1:0")
	byTCP, byUDP := p.addresses[0], p.addresses[1] // in the order of the log
	resp, err := (&http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}).Get("https://" + byTCP)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if _, port, _ := strings.Cut(byUDP, ":"); !strings.Contains(resp.Header.Get("Alt-Svc"), `h3=":`+port+`"`) {
		t.Errorf("Alt-Svc is %q; HTTP/3 is served at %s", resp.Header.Get("Alt-Svc"), byUDP)
	}

	var downloads, fresh sync.WaitGroup
	var begun, ended atomic.Int64
	download := func(get func() (string, error)) {
		downloads.Go(func() {
			begun.Add(1)
			body, err := get()
			if err == nil {
				err = isWhole(body)
			}
			if err != nil {
				t.Errorf("a download: %v", err)
			}
			ended.Add(1)
		})
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	answered := map[string]int{}
	for range 4 {
		fresh.Go(func() {
			for pace := time.Tick(10 * time.Millisecond); ctx.Err() == nil; <-pace {
				body, err := getHTTP3(http3Client(t), "https://"+byUDP)
				if err != nil {
					t.Errorf("a new connection: %v", err)
				}
				mu.Lock()
				answered[body]++
				mu.Unlock()
			}
		})
	}
	kept := http3Client(t) // one that goes on by new connections, when it is told to
	for _, change := range []struct {
		signal syscall.Signal
		want   string
	}{{syscall.SIGHUP, "reloaded"}, {syscall.SIGUSR2, "upgraded"}, {syscall.SIGHUP, "reloaded"}} {
		for range 6 {
			download(func() (string, error) { return getHTTP3(http3Client(t), "https://"+byUDP+"/slow") })
		}
		download(func() (string, error) { return byOthers(t, byUDP) })
		want := begun.Load()
		p.Until("downloads to have begun", program.Patience, func() bool { return begun.Load() == want })
		if _, err := getHTTP3(kept, "https://"+byUDP); err != nil {
			t.Errorf("a connection that was kept: %v", err)
		}
		p.change(change.signal, change.want)
	}
	downloads.Wait()
	stop()
	fresh.Wait()
	total := 0
	for _, n := range answered {
		total += n
	}
	t.Logf("%d downloads, %d new connections, answered by %d processes", ended.Load(), total, len(answered))
	if len(answered) < 3 {
		t.Errorf("new connections were answered by %d processes", len(answered))
	}
}

// byOthers downloads by a client that is not written in Go, of ngtcp2, if there is one.
func byOthers(t *testing.T, address string) (string, error) {
	client, err := exec.LookPath("gtlsclient") // Debian's ngtcp2-client
	if err != nil {
		return getHTTP3(http3Client(t), "https://"+address+"/slow")
	}
	dir := t.TempDir()
	host, port, _ := strings.Cut(address, ":")
	cmd := exec.CommandContext(t.Context(), client, "-q", "--exit-on-all-streams-close", "--download="+dir, host, port,
		"https://localhost/slow")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("gtlsclient: %w\n%s", err, out)
	}
	body, err := os.ReadFile(dir + "/slow")
	return string(body), err
}

// TestHTTP3Moves has clients whose address changes again and again, as by a router that forgets: each stays with its
// worker.
func TestHTTP3Moves(t *testing.T) {
	t.Parallel()
	p := start(t, build(t, "http3"), "-addr=127.0.0.1:0")
	var downloads sync.WaitGroup
	for range 6 {
		address, moves := router(t, p.addresses[1])
		downloads.Go(func() {
			client := http3Client(t)
			body, err := getHTTP3(client, "https://"+address+"/slow")
			if err == nil {
				err = isWhole(body)
			}
			client.Transport.(*http3.Transport).Close()
			if err != nil || moves.Load() < 2 {
				t.Errorf("after %d moves: %v", moves.Load(), err)
			}
		})
	}
	downloads.Wait()
	p.Stop()
}

// router passes on what one client sends, from another address after a few packets each.
func router(t *testing.T, to string) (address string, moves *atomic.Int64) {
	t.Helper()
	inside, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	moves = new(atomic.Int64)
	go func() {
		var outside net.Conn
		var all []net.Conn
		defer func() {
			for _, c := range all {
				c.Close()
			}
		}()
		buf := make([]byte, 1<<16)
		for packets := 0; ; packets++ {
			n, client, err := inside.ReadFrom(buf)
			if err != nil {
				return
			}
			if packets%10 == 0 {
				if outside, err = net.Dial("udp", to); err != nil {
					t.Error(err)
					return
				}
				all = append(all, outside)
				moves.Add(1)
				go func(from net.Conn) {
					buf := make([]byte, 1<<16)
					for {
						n, err := from.Read(buf)
						if err != nil {
							return
						}
						inside.WriteTo(buf[:n], client)
					}
				}(outside)
			}
			outside.Write(buf[:n])
		}
	}()
	return inside.LocalAddr().String(), moves
}

// TestHTTP3Killed kills a worker in the middle of a download: its client is told by the worker that comes in its place,
// and does not wait until it has heard nothing for long.
func TestHTTP3Killed(t *testing.T) {
	t.Parallel()
	p := start(t, build(t, "http3"), "-addr=127.0.0.1:0")
	resp, err := http3Client(t).Get("https://" + p.addresses[1] + "/slow")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines, pid := bufio.NewScanner(resp.Body), 0
	lines.Scan()
	if _, err := fmt.Sscanf(lines.Text(), "line 0 of process %d", &pid); err != nil || !slices.Contains(p.Workers(), pid) {
		t.Fatalf("%q: %v", lines.Text(), err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if _, reset := errors.AsType[*quic.StatelessResetError](lines.Err()); !reset {
		t.Errorf("the download ends by %v; want a stateless reset", lines.Err())
	}
	if _, err := getHTTP3(http3Client(t), "https://"+p.addresses[1]); err != nil {
		t.Error(err)
	}
}
