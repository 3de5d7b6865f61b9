//go:build linux

package upgrade_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/leaktest"
	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/upgrade"
)

// asServer makes the test binary a server; its value is a directory, which has the executable, and where it listens.
const asServer = "UPGRADE_TEST_SERVER"

func TestMain(m *testing.M) {
	for variable, run := range map[string]func(string) error{asServer: server, asAsked: asked, asPuppet: puppet, asLoop: loop} {
		if value := os.Getenv(variable); value != "" {
			if err := run(value); err != nil {
				fmt.Fprintln(os.Stderr, "error:", err)
				os.Exit(1)
			}
			return
		}
	}
	test.Parallel("8")
	leaktest.Main(m)
}

// server echoes on TCP and a Unix socket, answers on UDP, and hands on a file and how many there were before it. HUP
// upgrades, TERM stops.
func server(dir string) error {
	is := func(how string) bool { _, err := os.Stat(dir + "/" + how); return err == nil }
	if is("slow") && upgrade.Asked() == nil {
		fmt.Fprintln(os.Stderr, "slow:", os.Getpid())
		for is("slow") {
			time.Sleep(time.Millisecond)
		}
	}
	hangups, stops := make(chan os.Signal, 10), make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	signal.Notify(stops, syscall.SIGTERM)
	if is("exits") {
		os.Exit(3)
	}
	if is("hangs") {
		time.Sleep(time.Hour)
	}
	cwd, _ := os.Getwd()
	config := &upgrade.Config{InPlace: is("in place"), Path: dir + "/current/server", ReadyTimeout: time.Hour, MaxDraining: 2}
	if is("impatient") {
		config.ReadyTimeout = 3 * time.Second
	}
	if is("wrong") && upgrade.Asked() == nil && (upgrade.Inherited() == nil || upgrade.Inherited().Returned == "") {
		config.MaxDraining = -1
	}
	u, err := upgrade.New(config)
	if err != nil || upgrade.Asked() != nil {
		return fmt.Errorf("New: %w", err)
	}
	number, rest, _ := strings.Cut(string(u.State()), "\n")
	n, _ := strconv.Atoi(number)
	if u.Returned() != "" {
		fmt.Fprintln(os.Stderr, "returned:", u.Returned())
	} else if is("refuses") && u.Inherited() {
		return u.HandBack(errors.New("no luck"))
	}
	if is("many") {
		if err := many(u, n, rest); err != nil {
			return u.HandBack(err)
		}
		rest = strings.Repeat("x", sizeOfMuch)
	}
	if is("elsewhere") {
		fmt.Fprintln(os.Stderr, "in:", cwd)
		if err := os.Chdir("/"); err != nil {
			return err
		}
	}
	if is("panics") && u.Inherited() {
		panic("broken")
	}
	ctx := context.Background()
	tcp, err := u.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	unix, err := u.Listen(ctx, "unix", dir+"/socket")
	if err != nil {
		return err
	}
	udp, err := u.ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	f, err := u.File("file")
	if err != nil {
		return err
	}
	if f == nil {
		if f, err = os.CreateTemp(dir, "file"); err != nil {
			return err
		}
		if err := u.AddFile("file", f); err != nil {
			return err
		}
	}
	fmt.Fprintln(f, n)
	u.SetState([]byte(strconv.Itoa(n+1) + "\n" + rest))
	var upgrading sync.Mutex
	var conns sync.WaitGroup
	accepting := func(l net.Listener) {
		conns.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				conns.Go(func() {
					defer c.Close()
					line, err := bufio.NewReader(c).ReadString('\n')
					if err == nil {
						fmt.Fprintf(c, "%d %s", n, line)
					}
				})
			}
		})
	}
	accepting(tcp)
	accepting(unix)
	conns.Go(func() {
		for buf := make([]byte, 100); ; {
			_, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			udp.WriteTo(fmt.Append(nil, n), from)
		}
	})
	if is("never ready") && n > 0 {
		time.Sleep(time.Hour)
	}
	if err := u.Ready(); err != nil {
		return err
	}
	if is("ends at once") && n > 0 {
		return u.Close()
	}
	go func() {
		for range hangups {
			upgrading.Lock()
			if err := u.Upgrade(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "failed:", err)
			}
			upgrading.Unlock()
		}
	}()
	fds, _ := os.ReadDir("/proc/self/fd")
	fmt.Fprintln(os.Stderr, "up:", n, os.Getpid(), len(fds), tcp.Addr(), udp.LocalAddr())
	select {
	case <-u.Done():
	case <-stops:
		if err := u.Close(); err != nil {
			return err
		}
		upgrading.Lock() // until it has said how that ended
	}
	tcp.Close()
	unix.Close()
	udp.SetReadDeadline(time.Unix(1, 0))
	conns.Wait()
	if is("lingers") {
		fmt.Fprintln(os.Stderr, "draining:", n)
	}
	for is("lingers") {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "done:", n)
	return u.Finish()
}

// running is a server and its successors.
type running struct {
	*program.Test
	t          *testing.T
	dir        string
	tcp, udp   string
	pid, files int
}

