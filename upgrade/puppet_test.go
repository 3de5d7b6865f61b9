//go:build linux

package upgrade_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/upgrade"
)

// asPuppet makes the test binary a puppet, which does what it reads from standard input and says what it is after each
// command.
const asPuppet = "UPGRADE_TEST_PUPPET"

// status is what a puppet is.
type status struct {
	PID, Parent          int
	Comm, Path, Dir, Cwd string
	Args                 []string
	Inherited, Asked     bool
	State                int // bytes
	Files                []string
	Returned, Err        string
	Open                 int   // descriptors
	Passed               []int // of those, which a program that it starts would get
	FileLimit            uint64
	Error                string // of the last command
	Said                 string // by the last command
}

func puppet(string) error {
	e := upgrade.Inherited()
	in := bufio.NewReader(os.Stdin)
	var result, said string
	for {
		s := look(e)
		s.Error, s.Said = result, said
		line, err := json.Marshal(s)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", line)
		command, err := in.ReadString('\n')
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		result, said = "", ""
		if said, err = obey(e, strings.Split(strings.TrimSuffix(command, "\n"), " ")); err != nil {
			result = err.Error()
		}
	}
}

// obey does what a puppet is told.
func obey(e *upgrade.Estate, words []string) (said string, err error) {
	signals := upgrade.Signals{Stop: []os.Signal{syscall.SIGTERM}, Ignore: []os.Signal{syscall.SIGHUP}}
	number := func(i int) int {
		n, err := strconv.Atoi(words[i])
		if err != nil {
			panic(err)
		}
		return n
	}
	switch words[0] {
	case "become": // path, files, bytes of state
		image, err := upgrade.OpenImage(words[1])
		if err != nil {
			return "", err
		}
		defer image.Close()
		files, err := numbered(number(2))
		defer func() {
			for _, f := range files {
				f.Close()
			}
		}()
		if err != nil {
			return "", err
		}
		return "", upgrade.Become(image, bytes.Repeat([]byte("x"), number(3)), files, signals, "ADDED=1")
	case "pass": // a standard file
		image, err := upgrade.RunningImage()
		if err != nil {
			return "", err
		}
		defer image.Close()
		return "", upgrade.Become(image, nil, []*os.File{os.Stderr}, signals)
	case "twice":
		image, err := upgrade.RunningImage()
		if err != nil {
			return "", err
		}
		defer image.Close()
		files, _ := numbered(1)
		defer files[0].Close()
		return "", upgrade.Become(image, nil, []*os.File{files[0], files[0]}, signals)
	case "hand":
		return "", e.HandBack(errors.New(strings.Join(words[1:], " ")), signals)
	case "drop":
		return "", e.Files[number(1)].Close()
	case "shorten":
		e.Files = e.Files[:number(1)]
	case "close":
		e.Close()
		e.Close()
	case "environ":
		return strings.Join(slices.DeleteFunc(upgrade.Environ(), func(v string) bool {
			return !strings.HasPrefix(v, "GOPHERPACK") && !strings.HasPrefix(v, "ADDED") && !strings.HasPrefix(v, asPuppet)
		}), " "), nil
	case "forget": // how it was started
		os.Args = []string{"forgotten"}
		os.Clearenv()
		return "", os.Chdir("/")
	case "run": // another puppet, with an environment
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), words[1:]...)
		out, err := cmd.Output()
		return string(out), err
	case "name":
		if err := os.WriteFile("/proc/self/comm", []byte("7"), 0); err != nil {
			return "", err
		}
		upgrade.NameProcess()
	case "notify":
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	case "ignore":
		signal.Ignore(syscall.SIGHUP)
	case "ignored":
		return fmt.Sprint(disposition(syscall.SIGHUP), " ", disposition(syscall.SIGTERM)), nil
	case "late":
		image, err := upgrade.RunningImage()
		if err != nil {
			return "", err
		}
		defer image.Close()
		signals.Late = func() os.Signal { return syscall.SIGTERM }
		err = upgrade.Become(image, nil, nil, signals)
		if late, ok := errors.AsType[upgrade.LateSignal](err); ok {
			return late.Signal.String(), nil
		}
		return "", err
	default:
		return "", errors.New("an unknown command")
	}
	return "", nil
}

