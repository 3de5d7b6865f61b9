//go:build linux

package pack_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestTCPEcho(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		p := start(t, "tcp", nil, fmt.Sprintf("-tls=%v", secure))
		dial := func() (net.Conn, error) { return net.Dial("tcp", p.Address()) }
		if secure {
			dial = func() (net.Conn, error) {
				return tls.Dial("tcp", p.Address(), &tls.Config{InsecureSkipVerify: true})
			}
		}
		var clients sync.WaitGroup
		var ready sync.WaitGroup
		ready.Add(10)
		for i := range 10 {
			clients.Go(func() {
				c, err := dial()
				if err != nil {
					t.Error(err)
					ready.Done()
					return
				}
				defer c.Close()
				r := bufio.NewReader(c)
				for j := range 20 {
					want := fmt.Sprintln("echo", i, j)
					io.WriteString(c, want)
					if got, err := r.ReadString('\n'); got != want {
						t.Errorf("%q, %v; want %q", got, err, want)
					}
				}
				ready.Done()
				if got, err := r.ReadString('\n'); got != "bye\n" {
					t.Errorf("at the stop: %q, %v", got, err)
				}
			})
		}
		ready.Wait()
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "panic")
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("after a panic in the handler: %d, %v", n, err)
		}
		c.Close()
		p.Logged(1, "handler panicked")
		p.Stop()
		clients.Wait()
		if n := p.Count("worker failed"); n != 0 {
			t.Error("the panic ended the worker")
		}
	}
}

// TestTCPOneLiner has a handler that knows of no context: it sees the end of the stream at the stop.
func TestTCPOneLiner(t *testing.T) {
	t.Parallel()
	p := start(t, "oneline", nil, "-kind=tcp")
	c, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "hello\n")
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); line != "hello\n" {
		t.Error(line, err)
	}
	p.Signal(syscall.SIGTERM)
	if status := p.Wait(inTime); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("%v, want EOF", err)
	}
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	p := start(t, "https", nil)
	for proto, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: http2}
		client := http.Client{Transport: tr}
		resp, err := client.Get("https://" + p.Address() + "/proto")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if string(body) != proto || err != nil {
			t.Errorf("%s, %v; want %s", body, err, proto)
		}
		resp.Body.Close()
		defer tr.CloseIdleConnections()
	}
	p.Stop()
}

func TestFunc(t *testing.T) {
	t.Parallel()
	p := start(t, "func", nil)
	slow := load(p, 5, 1)
	slow.Path = "/slow"
	u := apply(t, slow)
	u.until(&u.sent, 5)
	p.Stop()
	loseNothing(t, u)
}

// TestDrainingOfOthers has a handler learn of the drain whose server knows nothing of a pack.
func TestDrainingOfOthers(t *testing.T) {
	t.Parallel()
	p := start(t, "func", nil)
	c, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(inTime))
	io.WriteString(c, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
	r := bufio.NewReader(c)
	for _, want := range []string{"hello\n", "bye\n"} {
		line := ""
		for line != want {
			if line, err = r.ReadString('\n'); err != nil {
				t.Fatalf("%q, %v; want %q", line, err, want)
			}
		}
		if want == "hello\n" {
			p.Signal(syscall.SIGTERM)
		}
	}
	if status := p.Wait(inTime); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// TestFuncChanges reloads and upgrades a pack whose server is somebody else's, under clients that keep their
// connections. None of them may have to connect again.
func TestFuncChanges(t *testing.T) {
	t.Parallel()
	p := start(t, "func", nil)
	busy := load(p, 8, 0)
	busy.KeepAlive = true
	pausing := busy
	pausing.Pause = 20 * time.Millisecond
	loads := []*underLoad{apply(t, busy), apply(t, pausing), apply(t, load(p, 4, 0))}
	for i, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2} {
		for _, u := range loads {
			u.until(&u.answered, u.answered.Load()+50)
		}
		p.Signal(s)
		p.Logged(i+1, "generation has drained")
	}
	loseNothing(t, loads...)
	p.Stop()
}

// TestStopTells stops packs under clients that keep their connections, and pause for less than DrainDelay. They are told
// when to go, by servers that know nothing of a pack, too, and whatever the handler says.
func TestStopTells(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"http", "https", "func"} {
		p := start(t, name, nil, "-drain=4s")
		var loads []*underLoad
		for _, path := range []string{"/", "/keep"} {
			l := load(p, 6, 0)
			l.KeepAlive, l.Path, l.Pause = true, path, 10*time.Millisecond
			if name == "https" {
				l.TLS = &tls.Config{InsecureSkipVerify: true}
			}
			loads = append(loads, apply(t, l))
		}
		for _, u := range loads {
			u.until(&u.answered, 50)
		}
		p.Stop()
		comeTooLate(t, loads...)
		if stopped := p.Logged(1, "stopped"); stopped["cut"] != 0.0 {
			t.Errorf("%s: %v", name, stopped)
		}
	}
}

// TestLongConnections drains workers that have event streams and hijacked connections, by a reload and by a stop. Those
// that listen to Draining, or to what RegisterOnShutdown has called, say good-bye; one that does not is cut.
func TestLongConnections(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"http", "https"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			p := start(t, program, nil, "-shutdown=3s")
			open := func(path string) *bufio.Reader {
				t.Helper()
				var c net.Conn
				var err error
				if program == "https" {
					c, err = tls.Dial("tcp", p.Address(), &tls.Config{InsecureSkipVerify: true})
				} else {
					c, err = net.Dial("tcp", p.Address())
				}
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				c.SetDeadline(time.Now().Add(20 * time.Second))
				fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
				r := bufio.NewReader(c)
				for line := ""; line != "hello\n"; {
					if line, err = r.ReadString('\n'); err != nil {
						t.Fatalf("%s: %q, %v", path, line, err)
					}
				}
				return r
			}
			for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
				streams := map[string]*bufio.Reader{}
				for _, path := range []string{"/events", "/told", "/hijack"} {
					streams[path] = open(path)
				}
				deaf := open("/hijack?deaf")
				p.Signal(s)
				for path, r := range streams {
					line, err := r.ReadString('\n')
					for err == nil && line != "bye\n" {
						line, err = r.ReadString('\n')
					}
					if err != nil {
						t.Errorf("%v, %s: %q, %v; want a good-bye", s, path, line, err)
					}
				}
				if s == syscall.SIGHUP {
					if cut := p.Logged(1, "worker cut connections that had not finished"); cut["connections"] != 1.0 {
						t.Errorf("%v", cut)
					}
				}
				if rest, _ := io.ReadAll(deaf); len(rest) > 0 {
					t.Errorf("%v, the deaf one said %q", s, rest)
				}
			}
			if status := p.Wait(inTime); status != 0 {
				t.Errorf("exit status %d", status)
			}
			if stopped := p.Logged(1, "stopped"); stopped["cut"] != 1.0 { // in the stop, not in the reload before
				t.Errorf("%v", stopped)
			}
		})
	}
}
