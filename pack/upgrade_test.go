//go:build linux

package pack_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
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

	"github.com/gopherpack/gopherpack/pack"
)

func init() { programs["versioned"] = versionedProgram }

// tail begins what is written behind the test binary to make different executables of it.
const tail = "\n--version "

// deploy puts an executable in the place of the one at path, as deployments do: in one step. version is what it answers,
// how is what goes wrong with it, by space.
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
	syscall.ForkLock.RLock() // a child that has the descriptor would make the file busy
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path+".new", content, 0o755); err != nil {
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
	accepts := flag.String("accepts", "", "")
	flag.Parse()
	version, how := ownVersion()
	_, rehearsing := os.LookupEnv("GOPHERPACK_REHEARSAL")
	_, succeeding := os.LookupEnv("GOPHERPACK_SUCCESSION")
	_, working := os.LookupEnv("GOPHERPACK_IDENTITY")
	is := func(what string) bool { return strings.Contains(how, what) }
	srv := &http.Server{Handler: handler()}
	http.HandleFunc("/version", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, version) })
	http.Handle("/", srv.Handler)
	srv.Handler = http.DefaultServeMux
	srv.ConnState = acceptLog(*accepts)
	switch {
	case is("prints what it inherits"):
		fmt.Println(os.Getenv("GOPHERPACK_SUCCESSION"))
		os.Exit(0)
	case is("exits"):
		os.Exit(3)
	case is("hangs"):
		time.Sleep(time.Hour)
	case is("no pack"):
		return nil
	case is("killed in rehearsal") && rehearsing:
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case is("bad configuration") && !working:
		c.Workers = -1
	case is("panics") && working:
		panic("the new version is broken")
	case is("dies in worker 1") && working:
		if id, _ := pack.WorkerID(); id == 1 {
			os.Exit(6)
		}
	case is("hangs in workers") && working, is("sleeps in workers") && working:
		time.Sleep(time.Hour)
	case is("crashes after ready") && working:
		c.OnWorkerStart = func(context.Context) error {
			if id, _ := pack.WorkerID(); id == 1 { // the last to start
				time.AfterFunc(500*time.Millisecond, func() { os.Exit(5) })
			}
			return nil
		}
	case is("bad successor") && succeeding:
		c.OnStart = func(context.Context) error { return errors.New("cannot start the scheduler") }
	case is("wrong when it succeeds") && succeeding:
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

// startVersion deploys version 1 and starts it.
func startVersion(t *testing.T, change func(*exec.Cmd), args ...string) (p *program, path string) {
	t.Helper()
	path = t.TempDir() + "/server"
	deploy(t, path, "1")
	p = start(t, "versioned", func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args[0] = path, path
		if change != nil {
			change(cmd)
		}
	}, append([]string{"-workers=2", "-ready=2s", "-generations=20"}, args...)...)
	p.address()
	return p, path
}

// answersVersion fails the test unless some requests are answered by a version.
func (p *program) answersVersion(want string) {
	p.t.Helper()
	l := load(p, 4, 5)
	l.Path = "/version"
	if r := l.Run(p.t.Context()); r.Failed() != 0 || r.Bodies[want] != 20 {
		p.t.Errorf("%v, answers %v; want all by version %s", r, r.Bodies, want)
	}
}

