//go:build linux

// Package examples_test builds the examples and uses them as a user would.
package examples_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/examples/grpc/helloworld"
	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
	"github.com/gopherpack/gopherpack/internal/test/program"
)

// built is the directory of the examples' programs.
var built string

func TestMain(m *testing.M) {
	test.Parallel("8")
	var err error
	if built, err = os.MkdirTemp("", "examples"); err != nil {
		panic(err)
	}
	status := leaktest.Run(m)
	os.RemoveAll(built)
	os.Exit(status)
}

// buildAll builds the programs of all examples.
var buildAll = sync.OnceValue(func() error {
	if out, err := exec.Command("go", "build", "-o", built, "./...").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
})

// build returns the path of an example's program.
func build(t *testing.T, name string) string {
	t.Helper()
	if err := buildAll(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(built, name)
}

// listening finds what a pack, or the reuseport example, says it listens on.
var listening = regexp.MustCompile(`listening(?:="?\[([^]]*)\]| on (\S+))`)

// run runs an example until the test ends, and returns what it listens on, as it says. It must end gracefully.
func run(t *testing.T, name string, args ...string) (addresses []string) {
	t.Helper()
	return start(t, build(t, name), args...).addresses
}

// running is a running example.
type running struct {
	*program.Test
	t         *testing.T
	addresses []string // that it listens on, as it says
}

// start starts a program, which must end gracefully when the test does.
func start(t *testing.T, exe string, args ...string) *running {
	t.Helper()
	p := &running{Test: program.Run(t, exec.Command(exe, args...)), t: t}
	t.Cleanup(func() {
		if !p.Ended() {
			p.Stop()
		}
	})
	m := p.Says(listening)
	for word := range strings.FieldsSeq(m[1] + m[2]) {
		if word != "tcp" && word != "unix" {
			p.addresses = append(p.addresses, word)
		}
	}
	return p
}

var changed = regexp.MustCompile(`msg="?(reloaded|upgraded|[a-z]+ failed)| (reloaded|upgraded|[a-z]+ failed)`)

// change sends a signal and waits for what it leads to.
func (p *running) change(s syscall.Signal, want string) {
	p.t.Helper()
	p.Signal(s)
	if m := p.Says(changed); m[1]+m[2] != want {
		p.t.Fatalf("%v led to %q; want %q", s, m[0], want)
	}
}

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

func TestGRPC(t *testing.T) {
	t.Parallel()
	addr := run(t, "grpc", "-addr=localhost:0")[0]
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	workers := map[string]bool{}
	for range 30 {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		reply, err := helloworld.NewGreeterClient(conn).SayHello(ctx, &helloworld.HelloRequest{Name: "gopher"})
		if err != nil || !strings.HasPrefix(reply.GetMessage(), "hello gopher, from worker ") {
			t.Errorf("%v, %v", reply, err)
		}
		workers[reply.GetMessage()] = true
		conn.Close()
	}
	t.Log(len(workers), "workers answered")
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil || r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", r, err)
	}
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	request := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	r, err := exchange(stream, request)
	if err != nil || !strings.Contains(fmt.Sprint(r), "helloworld.Greeter") {
		t.Errorf("reflection: %v, %v", r, err)
	}
}

// TestGRPCChanges reloads and upgrades while clients call, and while they have streams. A client repeats a call by itself
// only if the server says that it was not looked at.
func TestGRPCChanges(t *testing.T) {
	t.Parallel()
	p := start(t, build(t, "grpc"), "-addr=localhost:0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls, messages atomic.Int64
	var clients sync.WaitGroup
	loop := func(do func() error) {
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := do(); err != nil {
					t.Error(err)
					return
				}
				if !test.Full() {
					time.Sleep(5 * time.Millisecond) // or the processors would be this test's
				}
			}
		})
	}
	for range 4 {
		conn, err := grpc.NewClient(p.addresses[0], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 3 {
			loop(func() error {
				_, err := helloworld.NewGreeterClient(conn).SayHello(context.Background(), &helloworld.HelloRequest{Name: "x"})
				calls.Add(1)
				return err
			})
		}
		loop(func() error { return talk(conn, &messages) })
	}
	for range test.Times(2, 15) {
		p.change(syscall.SIGHUP, "reloaded")
		p.change(syscall.SIGUSR2, "upgraded")
	}
	cancel()
	clients.Wait()
	t.Log(calls.Load(), "calls,", messages.Load(), "messages on streams")
}