func start(t *testing.T, how ...string) *running {
	t.Helper()
	dir := t.TempDir()
	r := &running{t: t, dir: dir}
	for _, h := range how {
		r.set(h, true)
	}
	if err := os.Mkdir(dir+"/v1", 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, dir+"/v1/server"); err != nil {
		t.Fatal(err)
	}
	r.link("v1")
	cmd := exec.Command(dir + "/current/server")
	cmd.Env = append(os.Environ(), asServer+"="+dir)
	r.Test = program.Run(t, cmd)
	r.up(0)
	return r
}

func (r *running) set(how string, on bool) {
	r.t.Helper()
	err := os.Remove(r.dir + "/" + how)
	if on {
		err = os.WriteFile(r.dir+"/"+how, nil, 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// link makes "current" lead to a version.
func (r *running) link(version string) {
	r.t.Helper()
	if err := os.Symlink(version, r.dir+"/new"); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(r.dir+"/new", r.dir+"/current"); err != nil {
		r.t.Fatal(err)
	}
}

// next returns the next line that begins with some text.
func (r *running) next(prefix string) string {
	r.t.Helper()
	return strings.TrimSpace(r.Says(regexp.MustCompile("^" + prefix + "(.*)"))[1])
}

func (r *running) up(n int) {
	r.t.Helper()
	var got int
	if _, err := fmt.Sscan(r.next("up:"), &got, &r.pid, &r.files, &r.tcp, &r.udp); err != nil || got != n {
		r.t.Fatalf("number %d is up, %v; want %d", got, err, n)
	}
}

// hangUp asks the process that serves for an upgrade.
func (r *running) hangUp() {
	r.t.Helper()
	if err := syscall.Kill(r.pid, syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
}

// ask has a line echoed and returns who did.
func ask(network, address string) (string, error) {
	c, err := net.Dial(network, address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(c)
	if n, ok := strings.CutSuffix(string(text), " hello\n"); ok {
		return n, nil
	}
	return "", fmt.Errorf("the answer is %q, %w", text, err)
}

// answered waits until number n answers everywhere: its predecessor may still be about to stop accepting.
func (r *running) answered(n int) {
	r.t.Helper()
	want := strconv.Itoa(n)
	for _, where := range [][2]string{{"tcp", r.tcp}, {"unix", r.dir + "/socket"}, {"udp", r.udp}} {
		got, err := "", error(nil)
		for deadline := time.Now().Add(10 * time.Second); got != want && time.Now().Before(deadline); {
			if where[0] == "udp" {
				got, err = askPacket(where[1])
			} else {
				got, err = ask(where[0], where[1])
			}
			if err != nil {
				break
			}
		}
		if got != want || err != nil {
			r.t.Errorf("%s: %q, %v; want %s", where[0], got, err, want)
		}
	}
}

func askPacket(address string) (string, error) {
	c, err := net.Dial("udp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// stop stops the process that serves, and waits until all are gone.
func (r *running) stop() {
	r.t.Helper()
	if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	r.wait()
}

// wait waits until all have ended.
func (r *running) wait() {
	r.t.Helper()
	r.WaitSilent()
	if _, err := os.Stat(r.dir + "/socket"); !errors.Is(err, os.ErrNotExist) {
		r.t.Errorf("the Unix socket is still there: %v", err)
	}
}

// TestUpgrade replaces a server many times, in both ways, while clients that retry nothing connect.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"new process", "in place"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := start(t, how)
			first, files := r.pid, r.files
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var clients sync.WaitGroup
			for _, where := range [][2]string{{"tcp", r.tcp}, {"tcp", r.tcp}, {"unix", r.dir + "/socket"}} {
				clients.Go(func() {
					n := 0
					for ; ctx.Err() == nil; n++ {
						if _, err := ask(where[0], where[1]); err != nil {
							t.Errorf("%s: %v", where[0], err)
							return
						}
						if !test.Full() {
							time.Sleep(2 * time.Millisecond)
						}
					}
					t.Logf("%s: %d answered", where[0], n)
				})
			}
			upgrades := test.Times(5, 20)
			for i := range upgrades {
				r.hangUp()
				r.up(i + 1)
				if (r.pid == first) != (how == "in place") {
					t.Errorf("the process was %d and is %d", first, r.pid)
				}
			}
			cancel()
			clients.Wait()
			r.answered(upgrades)
			// New processes know their predecessors that have not ended, and each has just had clients.
			const known = 2 + 2
			open := 0
			for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.pid))
				if open = len(fds); open <= files+known {
					break
				}
			}
			if open > files+known {
				t.Errorf("%d descriptors are open, %d at first", open, files)
			}
			names, _ := filepath.Glob(r.dir + "/file*")
			if len(names) != 1 {
				t.Fatalf("files %v", names)
			}
			text, _ := os.ReadFile(names[0])
			for i := range upgrades + 1 {
				if got := strings.Fields(string(text))[i]; got != strconv.Itoa(i) {
					t.Errorf("line %d of the file is %q", i, got)
				}
			}
			r.stop()
		})
	}
}