// TestBadExecutables tries to upgrade to executables that are no good in various ways. The old one must go on, nobody
// who retries nothing may notice, and the log must say why.
func TestBadExecutables(t *testing.T) {
	for how, want := range map[string]string{
		"exits":                   "the new executable does not do as a master: exit status 3",
		"hangs":                   "the new executable does not do as a master: no answer within 2s",
		"no pack":                 "it ended, with exit status 0, without having called Run",
		"killed in rehearsal":     "the new executable does not do as a master: signal: killed",
		"bad configuration":       "the new executable will not be the master: the number of workers is negative: -1",
		"panics":                  "a worker failed before it was ready: exit status 2",
		"sleeps in workers":       "a worker failed before it was ready: killed: not ready within 2s",
		"crashes after ready":     "a new worker failed within 2s of being ready: exit status 5",
		"bad successor":           "OnStart: cannot start the scheduler",
		"wrong when it succeeds":  "the number of workers is negative: -1",
		"text":                    "exec format error",
		"other architecture":      "exec format error",
		"missing":                 "server: no such file or directory",
		"a directory":             "is not a regular file",
		"may not be executed":     "may not be executed: its mode is -rw-r--r--",
		"replaced twice":          "the new executable does not do as a master: exit status 3",
		"a script without a pack": "it ended, with exit status 0, without having called Run",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p, path := startVersion(t, nil, "-canary=2s")
			master := p.cmd.Process.Pid
			kept := load(p, 4, 0)
			kept.KeepAlive, kept.Pause = true, 10*time.Millisecond
			loads := []*underLoad{apply(t, kept)}
			if how != "crashes after ready" { // it takes along what it has accepted
				loads = append(loads, apply(t, load(p, 2, 0)))
			}
			for _, u := range loads {
				u.until(&u.answered, 20)
			}
			deployBad(t, path, how)
			p.signal(syscall.SIGUSR2)
			failed := p.logged(1, "upgrade failed, the old workers go on", "upgrade failed, the old executable and workers go on")
			if !strings.Contains(fmt.Sprint(failed["error"]), want) {
				t.Errorf("%v; want an error about %q", failed, want)
			}
			p.hasWorkers(2)
			p.answersVersion("1")
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			deploy(t, path, "2")
			p.signal(syscall.SIGUSR2)
			p.logged(1, "upgraded")
			p.hasWorkers(2)
			p.answersVersion("2")
			for i, u := range loads {
				r := u.finish()
				if r.Failed() != 0 || i == 0 && r.Conns != kept.Clients {
					t.Errorf("%v, %v", r, r.Samples[:min(3, len(r.Samples))])
				}
			}
			p.parents(master)
			p.stop()
		})
	}
}

// deployBad puts something in the place of the executable at path.
func deployBad(t *testing.T, path, how string) {
	t.Helper()
	switch how {
	case "missing", "a directory":
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if how == "a directory" {
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	case "may not be executed":
		deploy(t, path, "bad")
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	case "replaced twice":
		deploy(t, path, "good")
		deploy(t, path, "bad", "exits")
	case "a script without a pack":
		place(t, path, []byte("#!/bin/sh\nexit 0\n"))
	default:
		deploy(t, path, "bad", how)
	}
}

// hasWorkers waits until there are n workers, of one generation, and no others: while one is missing, a worker of the generation
// before may go on.
func (p *program) hasWorkers(n int) {
	p.t.Helper()
	complete := func() bool {
		ids, generations := map[int]bool{}, map[int]bool{}
		all := p.identities()
		for _, is := range all {
			ids[is.id], generations[is.generation] = true, true
		}
		return len(all) == n && len(ids) == n && len(generations) == 1
	}
	for deadline := time.Now().Add(20 * time.Second); !complete(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("there are workers %v; want %d of one generation", p.identities(), n)
		}
	}
}

// parents fails the test unless every worker is a child of the master.
func (p *program) parents(master int) {
	p.t.Helper()
	for _, pid := range p.workers() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has just ended
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if fields[1] != strconv.Itoa(master) {
			p.t.Errorf("the parent of worker %d is %s, the master is %d", pid, fields[1], master)
		}
	}
}

