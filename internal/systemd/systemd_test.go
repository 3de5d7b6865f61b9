package systemd

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestRead reads what systemd says to a process 7.
func TestRead(t *testing.T) {
	for _, tt := range []struct {
		environ  string
		socket   string
		watchdog time.Duration
		warning  string // what it says; "" if there is to be none
	}{
		{environ: ""},
		{environ: "SYSTEMD_EXEC_PID=6 INVOCATION_ID=1"}, // of a service whose child this is
		{environ: "SYSTEMD_EXEC_PID=7", warning: "Type=notify-reload"},
		{environ: "SYSTEMD_EXEC_PID=7 NOTIFY_SOCKET=/run/notify", socket: "/run/notify"},
		{environ: "NOTIFY_SOCKET=@notify", socket: "@notify"},
		{environ: "NOTIFY_SOCKET=vsock:2:1", warning: "neither a path"},
		{environ: "SYSTEMD_EXEC_PID=6 NOTIFY_SOCKET=/n", socket: "/n", warning: "must exec"},
		{environ: "NOTIFY_SOCKET=/n WATCHDOG_USEC=2000000 WATCHDOG_PID=7", socket: "/n", watchdog: 2 * time.Second},
		{environ: "NOTIFY_SOCKET=/n WATCHDOG_USEC=2000000", socket: "/n", watchdog: 2 * time.Second},
		{environ: "NOTIFY_SOCKET=/n WATCHDOG_USEC=2000000 WATCHDOG_PID=6", socket: "/n", warning: "for process 6"},
		{environ: "WATCHDOG_USEC=2000000 WATCHDOG_PID=7", warning: "NOTIFY_SOCKET is not set"},
		{environ: "NOTIFY_SOCKET=/n WATCHDOG_USEC=2s", socket: "/n", warning: "no number"},
		{environ: "NOTIFY_SOCKET=/n WATCHDOG_USEC=-1", socket: "/n", warning: "no number"},
		{environ: "NOTIFY_SOCKET=/n WATCHDOG_USEC=9223372036854775807", socket: "/n", warning: "no number"},
	} {
		t.Run(tt.environ, func(t *testing.T) {
			s := read(of(tt.environ), 7)
			if s.Socket != tt.socket || s.Watchdog != tt.watchdog {
				t.Errorf("%+v; want socket %q, watchdog %v", s, tt.socket, tt.watchdog)
			}
			if want := len(tt.warning) > 0; len(s.Warnings) > 1 || want != (len(s.Warnings) == 1) ||
				want && !strings.Contains(s.Warnings[0], tt.warning) {
				t.Errorf("it warns %q; want %q", s.Warnings, tt.warning)
			}
		})
	}
}

// TestReadPassed reads with which sockets a process 7 was started.
func TestReadPassed(t *testing.T) {
	for _, tt := range []struct {
		environ, want, warning string
	}{
		{"LISTEN_PID=7", "", ""},
		{"LISTEN_PID=7 LISTEN_FDS=0", "", ""},
		{"LISTEN_PID=7 LISTEN_FDS=1", "3 unknown", ""},
		{"LISTEN_PID=7 LISTEN_FDS=3 LISTEN_FDNAMES=web::admin", "3 web, 4 unknown, 5 admin", ""},
		{"LISTEN_PID=7 LISTEN_FDS=1 LISTEN_FDNAMES=a:b:c", "3 a", ""},
		{"LISTEN_PID=6 LISTEN_FDS=1", "", "for process 6"},
		{"LISTEN_FDS=1", "", "must exec"},
		{"LISTEN_PID=7 LISTEN_FDS=all", "", "no number"},
		{"LISTEN_PID=7 LISTEN_FDS=-1", "", "no number"},
		{"LISTEN_PID=7 LISTEN_FDS=99999999", "", "no number"},
	} {
		s := read(of(tt.environ), 7)
		var got []string
		for _, d := range s.Passed {
			got = append(got, fmt.Sprint(d.FD, " ", d.Name))
		}
		warning := strings.Join(s.Warnings, "; ")
		if strings.Join(got, ", ") != tt.want || !strings.Contains(warning, tt.warning) || warning != "" && tt.warning == "" {
			t.Errorf("%s: %q, warning %q; want %q, %q", tt.environ, got, warning, tt.want, tt.warning)
		}
	}
	for environ, want := range map[string]int{"FDSTORE=9 NOTIFY_SOCKET=/n": 9, "FDSTORE=9": 0, "FDSTORE=x NOTIFY_SOCKET=/n": 0} {
		if s := read(of(environ), 7); s.Store != want {
			t.Errorf("%s: %d", environ, s.Store)
		}
	}
}

// of returns a function that looks up variables in "A=1 B=2".
func of(environ string) func(string) string {
	return func(name string) string {
		for entry := range strings.FieldsSeq(environ) {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				return value
			}
		}
		return ""
	}
}

func TestText(t *testing.T) {
	for want, m := range map[string]Message{
		"":        {},
		"READY=1": {State: Ready},
		"READY=1\nSTATUS=4 workers serve\nERRNO=0":    {State: Ready, Status: "4 workers serve", Errno: NoError},
		"RELOADING=1\nMONOTONIC_USEC=1500000":         {State: Reloading},
		"STOPPING=1\nSTATUS=a\nEXTEND_TIMEOUT_USEC=2": {State: Stopping, Status: "a", Extend: 2 * time.Microsecond},
		"WATCHDOG=1": {Alive: true},
		"STATUS=it failed: exit status 1\nERRNO=125": {Status: " it failed: exit status 1\nREADY=1\n", Errno: 125},
		"STATUS=no  new ?line":                       {Status: "no\r\tnew \xffline"},
		"STATUS=" + strings.Repeat("ä", 501) + "…":   {Status: strings.Repeat("ä", 2000)},
	} {
		if got := m.Text(1500 * time.Millisecond); got != want {
			t.Errorf("%+v: %q; want %q", m, got, want)
		}
	}
}

// FuzzText wants no status to be anything but a status.
func FuzzText(f *testing.F) {
	f.Add("a\nREADY=1")
	f.Fuzz(func(t *testing.T, status string) {
		text := Message{Status: status, Alive: true}.Text(0)
		lines := strings.Split(text, "\n")
		if !utf8.ValidString(text) || len(text) > 4096 || len(lines) > 2 || !slices.Contains(lines, "WATCHDOG=1") ||
			len(lines) == 2 && !strings.HasPrefix(lines[0], "STATUS=") {
			t.Errorf("%q", text)
		}
	})
}
