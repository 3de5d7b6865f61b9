//go:build linux

// Package examples_test builds the examples and uses them as a user would.
package examples_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/test"
)

// get returns the distinct answers to many requests, each on a connection of its own.
func get(t *testing.T, network, address, url string) map[string]int {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: true,
	}}
	answers := map[string]int{}
	for range 50 {
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		answers[string(body)]++
	}
	return answers
}

// expect wants every answer to match.
func expect(t *testing.T, answers map[string]int, pattern string) {
	t.Helper()
	for a := range answers {
		if !regexp.MustCompile("^" + pattern + "$").MatchString(a) {
			t.Errorf("answer %q, want %s", a, pattern)
		}
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	addr := run(t, "http", "-addr=localhost:0")[0]
	expect(t, get(t, "tcp", addr, "http://x/"), `hello from worker \d+ on CPU \d+, process \d+\n`)
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	addr := run(t, "https", "-addr=localhost:0")[0]
	expect(t, get(t, "tcp", addr, "https://x/"), `hello by HTTP/2\.0 from worker \d+\n`)
}

// TestHTTPSFromFiles has the example serve certificates from files, with keys of tickets from a file.
func TestHTTPSFromFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := test.SelfSigned(t)
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{
		"cert":    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		"key":     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"tickets": []byte(base64.StdEncoding.EncodeToString(make([]byte, 48))),
	} {
		if err := os.WriteFile(dir+"/"+file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addr := run(t, "https", "-addr=localhost:0", "-cert="+dir+"/cert", "-key="+dir+"/key", "-tickets="+dir+"/tickets")[0]
	expect(t, get(t, "tcp", addr, "https://x/"), `hello by HTTP/2\.0 from worker \d+\n`)
}

func TestUnix(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/sock"
	run(t, "unix", "-path="+path)
	expect(t, get(t, "unix", path, "http://x/"), `hello from worker \d+\n`)
}

func TestTCP(t *testing.T) {
	t.Parallel()
	echo(t, run(t, "tcp", "-addr=localhost:0")[0])
}

func echo(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 10 {
		want := fmt.Sprintln("line", i)
		io.WriteString(c, want)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
}

func TestMulti(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/sock"
	// Which of the two ports is which cannot be seen in the log, so the test chooses one.
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	web := l.Addr().String()
	l.Close()
	for _, addr := range run(t, "multi", "-http="+web, "-echo=localhost:0", "-status="+path) {
		switch addr {
		case web:
			expect(t, get(t, "tcp", web, "http://x/"), `welcome\n`)
		case path:
			expect(t, get(t, "unix", path, "http://x/"), `worker \d+ is up since .*s\n`)
		default:
			echo(t, addr)
		}
	}
}

func TestReuseport(t *testing.T) {
	t.Parallel()
	addr := run(t, "reuseport", "-addr=localhost:0")[0]
	expect(t, get(t, "tcp", addr, "http://x/"), `accepted by listener \d+ of \d+\n`)
}

// TestSteered connects from one CPU, and then from another: the worker there must serve, where the kernel lets it be
// steered.
func TestSteered(t *testing.T) {
	p := start(t, build(t, "steered"), "-addr=localhost:0")
	allowed, err := affinity.Current()
	if err != nil {
		t.Fatal(err)
	}
	for cpu := range allowed.All() {
		undo, err := affinity.Pin(affinity.Of(cpu))
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`received on CPU %[1]d, served on CPU %[1]d\n`, cpu)
		if !strings.Contains(p.Text(), "mode=eBPF") {
			want = `received on CPU \d+, served on CPU \d+\n`
		}
		for range 20 { // net/http would connect from another goroutine
			c, err := net.Dial("tcp", p.addresses[0])
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
			answer, _ := io.ReadAll(c)
			c.Close()
			_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
			expect(t, map[string]int{body: 1}, want)
		}
		if err := undo(); err != nil {
			t.Fatal(err)
		}
	}
	p.Signal(syscall.SIGUSR1)
	p.Says(regexp.MustCompile(`^worker +state +open`))
}

func TestAffinity(t *testing.T) {
	t.Parallel()
	exe := build(t, "affinity")
	out, err := exec.Command(exe).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "per package") {
		t.Errorf("%s, %v", out, err)
	}
	out, err = exec.Command(exe, "-pid", fmt.Sprint(os.Getpid())).CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprint(os.Getpid())) {
		t.Errorf("%s, %v", out, err)
	}
	out, err = exec.Command(exe, "-cpus=0", "grep", "Cpus_allowed_list", "/proc/self/status").CombinedOutput()
	if err != nil || string(out) != "Cpus_allowed_list:\t0\n" {
		t.Errorf("%s, %v", out, err)
	}
}