// killAt has the master, at a step, kill one of its processes: "master", or "ID.GENERATION".
func killAt(words []string) {
	at, whom := words[0], words[1]
	pack.AtStep(func(step string) {
		if step != at {
			return
		}
		if whom == "master" {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		id, generation, _ := strings.Cut(whom, ".")
		environs, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, file := range environs {
			env, _ := os.ReadFile(file)
			mark := fmt.Sprintf("GOPHERPACK_IDENTITY=id=%s generation=%s ", id, generation)
			if bytes.Contains(env, []byte(mark)) && bytes.Contains(env, []byte(os.Getenv(asProgram))) {
				pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
}

// TestKillDuringUpgrade kills some process at each step of an upgrade.
func TestKillDuringUpgrade(t *testing.T) {
	for _, step := range []string{"rehearse", "launched", "ready", "freeze", "exec", "succeed", "adopted", "replaced"} {
		for _, whom := range []string{"0.1", "1.1", "0.2", "1.2", "master"} {
			if step == "rehearse" && strings.HasSuffix(whom, ".2") {
				continue // it is not there yet
			}
			t.Run(step+" "+whom, func(t *testing.T) {
				t.Parallel()
				killDuringUpgrade(t, step, whom, 2, "-canary=100ms")
			})
		}
	}
}

// killDuringUpgrade kills one process at a step of an upgrade. Either version goes on then, and the next upgrade works.
func killDuringUpgrade(t *testing.T, step, whom string, workers int, args ...string) {
	t.Helper()
	p, path := startVersion(t, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "PACK_TEST_KILL=at "+step+" "+whom)
	}, append(args, "-workers="+strconv.Itoa(workers))...)
	deploy(t, path, "2")
	p.signal(syscall.SIGUSR2)
	if whom == "master" {
		p.wait(20 * time.Second)
		return // and nobody may be left, says the clean-up
	}
	version, upgrades := "1", 0
	if p.logged(1, "upgraded", "upgrade failed, the old workers go on").msg() == "upgraded" {
		version, upgrades = "2", 1
	}
	p.hasWorkers(workers)
	p.answersVersion(version)
	deploy(t, path, "3")
	p.signal(syscall.SIGUSR2)
	p.logged(upgrades+1, "upgraded")
	p.hasWorkers(workers)
	p.answersVersion("3")
	p.stop()
}

// upkeep is what a process costs.
type upkeep struct{ descriptors, threads, children, kilobytes int }

func (p *program) upkeep() (u upkeep) {
	p.t.Helper()
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	fds, err := os.ReadDir(dir + "fd")
	if err != nil {
		p.t.Fatal(err)
	}
	tasks, _ := filepath.Glob(dir + "task/*/children")
	u.descriptors, u.threads = len(fds), len(tasks)
	for _, file := range tasks {
		text, _ := os.ReadFile(file)
		u.children += len(strings.Fields(string(text)))
	}
	status, _ := os.ReadFile(dir + "status")
	_, rss, _ := strings.Cut(string(status), "VmRSS:")
	fmt.Sscan(rss, &u.kilobytes)
	return u
}

// TestUpgradesCostNothing upgrades many times and looks at the master before and after.
func TestUpgradesCostNothing(t *testing.T) {
	p, path := startVersion(t, nil)
	master := p.cmd.Process.Pid
	upgrade := func(i int) {
		deploy(t, path, strconv.Itoa(i+1))
		p.signal(syscall.SIGUSR2)
		if pid := p.logged(i, "upgraded")["pid"]; pid != float64(master) {
			t.Errorf("the master is %v, was %d", pid, master)
		}
		p.logged(i, "generation has drained")
		p.hasWorkers(2)
		p.parents(master)
	}
	upgrade(1)
	before := p.upkeep()
	const upgrades = 21
	for i := 2; i <= upgrades; i++ {
		upgrade(i)
	}
	after := p.upkeep()
	// What the last upgrade, or a look at /proc, has open for a moment is no cost.
	for deadline := time.Now().Add(10 * time.Second); after.descriptors != before.descriptors && time.Now().Before(deadline); after = p.upkeep() {
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("after the first upgrade %+v, after %d %+v", before, upgrades, after)
	if after.descriptors != before.descriptors || after.children != 2 || after.threads > before.threads+5 {
		t.Errorf("after the first upgrade %+v, after %d %+v", before, upgrades, after)
	}
	if after.kilobytes > before.kilobytes*3/2 {
		t.Errorf("memory has grown from %d to %d KiB", before.kilobytes, after.kilobytes)
	}
	p.answersVersion(strconv.Itoa(upgrades + 1))
	p.stop()
}

// TestManyWishes asks for ten upgrades and some reloads at once. Those that come while one is in progress are refused.
func TestManyWishes(t *testing.T) {
	p, path := startVersion(t, nil, "-canary=300ms")
	u := apply(t, load(p, 4, 0))
	deploy(t, path, "2")
	for range 10 {
		p.signal(syscall.SIGUSR2)
		p.signal(syscall.SIGHUP)
	}
	p.logged(1, "upgraded", "reloaded")
	p.logged(1, "upgrade refused", "reload refused")
	if r := u.finish(); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.hasWorkers(2)
	p.signal(syscall.SIGUSR2)
	p.logged(1, "upgraded")
	p.hasWorkers(2)
	p.answersVersion("2")
	p.stop()
}

// TestChangesExcludeEachOther has a reload during an upgrade refused, and so must an upgrade during a reload.
func TestChangesExcludeEachOther(t *testing.T) {
	p, path := startVersion(t, nil, "-canary=300ms")
	deploy(t, path, "2")
	p.signal(syscall.SIGUSR2)
	p.logged(1, "upgrading")
	p.signal(syscall.SIGHUP)
	p.logged(1, "reload refused")
	p.logged(1, "upgraded")
	p.signal(syscall.SIGHUP)
	p.logged(1, "reloading")
	p.signal(syscall.SIGUSR2)
	p.logged(1, "upgrade refused")
	p.logged(1, "reloaded")
	p.hasWorkers(2)
	p.answersVersion("2")
	p.stop()
}

// TestStopDuringUpgrade stops a pack at many moments of an upgrade. Nobody who retries nothing may be reset.
func TestStopDuringUpgrade(t *testing.T) {
	for i := range 36 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			p, path := startVersion(t, nil, "-canary=30ms", fmt.Sprintf("-rolling=%v", i%3 == 2))
			deploy(t, path, "2")
			u := apply(t, load(p, 2, 0))
			u.until(&u.answered, 10)
			p.signal(syscall.SIGUSR2)
			timer := time.NewTimer(time.Duration(i) * 8 * time.Millisecond)
			<-timer.C
			p.signal(syscall.SIGTERM)
			// While one program takes the place of the other, the signal ends the process at once; then the workers stop by
			// themselves.
			p.until("the end of the master", 20*time.Second, func() bool { return p.ended })
			status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
			if status.ExitStatus() != 0 && status.Signal() != syscall.SIGTERM {
				t.Errorf("%v", p.err)
			}
			p.until("the end of the log", 20*time.Second, func() bool { return p.silent })
			const late = "connect: connection refused"
			if r := u.finish(); r.Failed() != r.Failures[late] && os.Geteuid() == 0 {
				t.Errorf("%v; want no failure but %q", r, late)
			}
		})
	}
}

// TestExecFails has the kernel refuse, in the last moment, to make another program of the master.
func TestExecFails(t *testing.T) {
	p, path := startVersion(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "PACK_TEST_FAIL_EXEC=3") })
	deploy(t, path, "2")
	kept := load(p, 4, 0)
	kept.KeepAlive, kept.Pause = true, 5*time.Millisecond
	keeping, connecting := apply(t, kept), apply(t, load(p, 4, 0))
	before := p.upkeep()
	for i := range 3 {
		p.signal(syscall.SIGUSR2)
		failed := p.logged(i+1, "upgrade failed, the old workers go on")
		if failed["error"] != "no memory for another program" {
			t.Errorf("%v", failed)
		}
		p.hasWorkers(2)
		p.parents(p.cmd.Process.Pid)
	}
	p.answersVersion("1")
	after := p.upkeep()
	if after.descriptors > before.descriptors+2 { // what the master needs to read the environment of workers comes and goes
		t.Errorf("before %+v, after %+v", before, after)
	}
	p.signal(syscall.SIGHUP)
	p.logged(1, "reloaded")
	p.signal(syscall.SIGUSR2)
	p.logged(1, "upgraded")
	p.hasWorkers(2)
	p.answersVersion("2")
	for _, u := range []*underLoad{keeping, connecting} {
		if r := u.finish(); r.Failed() != 0 || u == keeping && r.Conns != kept.Clients {
			t.Errorf("%v", r)
		}
	}
	p.stop()
}

