//go:build linux

package pack_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/pack"
	"github.com/gopherpack/gopherpack/upgrade"
)

func init() { programs["versioned"] = versionedProgram }

// tail begins what is written behind the test binary to make different executables of it.
const tail = "\n--version "

// deploy puts an executable in the place of the one at path, as deployments do: in one step. version is what it
// answers, how is what goes wrong with it, by space.
func deploy(t testing.TB, path, version string, how ...string) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	self = append(self, tail+version+" "+strings.Join(how, " ")...)
	if slices.Contains(how, "other architecture") {
		self[18], self[19] = 0xb7^self[18]^0x3e, 0 // e_machine: arm64 instead of amd64, or the other way round
	}
	if slices.Contains(how, "text") {
		self = []byte("this is not a program\n")
	}
	place(t, path, self)
}

func place(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := program.WriteExecutable(path+".new", content); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// ownVersion returns what deploy wrote behind this executable.
func ownVersion() (version, how string) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		panic(err)
	}
	defer f.Close()
	f.Seek(-200, io.SeekEnd)
	end, _ := io.ReadAll(f)
	_, text, _ := bytes.Cut(end, []byte(tail))
	version, how, _ = strings.Cut(string(text), " ")
	return version, how
}

// versionedProgram serves its version, and does what its executable says.
func versionedProgram() error {
	c, address := configFlags()
	successor, state := flag.String("successor", "", ""), flag.String("state", "", "")
	flag.Parse()
	version, how := ownVersion()
	asked, takesOver, working := upgrade.Asked() != nil, upgrade.Inherited() != nil, !pack.IsMaster()
	is := func(what string) bool { return strings.Contains(how, what) }
	srv := &http.Server{Handler: handler()}
	http.HandleFunc("/version", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, version) })
	http.Handle("/", srv.Handler)
	srv.Handler = http.DefaultServeMux
	switch {
	case is("asks"), is("passes on"):
		return passOn(*successor, *state, is("asks"))
	case is("exits"):
		os.Exit(3)
	case is("hangs"):
		time.Sleep(time.Hour)
	case is("no pack"):
		return nil
	case is("killed in preflight") && asked:
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case is("bad configuration") && !working:
		c.Workers = -1
	case is("panics") && working:
		panic("the new version is broken")
	case is("dies in worker 1") && working:
		if id, _ := pack.WorkerID(); id == 1 {
			os.Exit(6)
		}
	case is("sleeps in workers") && working:
		time.Sleep(time.Hour)
	case is("crashes after ready") && working:
		c.OnWorkerStart = func(context.Context) error {
			if id, _ := pack.WorkerID(); id == 1 { // the last to start
				time.AfterFunc(500*time.Millisecond, func() { os.Exit(5) })
			}
			return nil
		}
	case is("bad successor") && takesOver:
		c.OnStart = func(context.Context) error { return errors.New("cannot start the scheduler") }
	case is("wrong when it takes over") && takesOver:
		c.Workers = -1
	}
	if _, n, ok := strings.Cut(how, "workers="); ok {
		c.Workers, _ = strconv.Atoi(strings.Fields(n)[0])
	}
	if _, at, ok := strings.Cut(os.Getenv("PACK_TEST_KILL"), "at "); ok {
		killAt(strings.Fields(at))
	}
	if n, err := strconv.Atoi(os.Getenv("PACK_TEST_FAIL_EXEC")); err == nil {
		pack.FailExec(n)
	}
	c.OnUpgrade = func(context.Context) error {
		if is("does not want to go") {
			return errors.New("not before Friday")
		}
		return nil
	}
	p := pack.New(*c)
	network, addr, _ := strings.Cut(*address, " ")
	p.Handle(network, addr, srv)
	if _, extra, ok := strings.Cut(how, "extra="); ok {
		p.Handle("tcp", strings.Fields(extra)[0], srv)
	}
	return p.Run(context.Background())
}

// passOn asks a program in a preflight, or becomes it, and prints what it answers, or why it hands back.
func passOn(successor, text string, ask bool) error {
	if e := upgrade.Inherited(); e != nil {
		fmt.Println("handed back:", e.Returned)
		return nil
	}
	image, err := upgrade.OpenImage(successor)
	if err != nil {
		return err
	}
	if !ask {
		return upgrade.Become(image, []byte(text), nil, upgrade.Signals{})
	}
	answer, err := upgrade.Preflight(context.Background(), image, []byte(text))
	fmt.Println(string(answer))
	return err
}

// startVersion deploys version 1 of versionedProgram and starts it.
func startVersion(t *testing.T, change func(*exec.Cmd), args ...string) (p *running, path string) {
	t.Helper()
	return startDeployed(t, "versioned", change, append([]string{"-workers=2", "-ready=20s"}, args...)...)
}

// startDeployed deploys version 1 of a program and starts it.
func startDeployed(t *testing.T, name string, change func(*exec.Cmd), args ...string) (p *running, path string) {
	t.Helper()
	path = t.TempDir() + "/server"
	deploy(t, path, "1")
	p = start(t, name, func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args[0] = path, path
		if change != nil {
			change(cmd)
		}
	}, append(args, "-generations=20")...)
	p.Addresses()
	return p, path
}

// answersVersion fails the test unless some requests are answered by a version.
func (p *running) answersVersion(want string) {
	p.t.Helper()
	l := load(p, 4, 5)
	l.Path = "/version"
	if r := l.Run(p.t.Context()); r.Failed() != 0 || r.Bodies[want] != 20 {
		p.t.Errorf("%v, answers %v; want all by version %s", r, r.Bodies, want)
	}
}

// killAt has the master, at a step, kill one of its processes: "master", or "ID.GENERATION"; or tell itself to "stop".
func killAt(words []string) {
	at, whom := words[0], words[1]
	pack.AtStep(func(step string) {
		if step != at {
			return
		}
		switch whom {
		case "master":
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		case "stop":
			syscall.Kill(os.Getpid(), syscall.SIGTERM)
			time.Sleep(100 * time.Millisecond) // until that is dealt with
			return
		}
		id, generation, _ := strings.Cut(whom, ".")
		environs, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, file := range environs {
			env, _ := os.ReadFile(file)
			mark := fmt.Sprintf("GOPHERPACK_IDENTITY=id=%s generation=%s ", id, generation)
			if bytes.Contains(env, []byte(mark)) && bytes.Contains(env, []byte(os.Getenv(program.Mark))) {
				pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
}
