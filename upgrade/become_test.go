//go:build linux

package upgrade_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/upgrade"
)

// TestBecome passes on nothing and a lot, many times.
func TestBecome(t *testing.T) {
	t.Parallel()
	s := raise(t)
	first := s.now
	if first.Inherited || first.Comm != "server" || first.Path != s.dir+"/current/server" {
		t.Fatalf("at first: %+v", first)
	}
	for _, c := range []struct{ files, state int }{{0, 0}, {1, 1}, {600, 3 << 20}, {2, 100}} {
		s.done("forget")
		s.done("become %s/current/server %d %d", s.dir, c.files, c.state)
		now := s.now
		if !now.Inherited || now.PID != first.PID || now.Parent != first.Parent || now.State != c.state || now.Err != "" {
			t.Errorf("%d files, %d bytes: %+v", c.files, c.state, now)
		}
		if len(now.Files) != c.files {
			t.Fatalf("%d files, want %d", len(now.Files), c.files)
		}
		for i, text := range now.Files {
			if text != strconv.Itoa(i) {
				t.Errorf("file %d holds %q", i, text)
			}
		}
		if now.Comm != first.Comm || now.Path != first.Path || now.Cwd != first.Cwd || !slices.Equal(now.Args, first.Args) {
			t.Errorf("it was %+v and is %+v", first, now)
		}
		if !slices.Equal(now.Passed, first.Passed) {
			t.Errorf("a program that it starts would get descriptors %v", now.Passed)
		}
		s.done("environ")
		if want := asPuppet + "=1 ADDED=1"; s.now.Said != want {
			t.Errorf("environment: %q, want %q", s.now.Said, want)
		}
		s.done("close")
		if s.now.Open != first.Open {
			t.Errorf("%d descriptors are open after Close, %d at first", s.now.Open, first.Open)
		}
	}
	s.done("name")
	if s.now.Comm != "server" {
		t.Errorf("it is named %q", s.now.Comm)
	}
	s.done("pass")
	if len(s.now.Files) != 1 || !slices.Equal(s.now.Passed, first.Passed) {
		t.Errorf("with standard error passed on: %+v", s.now)
	}
}

