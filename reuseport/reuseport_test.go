package reuseport_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/gopherpack/gopherpack/reuseport"
)

func TestListen(t *testing.T) {
	for _, network := range []string{"tcp", "tcp4"} {
		first, err := reuseport.Listen(t.Context(), network, "localhost:0")
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		second, err := reuseport.Listen(t.Context(), network, first.Addr().String())
		if err != nil {
			t.Fatalf("a second listener: %v", err)
		}
		second.Close()
	}
}

func TestListenPacket(t *testing.T) {
	first, err := reuseport.ListenPacket(t.Context(), "udp", "localhost:0")
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := reuseport.ListenPacket(t.Context(), "udp", first.LocalAddr().String())
	if err != nil {
		t.Fatalf("a second socket: %v", err)
	}
	second.Close()
}

func TestErrors(t *testing.T) {
	ctx := t.Context()
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	listen := func(network, address string) error {
		_, err := reuseport.Listen(ctx, network, address)
		return err
	}
	packet := func(network, address string) error {
		_, err := reuseport.ListenPacket(ctx, network, address)
		return err
	}
	group := func(ctx context.Context, address string, n int) error {
		_, err := reuseport.ListenGroup(ctx, "tcp", address, n)
		return err
	}
	var unknown net.UnknownNetworkError
	for _, tt := range []struct {
		err  error
		want string
		as   any
	}{
		{listen("unix", "/tmp/x"), "listen on unix /tmp/x: want tcp, tcp4 or tcp6", &unknown},
		{listen("udp", ":0"), "want tcp", &unknown},
		{packet("tcp", ":0"), "want udp", &unknown},
		{listen("tcp", "localhost"), "missing port", nil},
		{listen("tcp", "localhost:99999"), "invalid port", nil},
		{group(ctx, "localhost:0", 0), "group of 0 sockets on tcp localhost:0", nil},
		{group(ctx, "localhost:0", -1), "at least one", nil},
		{group(canceled, "localhost:0", 2), "localhost:0: context canceled", nil},
		{group(canceled, "127.0.0.1:0", 2), "127.0.0.1:0: context canceled", nil},
	} {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("%v; want an error about %q", tt.err, tt.want)
		}
		if tt.as != nil && !errors.As(tt.err, tt.as) {
			t.Errorf("%v is not a %T", tt.err, tt.as)
		}
	}
}
