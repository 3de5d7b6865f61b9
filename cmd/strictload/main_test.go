package main

import (
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

func TestMain(m *testing.M) {
	if args := os.Getenv("STRICTLOAD_TEST"); args != "" {
		os.Args = append(os.Args[:1], strings.Fields(args)...)
		flag.CommandLine = flag.NewFlagSet("strictload", flag.ExitOnError)
		main()
		return
	}
	leaktest.Main(m)
}

func TestStrictload(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fails" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	plain, secure, gone := httptest.NewServer(handler), httptest.NewTLSServer(handler), httptest.NewServer(handler)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that do not trust it
	gone.Close()
	for _, tt := range []struct {
		args, want string
		status     int
	}{
		{"-duration 1s -clients 2 -pause 1ms " + plain.URL, "\n0 failed\n", 0},
		{"-duration 1s -clients 2 -pause 1ms -keepalive -body 10 " + plain.URL + "/path", "on 2 connections", 0},
		{"-duration 1s -clients 1 -pause 1ms -insecure " + secure.URL, "\n0 failed\n", 0},
		{"-duration 1s -clients 1 -pause 10ms " + secure.URL, "failed to verify certificate", 1},
		{"-duration 1s -clients 1 -pause 10ms " + gone.URL, "connection refused", 1},
		{"-duration 1s -clients 1 -pause 10ms " + plain.URL + "/fails", "new connection, status: status 503", 1},
		{"localhost:80", "want one URL", 2},
		{"-clients 0 " + plain.URL, "there must be at least one", 2},
		{"-body -1 " + plain.URL, "-1 bytes", 2},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "STRICTLOAD_TEST="+tt.args, "GORACE=atexit_sleep_ms=0")
			out, _ := cmd.CombinedOutput()
			if status := cmd.ProcessState.ExitCode(); status != tt.status || !strings.Contains(string(out), tt.want) {
				t.Errorf("strictload %s: exit status %d, %q; want %d and %q", tt.args, status, out, tt.status, tt.want)
			}
		})
	}
}