// TestCrashAfterUpgrade kills a worker after an upgrade: the new master must start the new executable in its place.
func TestCrashAfterUpgrade(t *testing.T) {
	p, path := startVersion(t, nil)
	deploy(t, path, "2")
	p.signal(syscall.SIGUSR2)
	p.logged(1, "upgraded")
	p.hasWorkers(2)
	for i, pid := range p.workers() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.logged(i+1, "worker ready")
	}
	p.answersVersion("2")
	p.stop()
}

// TestWorkersChangeWithUpgrade upgrades to executables that want more workers, and fewer.
func TestWorkersChangeWithUpgrade(t *testing.T) {
	for _, rolling := range []string{"-rolling=false", "-rolling"} {
		t.Run(rolling, func(t *testing.T) {
			t.Parallel()
			workersChangeWithUpgrade(t, rolling)
		})
	}
}

func workersChangeWithUpgrade(t *testing.T, rolling string) {
	p, path := startVersion(t, nil, "-workers=4", rolling)
	kept := load(p, 8, 0)
	kept.KeepAlive, kept.Pause = true, 5*time.Millisecond
	keeping, connecting := apply(t, kept), apply(t, load(p, 8, 0))
	for i, n := range []int{2, 5, 1, 3, 3, 1, 4} {
		version := strconv.Itoa(i + 2)
		deploy(t, path, version, fmt.Sprintf("workers=%d", n))
		connecting.until(&connecting.answered, connecting.answered.Load()+200)
		p.signal(syscall.SIGUSR2)
		if r := p.logged(i+1, "upgraded"); r["workers"] != float64(n) {
			t.Errorf("%v; want %d workers", r, n)
		}
		p.hasWorkers(n)
		p.answersVersion(version)
		p.hasSockets(n)
	}
	deploy(t, path, "bad", "workers=6 panics")
	p.signal(syscall.SIGUSR2)
	p.logged(1, "upgrade failed, the old workers go on")
	p.hasWorkers(4)
	p.hasSockets(4)
	p.answersVersion("8")
	for _, u := range []*underLoad{keeping, connecting} {
		r := u.finish()
		if t.Log(r); failedScaling(r) != 0 || u == keeping && r.Conns != kept.Clients {
			t.Errorf("%v, %v", r, r.Samples[:min(3, len(r.Samples))])
		}
	}
	p.stop()
}