// TestBecomeFails looks at what must be as it was.
func TestBecomeFails(t *testing.T) {
	t.Parallel()
	s := prepare(t)
	// Go raises the limit of open files at the start, and execve is to have the first one.
	script := `ulimit -S -n 200; exec "$0"`
	s.cmd.Args, s.cmd.Path = []string{"sh", "-c", script, s.cmd.Path}, "/bin/sh"
	s.start()
	if err := os.WriteFile(s.dir+"/text", []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.done("ignored")
	before := s.now.Said
	s.done("notify")
	first := s.now
	for command, want := range map[string]string{
		"become " + s.dir + "/text 3 3": "exec format error",
		"become " + s.dir + "/none 3 3": "no such file",
		"become " + s.dir + " 3 3":      "is not a regular file",
		"twice":                         "passed on twice",
		"late":                          "",
	} {
		s.tell("%s", command)
		if !strings.Contains(s.now.Error, want) || s.now.Inherited {
			t.Errorf("%s: %+v; want %q", command, s.now, want)
		}
		if command == "late" && s.now.Said != "terminated" {
			t.Errorf("late: %q", s.now.Said)
		}
		now := s.now
		now.Error, now.Said = "", ""
		if fmt.Sprint(now) != fmt.Sprint(first) {
			t.Errorf("%s: it was\n%+v and is\n%+v", command, first, now)
		}
		s.done("ignored")
		if s.now.Said != before {
			t.Errorf("%s: HUP and TERM are %s, were %s", command, s.now.Said, before)
		}
	}
}

// TestHandBack goes back to an executable that is not on disk any more.
func TestHandBack(t *testing.T) {
	t.Parallel()
	s := raise(t)
	first := s.now
	for i := range 3 {
		s.install("v2")
		s.done("become %s/v2/server 400 5000", s.dir)
		s.done("hand no luck, %d\x00times", i)
		now := s.now
		why := fmt.Sprintf("no luck, %dtimes", i)
		if now.PID != first.PID || now.State != 5000 || len(now.Files) != 400 || now.Returned != why {
			t.Errorf("the previous executable: %+v", now)
		}
		if !slices.Equal(now.Passed, first.Passed) {
			t.Errorf("a program that it starts would get descriptors %v", now.Passed)
		}
		s.tell("hand again")
		if want := "its successor handed back (no luck, "; !strings.Contains(s.now.Error, want) {
			t.Errorf("handed back by the previous executable: %q, want %q", s.now.Error, want)
		}
		s.done("close")
		if s.now.Open != first.Open {
			t.Errorf("%d descriptors are open after Close, %d at first", s.now.Open, first.Open)
		}
	}
	s.done("become %s/v2/server 3 3", s.dir)
	for _, how := range []string{"shorten 2", "drop 1"} {
		s.done(how)
		s.tell("hand incomplete")
		if want := "was closed"; !strings.Contains(s.now.Error, want) || s.now.Returned != "" {
			t.Errorf("%s: %q, want %q", how, s.now.Error, want)
		}
	}
}

// TestNotDeceived has processes inherit an environment that was not meant for them.
func TestNotDeceived(t *testing.T) {
	t.Parallel()
	s := raise(t)
	own := []string{
		fmt.Sprintf("GOPHERPACK_ESTATE=version=1 pid=%d start=1 memory=0 previous=1 ignored=0 text=", s.now.PID),
		"GOPHERPACK_ESTATE=version=1 pid=1 start=1 memory=3 previous=4 text=x",
		"GOPHERPACK_PREFLIGHT=version=1 fd=0 inode=0 text=/bin/sh",
		"GOPHERPACK_PREFLIGHT=version=1 fd=3 inode=0 text=/bin/sh",
		"GOPHERPACK_SUCCESSOR=version=1 fd=3 inode=1 text=/bin/sh",
		"GOPHERPACK_SUCCESSOR=nonsense", "GOPHERPACK_ESTATE=",
	}
	for _, v := range own {
		name, _, _ := strings.Cut(v, "=")
		fresh := raise(t, v)
		if fresh.now.Inherited || fresh.now.Path != fresh.dir+"/current/server" {
			t.Errorf("%s: %+v", v, fresh.now)
		}
		fresh.done("environ")
		if strings.Contains(fresh.now.Said, name) {
			t.Errorf("%s is still there: %s", name, fresh.now.Said)
		}
	}
}

// TestNotDeceivedByNumber has a process that has the number, but is not the one that was meant.
func TestNotDeceivedByNumber(t *testing.T) {
	t.Parallel()
	for start, want := range map[string]bool{"1": false, "$(cut -d ' ' -f 22 /proc/$$/stat)": true} {
		s := prepare(t)
		if err := os.WriteFile(s.dir+"/memory", []byte("{}\nstate"), 0o600); err != nil {
			t.Fatal(err)
		}
		script := `export GOPHERPACK_ESTATE="version=1 pid=$$ start=` + start + ` memory=9"; exec "$0" 9<` + s.dir + "/memory"
		s.cmd.Args, s.cmd.Path = []string{"sh", "-c", script, s.cmd.Path}, "/bin/sh"
		if s.start(); s.now.Inherited != want {
			t.Errorf("started at %s: it inherited something: %v, want %v", start, s.now.Inherited, want)
		}
	}
}

// socketToPass returns one end of a pair of sockets, whose other end is open until the test ends, and its number.
func socketToPass(t *testing.T) (*os.File, uint64) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[0]), "theirs")
	t.Cleanup(func() {
		theirs.Close()
		unix.Close(fds[1])
	})
	info, err := theirs.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return theirs, info.Sys().(*syscall.Stat_t).Ino
}

// TestSetuid has a program with another user's rights not believe whoever starts it.
func TestSetuid(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making a setuid program of another user's: ", unix.EPERM)
	}
	for _, mode := range []uint32{0o755, 0o4755} {
		s := prepare(t)
		executable := s.dir + "/v1/server"
		if err := errors.Join(os.Chown(executable, 65534, 0), unix.Chmod(executable, mode)); err != nil {
			t.Fatal(err)
		}
		theirs, inode := socketToPass(t)
		s.cmd.ExtraFiles = []*os.File{theirs}
		setuid := mode&unix.S_ISUID != 0
		if setuid {
			inode++ // else it would refuse to go on: see TestSetuidIsAsked
		}
		s.cmd.Env = append(s.cmd.Env, fmt.Sprintf("GOPHERPACK_PREFLIGHT=version=1 fd=3 inode=%d text=/bin/sh", inode))
		s.start()
		if s.now.Asked == setuid {
			t.Errorf("mode %o: asked: %v", mode, s.now.Asked)
		}
		s.tell("late")
		if want := "it has rights by its file"; setuid != strings.Contains(s.now.Error, want) {
			t.Errorf("mode %o: become: %q", mode, s.now.Error)
		}
	}
}

