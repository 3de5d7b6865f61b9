//go:build linux

package upgrade_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/upgrade"
)

// asAsked makes the test binary a program that is asked; its value is how it answers.
const asAsked = "UPGRADE_TEST_ASKED"

// asReporter names a file, which a program that is asked writes its number and that of its offspring to.
const asReporter = "UPGRADE_TEST_REPORTER"

func asked(how string) error {
	q := upgrade.Asked()
	if q == nil {
		return errors.New("nobody asks")
	}
	// offspring starts a program that would outlive this one and has a copy of the socket.
	offspring := func() int {
		cmd := exec.Command("sleep", "1000")
		socket, _ := unix.FcntlInt(3, unix.F_DUPFD_CLOEXEC, 3)
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(socket), "socket")}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		return cmd.Process.Pid
	}
	report := func() {
		if err := os.WriteFile(os.Getenv(asReporter), fmt.Appendln(nil, os.Getpid(), offspring()), 0); err != nil {
			panic(err)
		}
	}
	switch how {
	case "echo":
		q.Answer(q.Bytes())
	case "nothing":
		q.Answer(nil)
	case "unread":
		q.Answer([]byte("unread"))
	case "big":
		q.Answer(make([]byte, 1<<20+1))
	case "exit 0":
	case "exit 3":
		os.Exit(3)
	case "stopping", "stubborn":
		if how == "stubborn" {
			signal.Ignore(syscall.SIGTERM)
		}
		report()
		time.Sleep(time.Hour)
	case "leaves offspring":
		q.Answer(fmt.Append(nil, os.Getpid(), offspring()))
	case "leaves offspring only":
		report()
	case "goes on":
		text := binary.BigEndian.AppendUint32(nil, 1)
		text = binary.BigEndian.AppendUint32(text, 2)
		unix.Write(3, append(text, "ok"...))
		time.Sleep(time.Hour)
	case "cut short":
		text := binary.BigEndian.AppendUint32(nil, 1)
		unix.Write(3, append(binary.BigEndian.AppendUint32(text, 3), "ok"...))
	case "other version":
		unix.Write(3, append(binary.BigEndian.AppendUint32(nil, 2), 0, 0, 0, 0))
		time.Sleep(time.Hour)
	case "describe":
		comm, _ := os.ReadFile("/proc/self/comm")
		path, err := upgrade.Path()
		n, _ := os.Stdin.Read(make([]byte, 1))
		flags, _ := unix.FcntlInt(3, unix.F_GETFD, 0)
		q.Answer(fmt.Appendf(nil, "%s %s %v %d %d %v", strings.TrimSpace(string(comm)), path, err, n, flags, os.Environ()))
	}
	return nil
}

// TestPreflight asks programs of many kinds.
func TestPreflight(t *testing.T) {
	self, err := upgrade.RunningImage()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { self.Close() })
	big := bytes.Repeat([]byte("question"), 1<<20)
	for how, c := range map[string]struct {
		question, answer []byte
		err              string
	}{
		"echo":          {[]byte("hello"), []byte("hello"), ""},
		"nothing":       {nil, nil, ""},
		"unread":        {big, []byte("unread"), ""},
		"big":           {nil, nil, "its answer has 1048577 bytes, at most 1048576 are read"},
		"exit 0":        {big, nil, "it ended with exit status 0 before it answered"},
		"exit 3":        {nil, nil, "it ended before it answered: exit status 3"},
		"goes on":       {nil, []byte("ok"), ""},
		"cut short":     {nil, nil, "its answer is cut short"},
		"other version": {nil, nil, "of version 2, and this is version 1"},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			answer, err := upgrade.Preflight(t.Context(), self, c.question, asAsked+"="+how, "GORACE=atexit_sleep_ms=0")
			as := err == nil && c.err == "" || err != nil && c.err != "" && strings.Contains(err.Error(), c.err)
			if !bytes.Equal(answer, c.answer) || !as {
				t.Errorf("%.100q, %v; want %.100q, %q", answer, err, c.answer, c.err)
			}
		})
	}
	t.Run("describe", func(t *testing.T) {
		answer, err := upgrade.Preflight(t.Context(), self, nil, asAsked+"=describe", "GORACE=atexit_sleep_ms=0")
		path, _ := upgrade.Path()
		want := fmt.Sprintf("%.15s %s <nil> 0 %d ", filepath.Base(os.Args[0]), path, unix.FD_CLOEXEC)
		if !strings.HasPrefix(string(answer), want) || strings.Contains(string(answer), "GOPHERPACK") || err != nil {
			t.Errorf("%q, %v; want it to begin with %q", answer, err, want)
		}
	})
	t.Run("the caller's slice", func(t *testing.T) {
		env := []string{asAsked + "=nothing", "more"}
		if _, err := upgrade.Preflight(t.Context(), self, nil, env[:1]...); err != nil || env[1] != "more" {
			t.Errorf("%q, %v", env, err)
		}
	})
	t.Run("echo of much", func(t *testing.T) {
		much := big[:1<<20]
		answer, err := upgrade.Preflight(t.Context(), self, much, asAsked+"=echo", "GORACE=atexit_sleep_ms=0")
		if !bytes.Equal(answer, much) || err != nil {
			t.Errorf("%d bytes, %v", len(answer), err)
		}
	})
	t.Run("leaves offspring", func(t *testing.T) {
		answer, err := upgrade.Preflight(t.Context(), self, nil, asAsked+"=leaves offspring", "GORACE=atexit_sleep_ms=0")
		if err != nil {
			t.Fatal(err)
		}
		allGone(t, string(answer))
	})
	t.Run("leaves offspring only", func(t *testing.T) {
		file := t.TempDir() + "/report"
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := upgrade.Preflight(t.Context(), self, nil, asAsked+"=leaves offspring only", asReporter+"="+file)
		if err == nil || !strings.Contains(err.Error(), "it ended with exit status 0 before it answered") {
			t.Errorf("%v", err)
		}
		pids, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		allGone(t, string(pids))
	})
}

