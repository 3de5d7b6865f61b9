package rlimit

import (
	"errors"
	"flag"
	"fmt"
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

// child runs in a process of its own, since a hard limit that is lowered cannot be raised again. It says what came of
// what it did, if that is an error, and then what its children get.
func child(do string) {
	verb, arg, _ := strings.Cut(do, " ")
	n, _ := strconv.ParseUint(arg, 10, 64)
	var err error
	switch verb {
	case "raise":
		_, err = Raise(NOFILE, n)
	case "raiseUpTo":
		_, err = RaiseUpTo(NOFILE, n)
	case "apply":
		var s Setting
		if err = s.UnmarshalText([]byte(arg)); err == nil {
			err = s.Apply()
		}
	case "setOf":
		err = SetOf(os.Getpid(), NOFILE, Limit{n, n})
	case "invert":
		err = Set(NOFILE, Limit{Soft: 5, Hard: 4})
	}
	if err != nil {
		fmt.Println(err)
	}
	out, err := exec.Command("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").CombinedOutput()
	if err != nil {
		panic(err)
	}
	fmt.Print(strings.Join(strings.Fields(string(out)), ":"))
	os.Exit(0)
}

// run runs such a child below a shell that first limits open files to soft:hard.
func run(t *testing.T, soft, hard, do string) (failed, limits string) {
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
	if err != nil {
		t.Fatalf("%s: %v", do, err)
	}
	if failed, limits, ok := strings.Cut(string(out), "\n"); ok {
		return failed, limits
	}
	return "", string(out)
}

// TestWhatChildrenGet has the Go runtime raise the soft limit to 299 by itself, which ends with this process.
func TestWhatChildrenGet(t *testing.T) {
	for _, tt := range []struct{ do, want string }{
		{"nothing", "100:300"},
		{"raise 50", "299:300"},
		{"raise 200", "299:300"},
		{"raise 300", "300:300"},
		{"raiseUpTo 200", "299:300"},
		{"raiseUpTo 300", "300:300"},
		{"apply nofile=150:200", "150:200"},
		{"apply nofile=120", "120:120"},
	} {
		if failed, got := run(t, "100", "300", tt.do); failed != "" || got != tt.want {
			t.Errorf("%s: the child has %s, %q; want %s", tt.do, got, failed, tt.want)
		}
	}
}

// TestFailureChangesNothing has children get what they would have got without the attempt.
func TestFailureChangesNothing(t *testing.T) {
	const never = "1099511627776" // is above /proc/sys/fs/nr_open, also for root
	for do, want := range map[string][]string{
		"invert":                  {"set nofile to 5:4", "invalid argument"},
		"raise " + never:          {"raise nofile to " + never, "the hard limit is 300", "operation not permitted"},
		"apply nofile=1:" + never: {"set nofile to 1:" + never, "the hard limit is 300", "operation not permitted"},
	} {
		if runtime.GOOS != "linux" && strings.Contains(do, never) && os.Geteuid() == 0 {
			continue
		}
		failed, got := run(t, "100", "300", do)
		for _, want := range want {
			if !strings.Contains(failed, want) {
				t.Errorf("%s: error %q does not say %q", do, failed, want)
			}
		}
		if got != "100:300" {
			t.Errorf("%s, which failed: the child has %s", do, got)
		}
	}
}

// TestRaiseUpTo takes what there is.
func TestRaiseUpTo(t *testing.T) {
	before, err := Get(NOFILE)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{1, before.Soft} {
		if l, err := RaiseUpTo(NOFILE, n); l != before || err != nil {
			t.Errorf("RaiseUpTo %d = %s, %v; want %s", n, l, err, before)
		}
	}
	failed, got := run(t, "100", "300", "raiseUpTo "+strconv.FormatUint(Infinity, 10))
	var l Limit
	if err := l.UnmarshalText([]byte(got)); err != nil || failed != "" || l.Soft != l.Hard || l.Soft < 300 {
		t.Errorf("as far as possible: %s, %v, %q", got, err, failed)
	}
	if _, err := RaiseUpTo("threads", 1); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("an unknown resource: %v", err)
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
		{text: "nofile=-1", want: "nofile=unlimited:unlimited"},
		{text: "nofile=1024:-1", want: "nofile=1024:unlimited"},
		{text: "nofile=64k", want: "nofile=65536:65536"},
		{text: "LimitNOFILE=1024:infinity", want: "nofile=1024:unlimited"},
		{text: "RLIMIT_AS=2G", want: "as=2147483648:2147483648"},
		{text: "NOFILE=1", want: "nofile=1:1"},
		{text: "cpu=60:infinity", want: "cpu=60:unlimited"},
		{text: "nice=30", want: "nice=30:30"},
		{text: "nofile", err: "resource=soft:hard"},
		{text: "1024:4096", err: "resource=soft:hard"},
		{text: "", err: "resource=soft:hard"},
		{text: "files=1", err: `unknown resource "files", want one of as, core`},
		{text: "LimitFILES=1", err: `unknown resource "LimitFILES"`},
		{text: "nofile=2:1", err: "soft value 2 is above the hard value 1"},
		{text: "nofile=unlimited:1", err: "above"},
		{text: "nofile=-1:1", err: "above"},
		{text: "nofile=-2", err: `"-2" is neither`},
		{text: "nofile=1:", err: `hard value: ""`},
		{text: "nofile=1:2:3", err: `hard value: "2:3"`},
		{text: "nofile=18446744073709551615", err: "neither"},
		{text: "cpu=5m", err: `"5m" has a suffix, want seconds`},
		{text: "rttime=1:2K", err: `hard value: "2K" has a suffix, want microseconds`},
		{text: "LimitNICE=-1", err: "nice level"},
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

func TestLimitText(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Limit
		err  string // what the error must mention
	}{
		{text: "1024:4096", want: Limit{1024, 4096}},
		{text: "1024", want: Limit{1024, 1024}},
		{text: "-1", want: Limit{Infinity, Infinity}},
		{text: "0:infinity", want: Limit{0, Infinity}},
		{text: "unlimited", want: Limit{Infinity, Infinity}},
		{text: "64k:1M", want: Limit{65536, 1 << 20}},
		{text: "1K:2g", want: Limit{1024, 2 << 30}},
		{text: "1t:1P", want: Limit{1 << 40, 1 << 50}},
		{text: "15e", want: Limit{15 << 60, 15 << 60}},
		{text: "16e", err: `"16e" is neither a number below 2^64-1`},
		{text: "18446744073709551614", want: Limit{Infinity - 1, Infinity - 1}},
		{text: "18446744073709551615", err: "neither"},
		{text: "18014398509481984k", err: "neither"}, // 2^64
		{text: "k", err: `"k" is neither`},
		{text: "64kb", err: "neither"},
		{text: "64 k", err: "neither"},
		{text: "6x", err: "neither"},
		{text: "1.5k", err: "neither"},
		{text: "-1k", err: "neither"},
		{text: "+1", err: "neither"},
		{text: "hard", err: "neither"},
		{text: "Infinity", err: "neither"},
		{text: "", err: `soft value: ""`},
		{text: ":1", err: `soft value: ""`},
		{text: "2k:1k", err: "soft value 2048 is above the hard value 1024"},
		{text: "nofile=1", err: "neither"},
	} {
		l := Limit{1, 2}
		err := l.UnmarshalText([]byte(tt.text))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || l != (Limit{1, 2}) {
				t.Errorf("%q: %s, %v; want it unchanged and an error about %q", tt.text, l, err, tt.err)
			}
			continue
		}
		if err != nil || l != tt.want {
			t.Errorf("%q: %s, %v; want %s", tt.text, l, err, tt.want)
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
	for _, text := range []string{"nofile=65536:1048576", "core=0:unlimited", "nofile=2:1", "x", "cpu==", "as=1k:-1"} {
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
