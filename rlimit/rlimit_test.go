package rlimit

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

// asChild makes the test binary a program that applies settings, then prints the limit that its own child has.
const asChild = "RLIMIT_TEST_CHILD"

func TestMain(m *testing.M) {
	if value, ok := os.LookupEnv(asChild); ok {
		child(value)
		return
	}
	leaktest.Main(m)
}

// child runs in a process of its own, since a hard limit that is lowered cannot be raised again.
func child(do string) {
	verb, arg, _ := strings.Cut(do, " ")
	var err error
	switch verb {
	case "raise":
		n, _ := strconv.ParseUint(arg, 10, 64)
		_, err = Raise(NOFILE, n)
	case "apply":
		var s Setting
		if err = s.UnmarshalText([]byte(arg)); err == nil {
			err = s.Apply()
		}
	}
	if err != nil {
		os.Stdout.WriteString(err.Error())
		os.Exit(1)
	}
	out, err := exec.Command("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").CombinedOutput()
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(strings.Join(strings.Fields(string(out)), ":"))
	os.Exit(0)
}

// run runs such a child below a shell that first limits open files to soft:hard.
func run(t *testing.T, soft, hard, do string) (string, error) {
	t.Helper()
	if len(Resources()) == 0 {
		t.Skip("no resource limits on " + runtime.GOOS)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "ulimit -Sn "+soft+" && ulimit -Hn "+hard+" && exec "+strconv.Quote(exe))
	cmd.Env = append(os.Environ(), asChild+"="+do, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.Output()
	return string(out), err
}

func TestRaiseReachesChildren(t *testing.T) {
	for _, tt := range []struct{ soft, hard, do, want string }{
		{"100", "300", "none", "100:300"}, // what the Go runtime does by itself ends with this process
		{"100", "300", "raise 200", "299:300"},
		{"100", "300", "raise 300", "300:300"},
		{"100", "300", "apply nofile=150:200", "150:200"},
		{"100", "300", "apply nofile=120", "120:120"},
	} {
		out, err := run(t, tt.soft, tt.hard, tt.do)
		if tt.do == "raise 200" {
			// The runtime already raised the soft limit above 200, so Raise changes nothing.
			if err != nil || (out != "100:300" && out != tt.want) {
				t.Errorf("%s:%s, %s: %q, %v", tt.soft, tt.hard, tt.do, out, err)
			}
			continue
		}
		if err != nil || out != tt.want {
			t.Errorf("%s:%s, %s: the child has %q, %v; want %s", tt.soft, tt.hard, tt.do, out, err, tt.want)
		}
	}
}

func TestRaiseAboveHard(t *testing.T) {
	out, err := run(t, "100", "300", "raise 301")
	if err == nil {
		t.Skip("this user may raise hard limits")
	}
	for _, want := range []string{"raise nofile to 301", "the hard limit is 300", "operation not permitted"} {
		if !strings.Contains(out, want) {
			t.Errorf("error %q does not say %q", out, want)
		}
	}
}

func TestRaiseLowersNothing(t *testing.T) {
	before, err := Get(NOFILE)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	after, err := Raise(NOFILE, 1)
	if err != nil || after != before {
		t.Errorf("Raise(NOFILE, 1) = %s, %v; want %s", after, err, before)
	}
}

func TestGetAll(t *testing.T) {
	for _, r := range Resources() {
		l, err := Get(r)
		if err != nil || l.Soft > l.Hard {
			t.Errorf("%s: %s, %v", r, l, err)
		}
	}
	_, err := Get("threads")
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "get threads") {
		t.Errorf("an unknown resource: %v", err)
	}
	if err := Set("threads", Limit{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("set an unknown resource: %v", err)
	}
	for _, r := range Resources() {
		var s Setting
		if err := s.UnmarshalText([]byte(string(r) + "=1")); err != nil {
			t.Errorf("%s has no text form: %v", r, err)
		}
	}
}

func TestSettingText(t *testing.T) {
	for _, tt := range []struct {
		text string
		want string // as it comes back
		err  string // what the error must mention
	}{
		{text: "nofile=65536:1048576", want: "nofile=65536:1048576"},
		{text: "nofile=65536", want: "nofile=65536:65536"},
		{text: "core=0:unlimited", want: "core=0:unlimited"},
		{text: "stack=unlimited", want: "stack=unlimited:unlimited"},
		{text: "nofile", err: "resource=soft:hard"},
		{text: "", err: "resource=soft:hard"},
		{text: "files=1", err: `unknown resource "files", want one of as, core`},
		{text: "NOFILE=1", err: "unknown resource"},
		{text: "nofile=2:1", err: "soft value 2 is above the hard value 1"},
		{text: "nofile=unlimited:1", err: "above"},
		{text: "nofile=-1", err: `"-1" is neither`},
		{text: "nofile=1:", err: `hard value: ""`},
		{text: "nofile=1:2:3", err: `hard value: "2:3"`},
		{text: "nofile=18446744073709551615", err: "neither"},
	} {
		s := Setting{CPU, Limit{1, 2}}
		err := s.UnmarshalText([]byte(tt.text))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || s != (Setting{CPU, Limit{1, 2}}) {
				t.Errorf("%q: %s, %v; want it unchanged and an error about %q", tt.text, s, err, tt.err)
			}
			continue
		}
		if err != nil || s.String() != tt.want {
			t.Errorf("%q: %s, %v; want %s", tt.text, s, err, tt.want)
		}
	}
}

func TestSettingAsFlag(t *testing.T) {
	var s Setting
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.TextVar(&s, "ulimit", Setting{NOFILE, Limit{1, 1}}, "resource limit")
	if err := flags.Parse([]string{"-ulimit", "nproc=64"}); err != nil || s.String() != "nproc=64:64" {
		t.Errorf("%s, %v", s, err)
	}
}

func TestInfinity(t *testing.T) {
	if got := (Limit{0, Infinity}).String(); got != "0:unlimited" {
		t.Errorf("String = %q", got)
	}
}

func FuzzSetting(f *testing.F) {
	for _, text := range []string{"nofile=65536:1048576", "core=0:unlimited", "nofile=2:1", "x", "cpu=="} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again Setting
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%q = %s, which reads back as %s, %v", text, s, again, err)
		}
	})
}