// allGone waits until processes do not run any more.
func allGone(t *testing.T, pids string) {
	t.Helper()
	for pid := range strings.FieldsSeq(pids) {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			text, _ := os.ReadFile("/proc/" + pid + "/stat")
			_, state, _ := strings.Cut(string(text), ") ")
			if state == "" || state[0] == 'Z' || state[0] == 'X' {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("process %s is still there: %s", pid, text)
			}
		}
	}
}

// TestPreflightGivenUp ends the context of programs that do not answer: they, and what they have started, are gone.
func TestPreflightGivenUp(t *testing.T) {
	self, err := upgrade.RunningImage()
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	for _, how := range []string{"stopping", "stubborn"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		fifo := t.TempDir() + "/report"
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		pids := make(chan string, 1)
		go func() {
			text, err := os.ReadFile(fifo)
			if err != nil {
				t.Error(err)
			}
			pids <- string(text)
			cancel(errors.New("enough"))
		}()
		_, err := upgrade.Preflight(ctx, self, nil, asAsked+"="+how, asReporter+"="+fifo)
		if err == nil || !strings.HasSuffix(err.Error(), ": enough") {
			t.Errorf("%s: %v", how, err)
		}
		allGone(t, <-pids)
	}
}

// writeExecutable writes a script; no child that is started meanwhile may have it open.
func writeExecutable(t *testing.T, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestPreflightOfScript has a script that stays the parent of the program that answers.
func TestPreflightOfScript(t *testing.T) {
	script := t.TempDir() + "/script"
	writeExecutable(t, script, "#!/bin/sh\n"+os.Args[0]+"\nexit $?\n")
	image, err := upgrade.OpenImage(script)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	answer, err := upgrade.Preflight(t.Context(), image, []byte("hello"), asAsked+"=echo")
	if string(answer) != "hello" || err != nil {
		t.Errorf("%q, %v", answer, err)
	}
	if err := os.Rename(script, script+".old"); err != nil {
		t.Fatal(err)
	}
	writeExecutable(t, script, "#!/bin/sh\nexit 3\n")
	if _, err := upgrade.Preflight(t.Context(), image, nil); err == nil || !strings.Contains(err.Error(), "was replaced") {
		t.Errorf("a script that is another: %v", err)
	}
}

// TestPreflightOfNoProgram names what cannot be started.
func TestPreflightOfNoProgram(t *testing.T) {
	path := t.TempDir() + "/program"
	writeExecutable(t, path, "this is not a program")
	image, err := upgrade.OpenImage(path)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	_, err = upgrade.Preflight(t.Context(), image, nil)
	want := "fork/exec " + path + ": exec format error: it is no program for this machine, or not a whole one"
	if !errors.Is(err, syscall.ENOEXEC) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %q", err, want)
	}
	writer, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	_, err = upgrade.Preflight(t.Context(), image, nil)
	want = "fork/exec " + path + ": text file busy: somebody is writing to it"
	if !errors.Is(err, syscall.ETXTBSY) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %q", err, want)
	}
}

// asFewDescriptors makes the test binary a program that holds its own executable open.
const asFewDescriptors = "UPGRADE_TEST_FEW_DESCRIPTORS"

func hold(string) error {
	image, err := upgrade.RunningImage()
	if err != nil {
		fmt.Println(err)
		return nil
	}
	return image.Close()
}

// TestFewDescriptors has a program that may not have as many descriptors as it takes to hold an executable open.
func TestFewDescriptors(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", `ulimit -n 12 && exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), asFewDescriptors+"=1")
	out, err := cmd.CombinedOutput()
	const want = "the limit of open files (ulimit -n) is too low: too many open files"
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v, %q; want %q", err, out, want)
	}
}

// TestImage replaces and removes files that are held.
func TestImage(t *testing.T) {
	test.NotEmulated(t, "the file that it runs is the emulator")
	path := t.TempDir() + "/program"
	write := func(text string) {
		t.Helper()
		writeExecutable(t, path+".new", text)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	i, err := upgrade.OpenImage(path)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	number, err := strconv.Atoi(strings.TrimPrefix(i.Path(), "/proc/self/fd/"))
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	least := 16
	if limit.Cur > 5000 {
		least = 4096 // which a child's other files do not come near to
	}
	if number < least || err != nil || i.Name() != path {
		t.Errorf("image %s at %s", i.Name(), i.Path())
	}
	write("two")
	if text, err := os.ReadFile(i.Path()); string(text) != "one" {
		t.Errorf("after it was replaced: %q, %v", text, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(i.Path()); string(text) != "one" {
		t.Errorf("after it was removed: %q, %v", text, err)
	}
	self, err := upgrade.RunningImage()
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	mine, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if there, err := os.Stat(self.Path()); err != nil || !os.SameFile(mine, there) {
		t.Errorf("the running image is at %s, which is %v, %v", self.Path(), there, err)
	}
	if want, err := upgrade.Path(); err != nil || self.Name() != want {
		t.Errorf("the running image is named %s, want %s, %v", self.Name(), want, err)
	}
}

func TestImageErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/text", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir + "/none": "no such file or directory",
		dir:           "is not a regular file",
		dir + "/text": "may not be executed: its mode is -rw-r--r--",
	} {
		_, err := upgrade.OpenImage(path)
		if err == nil || !strings.HasPrefix(err.Error(), "upgrade: executable: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want an error about %q", path, err, want)
		}
	}
}