// hasSockets waits until the pack has n listening sockets.
func (p *program) hasSockets(n int) {
	p.t.Helper()
	_, port, _ := strings.Cut(p.address(), ":")
	number, _ := strconv.Atoi(port)
	count := func() (got int) {
		f, err := os.Open("/proc/net/tcp")
		if err != nil {
			p.t.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan(); lines.Scan(); {
			field := strings.Fields(lines.Text())
			if field[3] != "0A" {
				break // listening sockets come first
			}
			if strings.HasSuffix(field[1], fmt.Sprintf(":%04X", number)) {
				got++
			}
		}
		return got
	}
	for deadline := time.Now().Add(20 * time.Second); count() != n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("%d listening sockets; want %d", count(), n)
		}
	}
}

// TestUpgradeOtherServices upgrades packs that serve other things than plaintext HTTP over TCP.
func TestUpgradeOtherServices(t *testing.T) {
	t.Run("several", func(t *testing.T) {
		t.Parallel()
		p := start(t, "many", nil, "-address="+t.TempDir()+"/socket")
		before := p.addresses()
		p.signal(syscall.SIGUSR2)
		if after := p.listeningOn("upgraded"); !slices.Equal(after, before) {
			t.Errorf("listening on %v, before on %v", after, before)
		}
		p.stop()
	})
	t.Run("lazy", func(t *testing.T) {
		t.Parallel()
		p := start(t, "lazy", nil)
		before := p.addresses()
		u := apply(t, load(p, 4, 0))
		p.changes(u, syscall.SIGUSR2, syscall.SIGUSR2, syscall.SIGUSR2)
		if after := p.listeningOn("upgraded"); !slices.Equal(after, before) {
			t.Errorf("listening on %v, before on %v", after, before)
		}
		if r := u.finish(); r.Failed() != 0 {
			t.Errorf("%v", r)
		}
		p.stop()
	})
}

