package drain

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/gopherpack/gopherpack/internal/test"
)

type (
	byPointer struct {
		name string
		*http.Server
	}
	byValue struct{ http.Server }
	nested  struct {
		_ int
		*byPointer
	}
	hidden   struct{ wrapper }
	wrapper  struct{ http.Server }
	servesTo struct{ *http.Server }
	stops    struct{ *http.Server }
	named    struct{ Server *http.Server }
	loop     struct{ *loop }
)

func (s *servesTo) Serve(net.Listener) error    { return nil }
func (s *stops) Shutdown(context.Context) error { return nil }
func (s *named) Serve(net.Listener) error       { return nil }
func (s *named) Shutdown(context.Context) error { return nil }
func (s *named) Close() error                   { return nil }

// TestEmbedded finds the http.Server in servers of other types.
func TestEmbedded(t *testing.T) {
	srv := new(http.Server)
	value := new(byValue)
	in := new(hidden)
	circle := new(loop)
	circle.loop = circle
	for _, tt := range []struct {
		server any
		want   EmbeddedHTTP
	}{
		{&byPointer{"", srv}, EmbeddedHTTP{srv, true, true}},
		{byPointer{"", srv}, EmbeddedHTTP{srv, true, true}},
		{value, EmbeddedHTTP{&value.Server, true, true}},
		{&nested{0, &byPointer{"", srv}}, EmbeddedHTTP{srv, true, true}},
		{in, EmbeddedHTTP{&in.Server, true, true}},
		{&servesTo{srv}, EmbeddedHTTP{srv, false, true}},
		{&stops{srv}, EmbeddedHTTP{srv, true, false}},
		{&named{srv}, EmbeddedHTTP{}},
		{&byPointer{}, EmbeddedHTTP{}},
		{&nested{}, EmbeddedHTTP{}},
		{circle, EmbeddedHTTP{}},
		{NewTCP(nil, nil), EmbeddedHTTP{}},
		{(*byPointer)(nil), EmbeddedHTTP{}},
		{nil, EmbeddedHTTP{}},
	} {
		if got := Embedded(tt.server); got != tt.want {
			t.Errorf("%T: %v; want %v", tt.server, got, tt.want)
		}
	}
}

// TestWantsTLS tells a configuration for TLS from what ConfigureServer of package http2 leaves.
func TestWantsTLS(t *testing.T) {
	made := new(http.Server)
	//lint:ignore SA1019 users have it
	if err := http2.ConfigureServer(made, nil); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go NewHTTP(made).Serve(l)
	defer made.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if r, err := client.Get("http://" + l.Addr().String()); err != nil || r.StatusCode != http.StatusNotFound || r.Body.Close() != nil {
		t.Errorf("without TLS: %v, %v", r, err)
	}
	filled := made.TLSConfig.Clone()
	filled.Certificates = []tls.Certificate{test.SelfSigned(t)}
	for _, tt := range []struct {
		name   string
		config *tls.Config
		want   bool
	}{
		{"none", nil, false}, {"an empty one", &tls.Config{}, true}, {"ConfigureServer's", made.TLSConfig, false},
		{"with a certificate, too", filled, true},
	} {
		if got := wantsTLS(tt.config); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// TestNeverPlaintext has a server with a TLSConfig whose Serve serves none.
func TestNeverPlaintext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := Foreign(&stops{&http.Server{TLSConfig: &tls.Config{}}})
	if err := s.Serve(l); err == nil || !strings.Contains(err.Error(), "serves no TLS") {
		t.Errorf("%v", err)
	}
}
