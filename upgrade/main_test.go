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
	programs := map[string]func(string) error{
		asServer: server, asAsked: asked, asPuppet: puppet, asLoop: loop, asScript: script,
		asFewDescriptors: hold,
	}
	for variable, run := range programs {
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
	config := &upgrade.Config{
		InPlace: is("in place"), Path: dir + "/current/server", PIDFile: dir + "/pid",
		ReadyTimeout: time.Hour, MaxDraining: 2,
	}
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
		return u.HandBack(errors.Join(errors.New("no luck"), replaceFile(u)))
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
	if is("closes") && u.Inherited() {
		return errors.Join(u.Close(), u.Ready())
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
		return errors.Join(u.Close(), u.Finish())
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

// replaceFile uses a file that was inherited, and hands on another instead.
func replaceFile(u *upgrade.Upgrader) error {
	f, err := u.File("file")
	if err != nil {
		return err
	}
	defer f.Close()
	return u.AddFile("file", os.Stderr)
}

// notEmulated skips what becomes another program, whose /proc/self/exe is the emulator then.
func notEmulated(t testing.TB) {
	t.Helper()
	test.NotEmulated(t, "after an execve(2) its /proc/self is another's")
}

// running is a server and its successors.
type running struct {
	*program.Test
	t          testing.TB
	cmd        *exec.Cmd // of the first process
	dir        string
	tcp, udp   string
	pid, files int
}

func start(t *testing.T, how ...string) *running {
	t.Helper()
	r := prepareServer(t, how...)
	r.run(asServer + "=" + r.dir)
	return r
}

// prepareServer makes the directory of a server.
func prepareServer(t testing.TB, how ...string) *running {
	t.Helper()
	dir := t.TempDir()
	r := &running{t: t, dir: dir}
	for _, h := range how {
		if h == "in place" {
			notEmulated(t)
		}
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
	r.cmd = exec.Command(dir + "/current/server")
	return r
}

// run starts the first process, and waits until it is up.
func (r *running) run(env ...string) {
	r.t.Helper()
	r.cmd.Env = append(os.Environ(), env...)
	r.Test = program.Run(r.t, r.cmd)
	r.up(0)
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
	r.hasPID()
}

// hasPID looks at the PID file.
func (r *running) hasPID() {
	r.t.Helper()
	if text, err := os.ReadFile(r.dir + "/pid"); string(text) != fmt.Sprintln(r.pid) || err != nil {
		r.t.Errorf("the PID file has %q, %v; want %d", text, err, r.pid)
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
	r.hasPID()
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
	left, err := filepath.Glob(r.dir + "/*pid*")
	hidden, herr := filepath.Glob(r.dir + "/.*")
	sockets, serr := filepath.Glob(r.dir + "/socket")
	if all := slices.Concat(left, hidden, sockets); len(all) > 0 || errors.Join(err, herr, serr) != nil {
		r.t.Errorf("files are left: %v, %v", all, errors.Join(err, herr, serr))
	}
}
