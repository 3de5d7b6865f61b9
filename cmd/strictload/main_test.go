package main

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if args := os.Getenv("STRICTLOAD_TEST"); args != "" {
		os.Args = append(os.Args[:1], strings.Fields(args)...)
		flag.CommandLine = flag.NewFlagSet("strictload", flag.ExitOnError)
		main()
		return
	}
	os.Exit(m.Run())
}

func TestStrictload(t *testing.T) {
	failing := false
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if failing {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	gone := httptest.NewServer(handler)
	gone.Close()
	for _, tt := range []struct {
		args, want string
		status     int
	}{
		{"-duration 100ms -clients 2 " + plain.URL, "\n0 failed\n", 0},
		{"-duration 100ms -clients 2 -keepalive -body 10 " + plain.URL + "/path", "on 2 connections", 0},
		{"-duration 100ms -clients 1 -insecure " + secure.URL, "\n0 failed\n", 0},
		{"-duration 10ms -clients 1 " + secure.URL, "failed to verify certificate", 1},
		{"-duration 10ms -clients 1 " + gone.URL, "connection refused", 1},
		{"localhost:80", "want one URL", 2},
		{"-clients 0 " + plain.URL, "there must be at least one", 2},
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STRICTLOAD_TEST="+tt.args, "GORACE=atexit_sleep_ms=0")
		out, _ := cmd.CombinedOutput()
		if status := cmd.ProcessState.ExitCode(); status != tt.status || !strings.Contains(string(out), tt.want) {
			t.Errorf("strictload %s: exit status %d, %q; want %d and %q", tt.args, status, out, tt.status, tt.want)
		}
	}
}
