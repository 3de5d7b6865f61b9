//go:build linux

package examples_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
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
	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/pack"
)

func TestGRPC(t *testing.T) {
	t.Parallel()
	addr := run(t, "grpc", "-addr=localhost:0")[0]
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	workers := map[string]bool{}
	for range 30 {
		conn := dial(t, addr)
		reply, err := helloworld.NewGreeterClient(conn).SayHello(ctx, &helloworld.HelloRequest{Name: "gopher"})
		if err != nil || !strings.HasPrefix(reply.GetMessage(), "hello gopher, from worker ") {
			t.Errorf("%v, %v", reply, err)
		}
		workers[reply.GetMessage()] = true
		conn.Close()
	}
	t.Log(len(workers), "workers answered")
	conn := dial(t, addr)
	defer conn.Close()
	health, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(listServices()); err != nil {
		t.Fatal(err)
	}
	r, err := stream.Recv()
	err = errors.Join(err, stream.CloseSend())
	if err != nil || !strings.Contains(fmt.Sprint(r), "helloworld.Greeter") {
		t.Errorf("reflection: %v, %v", r, err)
	}
}

// dial makes a client that repeats no call by itself.
func dial(t *testing.T, address string, more ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	conn, err := grpc.NewClient(address, append(more, plain, grpc.WithDisableRetry())...)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// watched has watchers that see the state change when the worker drains.
type watched struct {
	healthpb.UnimplementedHealthServer
}

func (watched) Watch(_ *healthpb.HealthCheckRequest, to grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	send := func(s healthpb.HealthCheckResponse_ServingStatus) error {
		return to.Send(&healthpb.HealthCheckResponse{Status: s})
	}
	if err := send(healthpb.HealthCheckResponse_SERVING); err != nil {
		return err
	}
	<-pack.Draining(to.Context())
	return send(healthpb.HealthCheckResponse_NOT_SERVING)
}

// TestGRPCDraining has a stream that would go on for ever end with the drain.
func TestGRPCDraining(t *testing.T) {
	t.Parallel()
	srv := grpc.NewServer()
	healthpb.RegisterHealthServer(srv, watched{})
	path := t.TempDir() + "/socket"
	p := pack.New(pack.Config{Inline: true, Logger: slog.New(slog.DiscardHandler)})
	p.Handle("unix", path, pack.GRPC(srv))
	serving, stop := context.WithCancel(t.Context())
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- p.Run(serving) }()
	conn := dial(t, "unix:"+path)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{
		healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		if r, err := stream.Recv(); err != nil || r.GetStatus() != want {
			t.Fatalf("%v, %v; want %v", r, err, want)
		}
		stop()
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("%v; want the end", err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// TestGRPCChanges reloads and upgrades while clients call, and while they have streams. A client repeats a call by
// itself only if the server says that it was not looked at.
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
		conn := dial(t, p.addresses[0])
		defer conn.Close()
		for range 3 {
			loop(func() error {
				request := &helloworld.HelloRequest{Name: "x"}
				_, err := helloworld.NewGreeterClient(conn).SayHello(context.Background(), request)
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

// TestGRPCSilentClients has clients say nothing for a while when they are connected, through changes and a stop. They
// are answered, or refused when nobody listens any more. A pack waits for a second, on a busy machine for less of what a
// client takes to be a second, so that only those count who said something soon.
func TestGRPCSilentClients(t *testing.T) {
	t.Parallel()
	p := start(t, build(t, "grpc"), "-addr=localhost:0")
	var stopped atomic.Bool
	var answered atomic.Int64
	call := func() error {
		var soon atomic.Bool
		soon.Store(true)
		silently := grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			begun := time.Now()
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err == nil {
				time.Sleep(rand.N(700 * time.Millisecond))
			}
			if time.Since(begun) > 300*time.Millisecond {
				soon.Store(false)
			}
			return c, err
		})
		conn := dial(t, p.addresses[0], silently)
		defer conn.Close()
		_, err := helloworld.NewGreeterClient(conn).SayHello(context.Background(), &helloworld.HelloRequest{Name: "x"})
		if err != nil && soon.Load() && !strings.Contains(err.Error(), syscall.ECONNREFUSED.Error()) {
			t.Error(err)
		}
		return err
	}
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() {
			for !stopped.Load() {
				if call() == nil {
					answered.Add(1)
				}
			}
		})
	}
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2} {
		n := answered.Load() + 50
		p.Until("clients to be answered", program.Patience, func() bool { return answered.Load() >= n })
		p.change(s, map[syscall.Signal]string{syscall.SIGHUP: "reloaded", syscall.SIGUSR2: "upgraded"}[s])
	}
	n := answered.Load() + 50
	p.Until("clients to be answered", program.Patience, func() bool { return answered.Load() >= n })
	p.Stop()
	stopped.Store(true)
	clients.Wait()
	t.Log(answered.Load(), "calls")
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