// TestBadSuccessors has the server go on when the executable is no good, and then upgrade to a good one.
func TestBadSuccessors(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"new process", "in place"} {
		for bad, want := range map[string]string{
			"exits":       "exit status 3",
			"hangs":       "not ready within 3s",
			"panics":      "it ended before it was ready: exit status 2",
			"never ready": "not ready within 3s",
			"missing":     "no such file or directory",
			"text":        "exec format error",
			"other":       "ended",
		} {
			if how == "in place" && (bad == "panics" || bad == "never ready") {
				continue // too late
			}
			t.Run(how+", "+bad, func(t *testing.T) {
				t.Parallel()
				r := start(t, how, "impatient")
				switch bad {
				case "missing":
					r.link("v2")
				case "text", "other":
					if err := os.Mkdir(r.dir+"/v2", 0o755); err != nil {
						t.Fatal(err)
					}
					text := map[string]string{"text": "no program\n", "other": "#!/bin/sh\nexit 0\n"}[bad]
					if err := program.WriteExecutable(r.dir+"/v2/server", []byte(text)); err != nil {
						t.Fatal(err)
					}
					r.link("v2")
				default:
					r.set(bad, true)
				}
				if how == "in place" && bad == "other" {
					want = "it ended with exit status 0 before it answered"
				}
				for range 2 {
					r.hangUp()
					if got := r.next("failed:"); !strings.Contains(got, want) || !strings.HasPrefix(got, "upgrade: ") {
						t.Errorf("%q; want something about %q", got, want)
					}
					r.answered(0)
				}
				if slices.Contains([]string{"missing", "text", "other"}, bad) {
					r.link("v1")
				} else {
					r.set(bad, false)
				}
				r.hangUp()
				r.up(1)
				r.answered(1)
				r.stop()
			})
		}
	}
}

// TestPredecessorsLinger upgrades again while predecessors have not ended.
func TestPredecessorsLinger(t *testing.T) {
	t.Parallel()
	r := start(t, "lingers")
	for i := range 3 {
		r.hangUp()
		r.up(i + 1)
	}
	r.hangUp()
	if got, want := r.next("failed:"), "3 predecessors have not ended yet, and MaxDraining is 2"; !strings.Contains(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
	r.answered(3)
	r.set("lingers", false)
	for range 3 {
		r.next("done:")
	}
	for len(r.Processes()) > 1 {
		time.Sleep(time.Millisecond)
	}
	r.hangUp()
	r.up(4)
	r.stop()
}

// TestEndsAtOnce has a successor that is told to stop as soon as it is ready: its predecessor has been replaced all the
// same, and does not serve what was stopped.
func TestEndsAtOnce(t *testing.T) {
	t.Parallel()
	for range test.Times(5, 20) {
		r := start(t, "ends at once")
		r.hangUp()
		r.next("done: 0")
		r.wait()
	}
}

func TestErrors(t *testing.T) {
	defer upgrade.ForgetNew()
	for _, c := range []upgrade.Config{{MaxDraining: -1}, {ReadyTimeout: -1}} {
		if _, err := upgrade.New(&c); err == nil || !strings.Contains(err.Error(), "negative") {
			t.Errorf("a wrong configuration: %v", err)
		}
		upgrade.ForgetNew()
	}
	u, err := upgrade.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := upgrade.New(nil); err == nil || !strings.Contains(err.Error(), "called before") {
		t.Errorf("New again: %v", err)
	}
	if u.Inherited() || u.State() != nil || u.Returned() != "" {
		t.Error("something was inherited")
	}
	if err := u.Upgrade(t.Context()); err == nil || !strings.Contains(err.Error(), "Ready was not called") {
		t.Errorf("before Ready: %v", err)
	}
	if f, err := u.File("nothing"); f != nil || err != nil {
		t.Errorf("a file that nobody added: %v, %v", f, err)
	}
	why := errors.New("why")
	if err := u.HandBack(why); err != why {
		t.Errorf("handed back to nobody: %v", err)
	}
	_, err = u.Listen(t.Context(), "tcp", "256.0.0.1:0")
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		t.Errorf("a wrong address: %v", err)
	}
	l, err := u.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if again, err := u.Listen(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("its address again: %v, %v", again, err)
	}
	if err := u.WaitParent(t.Context()); err != nil {
		t.Errorf("without a predecessor: %v", err)
	}
	if err := u.Ready(); err != nil {
		t.Error(err)
	}
	if err := u.HandBack(why); !errors.Is(err, why) || !strings.Contains(err.Error(), "no way back") {
		t.Errorf("handed back after Ready: %v", err)
	}
	for range 2 {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	}
	<-u.Done()
	_, lerr := u.Listen(t.Context(), "tcp", "127.0.0.1:0")
	_, ferr := u.File("file")
	for what, err := range map[string]error{
		"Upgrade": u.Upgrade(t.Context()), "Listen": lerr, "File": ferr, "AddFile": u.AddFile("file", os.Stdin),
		"SetState": u.SetState(nil), "Ready": u.Ready(),
	} {
		if !errors.Is(err, upgrade.ErrDone) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	if err := u.Finish(); err != nil {
		t.Error(err)
	}
}
