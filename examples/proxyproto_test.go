//go:build linux

package examples_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// What a balancer says first, of a client at 192.0.2.7, port 5555.
const (
	proxyV1 = "PROXY TCP4 192.0.2.7 198.51.100.1 5555 80\r\n"
	proxyV2 = "\r\n\r\n\x00\r\nQUIT\n" + "\x21\x11\x00\x0c" + "\xc0\x00\x02\x07" + "\xc6\x33\x64\x01" + "\x15\xb3" + "\x00\x50"

	// A health check of the balancer's own, of which the address is the balancer's.
	proxyLocal = "\r\n\r\n\x00\r\nQUIT\n" + "\x20\x00\x00\x00"
)

// greet connects, and says something first.
func greet(t *testing.T, address, header string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(program.Patience))
	io.WriteString(c, header)
	return c
}

// askOn sends a request on a connection, and returns the answer.
func askOn(c net.Conn) (string, error) {
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// balancer passes connections on to a server, each after a header, until the test ends, and returns its address.
func balancer(t *testing.T, server, header string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	t.Cleanup(func() { l.Close() })
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { pass(client, server, header) })
		}
	})
	return l.Addr().String()
}

func pass(client net.Conn, server, header string) {
	defer client.Close()
	c, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer c.Close()
	io.WriteString(c, header)
	answered := make(chan bool)
	go func() {
		defer close(answered)
		io.Copy(client, c)
		client.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(c, client)
	c.(*net.TCPConn).CloseWrite()
	<-answered
}

func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	p := start(t, build(t, "proxyproto"), "-addr=127.0.0.1:0", "-wait=10s")
	for _, tt := range []struct{ name, header, want string }{
		{"version 1", proxyV1, `hello 192\.0\.2\.7:5555 from worker \d+\n`},
		{"version 2", proxyV2, `hello 192\.0\.2\.7:5555 from worker \d+\n`},
		{"its own", proxyLocal, `hello 127\.0\.0\.1:\d+ from worker \d+\n`},
	} {
		c := greet(t, p.addresses[0], tt.header)
		for range 2 { // kept alive: the header comes once
			answer, err := askOn(c)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			expect(t, map[string]int{answer: 1}, tt.want)
		}
	}
	for name, header := range map[string]string{
		"none": "", "half": proxyV1[:20] + "\r\n", "garbage": "\x00\x01\x02\x03 what is this?\r\n\r\n",
		"version 3": "\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c" + proxyV2[16:],
	} {
		if answer, err := askOn(greet(t, p.addresses[0], header)); err == nil && strings.HasPrefix(answer, "hello") {
			t.Errorf("with header %s it was answered: %q", name, answer)
		}
	}
}

// TestProxyProtocolFromOthers has somebody speak who is no balancer.
func TestProxyProtocolFromOthers(t *testing.T) {
	t.Parallel()
	p := start(t, build(t, "proxyproto"), "-addr=127.0.0.1:0", "-from=192.0.2.1")
	if answer, err := askOn(greet(t, p.addresses[0], proxyV1)); err == nil {
		t.Errorf("it was answered: %q", answer)
	}
}

// TestProxyProtocolSilence has clients that say nothing: they hold up neither others nor a reload nor the stop, and are
// closed.
func TestProxyProtocolSilence(t *testing.T) {
	t.Parallel()
	p := start(t, build(t, "proxyproto"), "-addr=127.0.0.1:0", "-wait=300ms")
	for range 20 {
		c := greet(t, p.addresses[0], "")
		if n, err := io.Copy(io.Discard, c); n > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("a client that says nothing got %d bytes, %v", n, err)
		}
	}
	patient := start(t, build(t, "proxyproto"), "-addr=127.0.0.1:0", "-wait=1m")
	for range 20 {
		greet(t, patient.addresses[0], "")
	}
	for range 20 {
		if _, err := askOn(greet(t, patient.addresses[0], proxyV2)); err != nil {
			t.Error(err)
		}
	}
	patient.change(syscall.SIGHUP, "reloaded")
	for range 20 {
		greet(t, patient.addresses[0], "")
	}
	patient.Stop()
}

// TestProxyProtocolChanges reloads and upgrades under clients that retry nothing, with and without TLS.
func TestProxyProtocolChanges(t *testing.T) {
	t.Parallel()
	cert, key := certificateFiles(t)
	plain := start(t, build(t, "proxyproto"), "-addr=127.0.0.1:0")
	secure := start(t, build(t, "proxyproto"), "-addr=127.0.0.1:0", "-cert="+cert, "-key="+key)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var loads []strictclient.Load
	for _, keep := range []bool{false, true} {
		for header, p := range map[string]*running{proxyV1: plain, proxyV2: secure} {
			l := strictclient.Load{
				Network: "tcp", Address: balancer(t, p.addresses[0], header), Clients: 4, KeepAlive: keep,
				Pause: 5 * time.Millisecond,
			}
			if p == secure {
				l.TLS = &tls.Config{InsecureSkipVerify: true}
			}
			loads = append(loads, l)
		}
	}
	results := make(chan *strictclient.Result, len(loads))
	for _, l := range loads {
		go func() { results <- l.Run(ctx) }()
	}
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2} {
		want := map[syscall.Signal]string{syscall.SIGHUP: "reloaded", syscall.SIGUSR2: "upgraded"}[s]
		plain.change(s, want)
		secure.change(s, want)
	}
	cancel()
	for range loads {
		r := <-results
		t.Log(r.Requests, "answered on", r.Conns, "connections")
		if r.Failed() != 0 || r.Requests == 0 {
			t.Errorf("%d failed: %v", r.Failed(), r.Samples)
		}
		for body := range r.Bodies {
			if !strings.HasPrefix(body, "hello 192.0.2.7:5555 ") {
				t.Errorf("an answer: %q", body)
			}
		}
	}
}

// certificateFiles returns the names of files with a certificate and its key.
func certificateFiles(t *testing.T) (cert, key string) {
	t.Helper()
	c := test.SelfSigned(t)
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := t.TempDir() + "/" + name
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", c.Certificate[0]), write("key.pem", "PRIVATE KEY", der)
}