// talk has a stream for half a second.
func talk(conn *grpc.ClientConn, messages *atomic.Int64) error {
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(context.Background())
	if err != nil {
		return err
	}
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for range 50 {
		if err := stream.Send(listServices()); err != nil {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
		messages.Add(1)
		<-pace.C
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("at the end of the stream: %w", err)
	}
	return nil
}

func listServices() *reflectionpb.ServerReflectionRequest {
	return &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
}

// TestUpgradeFromPreviousCommit upgrades what the previous commit built to what this one builds, and back.
func TestUpgradeFromPreviousCommit(t *testing.T) {
	t.Parallel()
	before := t.TempDir()
	archive := exec.Command("sh", "-c", `cd "$(git rev-parse --show-toplevel)" && git archive HEAD~1 | tar -x -C "$1"`, "sh", before)
	if out, err := archive.CombinedOutput(); err != nil {
		t.Skipf("the previous commit is not to be had: %v, %s", err, out)
	}
	old, deployed := before+"/old", before+"/server"
	compile := exec.Command("go", "build", "-o", old, "./examples/http")
	compile.Dir = before
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("build of the previous commit: %v\n%s", err, out)
	}
	deploy := func(exe string) {
		t.Helper()
		if err := os.Link(exe, deployed+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(deployed+".new", deployed); err != nil {
			t.Fatal(err)
		}
	}
	deploy(old)
	p := start(t, deployed, "-addr=localhost:0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	results := make(chan *strictclient.Result, 2)
	for _, keep := range []bool{false, true} {
		l := strictclient.Load{Network: "tcp", Address: p.addresses[0], Clients: 4, KeepAlive: keep, Pause: 5 * time.Millisecond}
		go func() { results <- l.Run(ctx) }()
	}
	current := build(t, "http")
	for _, exe := range []string{current, old, current} {
		deploy(exe)
		p.change(syscall.SIGUSR2, "upgraded")
	}
	cancel()
	for range 2 {
		if r := <-results; r.Failed() != 0 || r.Requests == 0 {
			t.Errorf("%v", r)
		} else {
			t.Log(r)
		}
	}
}

func exchange(s reflectionpb.ServerReflection_ServerReflectionInfoClient, r *reflectionpb.ServerReflectionRequest) (*reflectionpb.ServerReflectionResponse, error) {
	if err := s.Send(r); err != nil {
		return nil, err
	}
	answer, err := s.Recv()
	return answer, errors.Join(err, s.CloseSend())
}

// TestUpgrade replaces the server of one process in place. (As a new process it would outlive the one that the test knows.)
func TestUpgrade(t *testing.T) {
	t.Parallel()
	p := start(t, build(t, "upgrade"), "-addr=localhost:0", "-inplace")
	want := fmt.Sprintf("hello from process %d\n", p.PID())
	for range 3 {
		expect(t, get(t, "tcp", p.addresses[0], "http://x/"), want)
		p.Signal(syscall.SIGHUP)
		p.Says(listening)
	}
	expect(t, get(t, "tcp", p.addresses[0], "http://x/"), want)
}

func TestReuseport(t *testing.T) {
	t.Parallel()
	addr := run(t, "reuseport", "-addr=localhost:0")[0]
	expect(t, get(t, "tcp", addr, "http://x/"), `accepted by listener \d+ of \d+\n`)
}

// TestSteered connects from one CPU, and then from another: the worker there must serve, where the kernel lets it be steered.
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
	if err != nil || !strings.Contains(string(out), "per node") {
		t.Errorf("%s, %v", out, err)
	}
	out, err = exec.Command(exe, "-cpus=0", "grep", "Cpus_allowed_list", "/proc/self/status").CombinedOutput()
	if err != nil || string(out) != "Cpus_allowed_list:\t0\n" {
		t.Errorf("%s, %v", out, err)
	}
}