// TestUnknownVersions starts the program as a master of another version would.
func TestUnknownVersions(t *testing.T) {
	for words, want := range map[string]string{
		"version=99 protocol=1": "it takes over a state of version 1, and this is version 99",
		"version=1 protocol=99": "it speaks version 1 of the protocol with workers, and these speak 99",
	} {
		ours, theirs, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.ExtraFiles = []*os.File{theirs}
		cmd.Env = append(os.Environ(), asProgram+"=versioned", "GORACE=atexit_sleep_ms=0",
			fmt.Sprintf("GOPHERPACK_REHEARSAL=fd=3 parent=%d %s", os.Getpid(), words))
		err = cmd.Run()
		theirs.Close()
		answer, _ := io.ReadAll(ours)
		ours.Close()
		if err != nil || !strings.Contains(string(answer), want) {
			t.Errorf("%s: %v, %q; want %q", words, err, answer, want)
		}
	}

	// One that takes over what it does not understand becomes its predecessor again.
	previous := t.TempDir() + "/previous"
	deploy(t, previous, "0", "prints what it inherits")
	exe, err := os.Open(previous)
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	for content, want := range map[string]string{
		"version=99 {}": "the state is of version 99, this program knows version 1",
		"version=1 {":   "the state: unexpected end of JSON input",
		"version=1 {}":  "the state: there is no generation 0",
		`version=1 {"generations": [{"lifelines": {"0": 9}}]}`: "the state: generation 0 has no members",
	} {
		version, text, _ := strings.Cut(content, " ")
		state, err := os.CreateTemp(t.TempDir(), "state")
		if err != nil {
			t.Fatal(err)
		}
		defer state.Close()
		if _, err := state.WriteString(text); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", `GOPHERPACK_SUCCESSION="$2 pid=$$ fd=3 previous=4" exec "$1"`, "sh", os.Args[0], version)
		cmd.ExtraFiles = []*os.File{state, exe}
		cmd.Env = append(os.Environ(), asProgram+"=versioned", "GORACE=atexit_sleep_ms=0")
		out, err := cmd.Output()
		if err != nil || !strings.Contains(string(out), " returned="+want) {
			t.Errorf("%s: %v, %q; want it to be given back because of %q", content, err, out, want)
		}
	}
}

// TestEndpointsChangeWithUpgrade upgrades to an executable that serves one address more, and back.
func TestEndpointsChangeWithUpgrade(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("keeping new connections out needs CAP_NET_ADMIN")
	}
	for rolling, times := range map[string]int{"-rolling=false": 3, "-rolling": 2} {
		t.Run(rolling, func(t *testing.T) {
			t.Parallel()
			endpointsChangeWithUpgrade(t, times, rolling)
		})
	}
}

