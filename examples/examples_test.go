//go:build linux

// Package examples_test builds the examples and uses them as a user would.
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

	"github.com/gopherpack/gopherpack/examples/grpc/helloworld"
	"github.com/gopherpack/gopherpack/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// build builds an example and returns the program's path.
func build(t *testing.T, name string) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", exe, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("go build ./%s: %v\n%s", name, err, out)
	}
	return exe
}

// listening finds what a pack, or the reuseport example, says it listens on.
var listening = regexp.MustCompile(`listening(?:="?\[([^]]*)\]| on (\S+))`)

// run runs an example until the test ends, and returns what it listens on, as it says. It must end gracefully.
func run(t *testing.T, name string, args ...string) (addresses []string) {
	t.Helper()
	return runAs(t, new(*os.Process), name, args...)
}

// runAs is run, and tells the process.
func runAs(t *testing.T, process **os.Process, name string, args ...string) (addresses []string) {
	t.Helper()
	cmd := exec.Command(build(t, name), args...)
	stderr, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = theirs
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	*process = cmd.Process
	lines := bufio.NewReader(stderr)
	var log strings.Builder
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		io.Copy(&log, lines)
		stderr.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if t.Failed() {
			t.Logf("%s says:\n%s", name, &log)
		}
	})
	for {
		line, err := lines.ReadString('\n')
		log.WriteString(line)
		if err != nil {
			t.Fatalf("%s ended: %v", name, err)
		}
		if m := listening.FindStringSubmatch(line); m != nil {
			for word := range strings.FieldsSeq(m[1] + m[2]) {
				if word != "tcp" && word != "unix" {
					addresses = append(addresses, word)
				}
			}
			return addresses
		}
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

// TestGRPCReload reloads while clients call. A client repeats a call by itself only if the server says that it was
// not looked at.
func TestGRPCReload(t *testing.T) {
	t.Parallel()
	var master *os.Process
	addr := runAs(t, &master, "grpc", "-addr=localhost:0")[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 3 {
			clients.Go(func() {
				for ctx.Err() == nil {
					if _, err := helloworld.NewGreeterClient(conn).SayHello(context.Background(), &helloworld.HelloRequest{Name: "x"}); err != nil {
						t.Error(err)
						return
					}
					calls.Add(1)
				}
			})
		}
	}
	for range 8 {
		before := calls.Load()
		if err := master.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for calls.Load() < before+300 && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
	}
	cancel()
	clients.Wait()
	t.Log(calls.Load(), "calls")
}

func exchange(s reflectionpb.ServerReflection_ServerReflectionInfoClient, r *reflectionpb.ServerReflectionRequest) (*reflectionpb.ServerReflectionResponse, error) {
	if err := s.Send(r); err != nil {
		return nil, err
	}
	answer, err := s.Recv()
	return answer, errors.Join(err, s.CloseSend())
}

func TestReuseport(t *testing.T) {
	t.Parallel()
	addr := run(t, "reuseport", "-addr=localhost:0")[0]
	expect(t, get(t, "tcp", addr, "http://x/"), `accepted by listener \d+ of \d+\n`)
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