// numbered returns files that hold their number.
func numbered(n int) (files []*os.File, err error) {
	for i := range n {
		fd, err := unix.MemfdCreate("numbered", unix.MFD_CLOEXEC)
		if err != nil {
			return files, err
		}
		f := os.NewFile(uintptr(fd), "numbered")
		files = append(files, f)
		fmt.Fprint(f, i)
	}
	return files, nil
}

func look(e *upgrade.Estate) status {
	comm, _ := os.ReadFile("/proc/self/comm")
	s := status{PID: os.Getpid(), Parent: os.Getppid(), Comm: strings.TrimSpace(string(comm))}
	s.Args, s.Dir = upgrade.Args(), upgrade.Dir()
	s.Path, _ = upgrade.Path()
	s.Asked = upgrade.Asked() != nil
	s.Cwd, _ = unix.Getwd()
	if e != nil {
		s.Inherited, s.State, s.Returned = true, len(e.State), e.Returned
		if e.Err() != nil {
			s.Err = e.Err().Error()
		}
		for _, f := range e.Files {
			text, _ := io.ReadAll(io.NewSectionReader(f, 0, 100))
			s.Files = append(s.Files, string(text))
		}
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		fd, _ := strconv.Atoi(entry.Name())
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			s.Open++
			if flags&unix.FD_CLOEXEC == 0 && fd > 2 {
				s.Passed = append(s.Passed, fd)
			}
		}
	}
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	s.FileLimit = limit.Cur
	return s
}

// disposition returns what /proc says about a signal of this process.
func disposition(s syscall.Signal) string {
	text, _ := os.ReadFile("/proc/self/status")
	for name, word := range map[string]string{"SigIgn": "ignored", "SigCgt": "caught"} {
		_, rest, _ := strings.Cut(string(text), name+":\t")
		mask, _ := strconv.ParseUint(rest[:16], 16, 64)
		if mask&(1<<(s-1)) != 0 {
			return word
		}
	}
	return "default"
}

// stage is a puppet on its strings.
type stage struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	now status
}

// prepare returns a puppet that will be started as dir/current/server, where current leads to v1.
func prepare(t *testing.T) *stage {
	t.Helper()
	notEmulated(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, dir: dir}
	s.install("v1")
	if err := os.Symlink("v1", dir+"/current"); err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(dir+"/current/server", "an argument")
	s.cmd.Env = append(os.Environ(), asPuppet+"=1", "GORACE=atexit_sleep_ms=0")
	s.cmd.Stderr = os.Stderr
	return s
}

// raise starts a puppet.
func raise(t *testing.T, env ...string) *stage {
	t.Helper()
	s := prepare(t)
	s.cmd.Env = append(s.cmd.Env, env...)
	s.start()
	return s
}

func (s *stage) start() {
	s.t.Helper()
	in, err := s.cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.in, s.out = in, bufio.NewReader(out)
	out.(*os.File).SetReadDeadline(time.Now().Add(time.Minute))
	s.t.Cleanup(func() {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	})
	s.read()
}

// install makes an executable of a version.
func (s *stage) install(version string) {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.Mkdir(s.dir+"/"+version, 0o755); err != nil && !os.IsExist(err) {
		s.t.Fatal(err)
	}
	os.Remove(s.dir + "/" + version + "/server")
	if out, err := exec.Command("cp", self, s.dir+"/"+version+"/server").CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
}

func (s *stage) read() {
	s.t.Helper()
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		s.t.Fatalf("the puppet: %v", err)
	}
	s.now = status{}
	if err := json.Unmarshal(line, &s.now); err != nil {
		s.t.Fatalf("%q: %v", line, err)
	}
}

// tell gives a command and waits until it is done.
func (s *stage) tell(format string, args ...any) {
	s.t.Helper()
	if _, err := fmt.Fprintf(s.in, format+"\n", args...); err != nil {
		s.t.Fatal(err)
	}
	s.read()
}

// done is tell of what must not fail.
func (s *stage) done(format string, args ...any) {
	s.t.Helper()
	if s.tell(format, args...); s.now.Error != "" {
		s.t.Fatalf(format+": %s", append(args, s.now.Error)...)
	}
}