// TestSetuidIsAsked has a program with another user's rights refuse to be asked, and to take over, by what it says.
func TestSetuidIsAsked(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making a setuid program of another user's: ", unix.EPERM)
	}
	s := prepare(t)
	executable := s.dir + "/v1/server"
	if err := errors.Join(os.Chown(executable, 65534, 0), unix.Chmod(executable, 0o4755)); err != nil {
		t.Fatal(err)
	}
	image, err := upgrade.OpenImage(executable)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	const want = "it has rights by its file (setuid, setgid or capabilities), and so believes nobody"
	if _, err := upgrade.Preflight(t.Context(), image, nil); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("asked: %v; want %q", err, want)
	}
	theirs, inode := socketToPass(t)
	cmd := exec.Command(executable, "-test.run=^$")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOPHERPACK_SUCCESSOR=version=1 fd=3 inode=%d text=/bin/sh", inode))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
		t.Errorf("to take over: %v, %q; want %q", err, out, want)
	}
}

// TestSignalsBetween looks at what has become of signals in the new program.
func TestSignalsBetween(t *testing.T) {
	t.Parallel()
	for asked, want := range map[bool]string{false: "default caught", true: "caught caught"} {
		s := raise(t)
		s.done("notify")
		s.done("become %s/current/server 0 0", s.dir)
		s.done("ignored")
		if want := "ignored caught"; s.now.Said != want { // Go's runtime has handlers for most signals
			t.Errorf("HUP and TERM are %q, want %q", s.now.Said, want)
		}
		if asked {
			s.done("notify")
		}
		s.done("close")
		s.done("ignored")
		if s.now.Said != want {
			t.Errorf("after Close, asked for: %v: HUP and TERM are %q, want %q", asked, s.now.Said, want)
		}
		s.done("ignore")
		s.done("ignored")
		if want := "ignored caught"; s.now.Said != want {
			t.Errorf("ignored after Close: HUP and TERM are %q, want %q", s.now.Said, want)
		}
	}
}

// TestSignalsAfterHandBack hands back to a program that does not handle what was ignored for the successor's sake.
func TestSignalsAfterHandBack(t *testing.T) {
	t.Parallel()
	s := raise(t)
	s.done("ignored")
	first := s.now.Said
	s.done("become %s/current/server 0 0", s.dir)
	s.done("hand back")
	s.done("close")
	s.done("ignored")
	if want := strings.Replace(first, "caught", "default", 1); s.now.Said != want { // Go's runtime had a handler for HUP
		t.Errorf("HUP and TERM are %q, want %q", s.now.Said, want)
	}
}

// TestStartDirectory turns the link that a program was started through.
func TestStartDirectory(t *testing.T) {
	t.Parallel()
	notEmulated(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, dir: dir}
	s.install("v1")
	s.install("v2")
	if err := os.Symlink("v1", dir+"/current"); err != nil {
		t.Fatal(err)
	}
	for pwd, want := range map[string][2]string{
		dir + "/current": {dir + "/current", dir + "/v2"}, dir + "/v1": {dir + "/v1", dir + "/v1"},
		"": {dir + "/v1", dir + "/v1"}, dir: {dir + "/v1", dir + "/v1"}, ".": {dir + "/v1", dir + "/v1"},
	} {
		s := &stage{t: t, dir: dir}
		s.cmd = exec.Command("./server")
		s.cmd.Dir = dir + "/v1"
		s.cmd.Env = append(os.Environ(), asPuppet+"=1", "GORACE=atexit_sleep_ms=0", "PWD="+pwd)
		s.start()
		if s.now.Dir != want[0] || s.now.Cwd != dir+"/v1" {
			t.Errorf("PWD=%s: Dir is %s, want %s", pwd, s.now.Dir, want[0])
		}
		os.Remove(dir + "/current")
		os.Symlink("v2", dir+"/current")
		s.done("forget")
		s.done("become %s/current/server 0 0", dir)
		if s.now.Cwd != want[1] || s.now.Dir != want[0] {
			t.Errorf("PWD=%s: the next program is in %s, Dir is %s; want %s, %s", pwd, s.now.Cwd, s.now.Dir, want[1], want[0])
		}
		s.done("hand back")
		if s.now.Cwd != dir+"/v1" {
			t.Errorf("PWD=%s: the previous program is in %s, want %s", pwd, s.now.Cwd, dir+"/v1")
		}
		os.Remove(dir + "/current")
		os.Symlink("v1", dir+"/current")
	}
}