func endpointsChangeWithUpgrade(t *testing.T, times int, rolling string) {
	p, path := startVersion(t, nil, "-drain=1s", "-workers=3", rolling)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	extra := l.Addr().String()
	main := apply(t, load(p, 4, 0))
	// As long as somebody else has the address, the upgrade cannot be.
	deploy(t, path, "2", "extra="+extra)
	p.signal(syscall.SIGUSR2)
	if failed := p.logged(1, "upgrade failed, the old workers go on"); !strings.Contains(fmt.Sprint(failed["error"]), "address already in use") {
		t.Errorf("%v", failed)
	}
	l.Close()
	for i := range times {
		deploy(t, path, "2", "extra="+extra)
		p.signal(syscall.SIGUSR2)
		p.logged(2*i+1, "upgraded")
		u, kept := apply(t, loadOn("tcp", extra, 8, 0)), loadOn("tcp", extra, 8, 0)
		kept.KeepAlive, kept.Pause = true, time.Millisecond
		keeping := apply(t, kept)
		u.until(&u.answered, 100)
		keeping.until(&keeping.answered, 100)
		deploy(t, path, "3")
		p.signal(syscall.SIGUSR2)
		p.logged(2*i+2, "upgraded")
		for c, err := net.Dial("tcp", extra); err == nil; c, err = net.Dial("tcp", extra) {
			c.Close()
		}
		const late = "connect: connection refused"
		for _, u := range []*underLoad{u, keeping} {
			if r := u.finish(); r.Failed() != r.Failures[late] {
				t.Errorf("%v; want no failure but %q", r, late)
			}
		}
	}
	if r := main.finish(); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.stop()
}

// TestUpgradeAsProcess1 upgrades the first process of a PID namespace, as in a container.
func TestUpgradeAsProcess1(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a PID namespace needs CAP_SYS_ADMIN")
	}
	p, path := startVersion(t, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	})
	if pid := p.logged(1, "pack is up")["pid"]; pid != 1.0 {
		t.Fatalf("the master is process %v", pid)
	}
	u := apply(t, load(p, 4, 0))
	for i := range 3 {
		version := strconv.Itoa(i + 2)
		deploy(t, path, version)
		p.signal(syscall.SIGUSR2)
		if pid := p.logged(i+1, "upgraded")["pid"]; pid != 1.0 {
			t.Errorf("the master is process %v", pid)
		}
		p.hasWorkers(2)
		p.answersVersion(version)
	}
	if r := u.finish(); r.Failed() != 0 {
		t.Errorf("%v", r)
	}
	p.stop()
}

// TestOnUpgrade has the hook call an upgrade off.
func TestOnUpgrade(t *testing.T) {
	p, path := startVersion(t, nil)
	deploy(t, path, "2", "does not want to go")
	p.signal(syscall.SIGUSR2)
	p.logged(1, "upgraded")
	p.signal(syscall.SIGUSR2)
	if failed := p.logged(1, "upgrade failed, the old workers go on"); failed["error"] != "OnUpgrade: not before Friday" {
		t.Errorf("%v", failed)
	}
	p.hasWorkers(2)
	p.answersVersion("2")
	p.stop()
	err := pack.New(pack.Config{}).Upgrade(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does not run a pack") {
		t.Errorf("outside a running pack: %v", err)
	}
}

// TestDeployByLink turns a symbolic link to another version, with a relative path to the executable.
func TestDeployByLink(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"1", "2"} {
		if err := os.Mkdir(dir+"/v"+version, 0o755); err != nil {
			t.Fatal(err)
		}
		deploy(t, dir+"/v"+version+"/server", version)
	}
	link := func(version string) {
		t.Helper()
		if err := os.Symlink("v"+version, dir+"/new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+"/new", dir+"/current"); err != nil {
			t.Fatal(err)
		}
	}
	link("1")
	p := start(t, "versioned", func(cmd *exec.Cmd) {
		cmd.Dir, cmd.Path, cmd.Args[0] = dir, "current/server", "current/server"
	}, "-workers=2")
	p.addresses()
	for i, version := range []string{"2", "1"} {
		link(version)
		p.signal(syscall.SIGUSR2)
		p.logged(i+1, "upgraded")
		p.hasWorkers(2)
		p.answersVersion(version)
	}
	p.stop()
}
