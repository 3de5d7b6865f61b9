//go:build linux

package systemd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/systemd"
)

const (
	site     = "site.service"
	steering = "steering.conf" // is not where it has an effect
	paper    = "/srv/systemd.md"
)

// booted reports whether this is the system that the test wants. If it is not, it boots one, has the test run in there,
// and passes its result on.
func booted(t *testing.T) bool {
	t.Helper()
	if systemd.Inside() {
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(systemd.Journal(site))
			}
		})
		return true
	}
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{server: self}
	units, _ := filepath.Glob("site.*")
	for _, unit := range units {
		files[filepath.Join(systemd.Units, unit)] = unit
	}
	files[filepath.Join(systemd.Units, steering)] = steering
	files[paper] = filepath.Join("..", "..", "..", "docs", "systemd.md")
	systemd.Run(t, "^"+t.Name()+"$", files)
	return false
}

// ctl calls systemctl.
func ctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := systemd.Ctl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// start starts the service, with more settings.
func start(t *testing.T, settings ...string) {
	t.Helper()
	if len(settings) > 0 {
		configure(t, settings...)
	}
	ctl(t, "start", site)
}

// configure has the service have more settings, and none of before.
func configure(t *testing.T, settings ...string) {
	t.Helper()
	text := strings.Join(settings, "\n") + "\n"
	dir := filepath.Join(systemd.Units, site+".d")
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "test.conf"), []byte(text), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	ctl(t, "daemon-reload")
}

func show(property string) string { return systemd.Show(site, property) }

// mainPID returns the PID of the master.
func mainPID() int {
	pid, _ := strconv.Atoi(show("MainPID"))
	return pid
}

// until waits until a condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s; status %q", what, show("StatusText"))
		}
	}
}

// wants compares properties of the service: "Name=value".
func wants(t *testing.T, properties ...string) {
	t.Helper()
	for _, p := range properties {
		name, want, _ := strings.Cut(p, "=")
		if got := show(name); got != want {
			t.Errorf("%s is %q; want %q", name, got, want)
		}
	}
}

// get returns what the server says.
func get(t *testing.T, path string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	r, err := client.Get("http://localhost" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// load loads the server by clients that retry nothing, half of them on kept-alive connections, until end is called,
// which returns what came of each half.
func load() (end func() []*strictclient.Result) {
	ctx, cancel := context.WithCancel(context.Background())
	results := make(chan *strictclient.Result, 2)
	for _, keep := range []bool{true, false} {
		l := strictclient.Load{Network: "tcp", Address: "localhost:80", Clients: 4, KeepAlive: keep, Pause: 2 * time.Millisecond}
		go func() { results <- l.Run(ctx) }()
	}
	return func() []*strictclient.Result {
		cancel()
		return []*strictclient.Result{<-results, <-results}
	}
}

// losesNothing wants all requests to be answered while something is done.
func losesNothing(t *testing.T, do func()) {
	t.Helper()
	end := load()
	do()
	for _, r := range end() {
		if r.Failed() > 0 || r.Requests == 0 {
			t.Errorf("%v", r)
			for _, f := range r.Samples[:min(3, len(r.Samples))] {
				t.Errorf("%s at %v: %v", f.Kind, f.Ended, f.Err)
			}
		}
		t.Log(r)
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// TestStart starts the service. Nothing of what is meant for the master reaches a worker.
func TestStart(t *testing.T) {
	if !booted(t) {
		return
	}
	start(t)
	wants(t, "ActiveState=active", "StatusText=2 workers serve tcp [::]:80", "StatusErrno=0")
	environ := get(t, "/environ")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", "LISTEN_FDS", "LISTEN_PID"} {
		if strings.Contains("\n"+environ, "\n"+name+"=") {
			t.Errorf("a worker has %s: %s", name, environ)
		}
	}
	if !strings.Contains(environ, "INVOCATION_ID=") {
		t.Errorf("a worker has not what is for all processes of the service: %s", environ)
	}
	ctl(t, "stop", site)
	wants(t, "ActiveState=inactive", "Result=success")
	if log := systemd.Warnings(site); log != "" {
		t.Error(log)
	}
}

// TestReload wants a reload to return when the new workers serve, again and again, and clients to notice nothing.
func TestReload(t *testing.T) {
	if !booted(t) {
		return
	}
	start(t)
	pid := mainPID()
	losesNothing(t, func() {
		for range test.Times(5, 20) {
			ctl(t, "reload", site)
			wants(t, "ActiveState=active", "StatusErrno=0", "ReloadResult=success")
		}
	})
	wants(t, fmt.Sprint("MainPID=", pid), "NRestarts=0")

	write(t, held)
	reloaded := make(chan error, 1)
	go func() {
		_, err := systemd.Ctl("reload", site)
		reloaded <- err
	}()
	until(t, "reloading", func() bool {
		return show("ActiveState") == "reloading" && show("StatusText") == "reloading: 0 of 2 new workers serve"
	})
	select {
	case err := <-reloaded:
		t.Fatalf("it has returned before there were new workers: %v", err)
	default:
	}
	remove(t, held)
	if err := <-reloaded; err != nil {
		t.Error(err)
	}
	wants(t, "ActiveState=active", "StatusText=2 workers serve tcp [::]:80")
}

// TestReloadFails has new workers fail: the service goes on, and systemd shows why.
func TestReloadFails(t *testing.T) {
	if !booted(t) {
		return
	}
	start(t)
	write(t, broken)
	losesNothing(t, func() { ctl(t, "reload", site) })
	wants(t, "ActiveState=active", "NRestarts=0", "StatusErrno=125")
	const why = "2 workers serve tcp [::]:80; the last reload failed, the old workers go on: "
	if got := show("StatusText"); !strings.HasPrefix(got, why) || !strings.HasSuffix(got, "the configuration is broken") {
		t.Errorf("%q", got)
	}
	remove(t, broken)
	ctl(t, "reload", site)
	wants(t, "ActiveState=active", "StatusErrno=0", "StatusText=2 workers serve tcp [::]:80")
}

// TestUpgrade has the service become another program, again and again, and clients notice nothing. It goes on to hear of it.
func TestUpgrade(t *testing.T) {
	if !booted(t) {
		return
	}
	start(t)
	pid := mainPID()
	losesNothing(t, func() {
		for i := range test.Times(3, 10) {
			replaceServer(t)
			if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			until(t, "upgraded", func() bool { return strings.Count(systemd.Journal(site), "upgraded") == i+1 })
			until(t, "active", func() bool { return show("ActiveState") == "active" })
		}
	})
	ctl(t, "reload", site)
	wants(t, fmt.Sprint("MainPID=", pid), "NRestarts=0", "StatusText=2 workers serve tcp [::]:80", "StatusErrno=0")
	ctl(t, "stop", site)
	wants(t, "Result=success")
}

// replaceServer puts the program in its place anew.
func replaceServer(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(server)
	if err == nil {
		err = errors.Join(os.WriteFile(server+".new", data, 0o755), os.Rename(server+".new", server))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestStop stops the service, as systemd does, by a signal to each of its processes. Nobody loses a connection that was
// accepted: clients are refused, at last.
func TestStop(t *testing.T) {
	if !booted(t) {
		return
	}
	for range 3 {
		start(t)
		end := load()
		get(t, "/")
		ctl(t, "stop", site)
		for _, r := range end() {
			if refused := r.Failures["connect: connection refused"]; r.Failed() != refused {
				t.Errorf("%v", r)
			}
		}
		wants(t, "Result=success")
	}
}

// TestSlowStop stops the service while it has something to finish that takes longer than systemd would wait.
func TestSlowStop(t *testing.T) {
	if !booted(t) {
		return
	}
	start(t, "[Service]", "TimeoutStopSec=1")
	r, err := http.Get("http://localhost/slow") // its handler has begun
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	stopped := make(chan error, 1)
	go func() {
		_, err := systemd.Ctl("stop", site)
		stopped <- err
	}()
	if text, err := io.ReadAll(r.Body); err != nil || string(text) != "slow\n" {
		t.Errorf("%q, %v", text, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	wants(t, "Result=success")
}

// TestStartFails has the first worker fail: so does the start.
func TestStartFails(t *testing.T) {
	if !booted(t) {
		return
	}
	write(t, broken)
	configure(t, "[Service]", "Restart=no")
	if _, err := systemd.Ctl("start", site); err == nil {
		t.Error("it has started")
	}
	wants(t, "ActiveState=failed", "Result=exit-code")
	if n := strings.Count(systemd.Journal(site), "the configuration is broken"); n != 1 {
		t.Errorf("the log tells why %d times", n)
	}
	remove(t, broken)
	ctl(t, "start", site)
	wants(t, "StatusErrno=0")
}

// TestKilled kills the master. Workers finish what they have, and systemd starts the service anew, with the same
// sockets: no client is refused, and none loses a request but on connections that were kept alive.
func TestKilled(t *testing.T) {
	if !booted(t) {
		return
	}
	start(t)
	wants(t, "NFileDescriptorStore=2")
	end := load()
	for i := range 3 {
		get(t, "/")
		pid := mainPID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, "restarted", func() bool { return show("NRestarts") == strconv.Itoa(i+1) && mainPID() != pid && isUp() })
		wants(t, "StatusErrno=0", "StatusText=2 workers serve tcp [::]:80", "NFileDescriptorStore=2")
	}
	onlyKeptAlive(t, end())
	if n := strings.Count(systemd.Journal(site), "sockets that systemd has kept go on"); n != 3 {
		t.Errorf("sockets went on %d times", n)
	}
	ctl(t, "stop", site)
	wants(t, "NFileDescriptorStore=0")
	if _, err := net.Dial("tcp", "localhost:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the stop: %v", err)
	}
}

// onlyKeptAlive wants no failures but on connections that were kept alive.
func onlyKeptAlive(t *testing.T, results []*strictclient.Result) {
	t.Helper()
	for _, r := range results {
		for _, f := range r.Samples {
			if !strings.HasPrefix(f.Kind, "kept-alive") {
				t.Errorf("%s at %v: %v", f.Kind, f.Ended, f.Err)
			}
		}
		t.Log(r)
	}
}

// TestSocket has systemd listen. The first client starts the service, and no client is refused while it is restarted, is
// killed, or changes.
func TestSocket(t *testing.T) {
	if !booted(t) {
		return
	}
	for _, tt := range []struct {
		name     string
		settings []string
		served   string
	}{
		{"as another user", nil, "a socket of systemd is served by all workers"},
		{"as the same user", []string{"[Service]", "DynamicUser=no"}, "beside it one of each other worker"},
	} {
		before, warned := len(systemd.Journal(site)), len(systemd.Warnings(site))
		configure(t, tt.settings...)
		ctl(t, "start", "site.socket")
		wants(t, "ActiveState=inactive")
		get(t, "/")
		until(t, "up", isUp)
		if log := systemd.Journal(site)[before:]; !strings.Contains(log, tt.served) || !strings.Contains(log, "site.socket") {
			t.Errorf("%s: it does not say %q: %s", tt.name, tt.served, log)
		}
		end := load()
		for range 3 {
			get(t, "/")
			ctl(t, "restart", site)
			ctl(t, "reload", site)
		}
		pid := mainPID()
		replaceServer(t)
		syscall.Kill(pid, syscall.SIGUSR2)
		until(t, "upgraded", func() bool { return strings.Contains(systemd.Journal(site)[before:], "upgraded pid=") })
		ctl(t, "restart", site)
		pid = mainPID()
		syscall.Kill(pid, syscall.SIGKILL)
		until(t, "restarted", func() bool { return show("NRestarts") == "1" && mainPID() != pid && isUp() })
		onlyKeptAlive(t, end())
		ctl(t, "stop", site, "site.socket")
		for line := range strings.Lines(systemd.Warnings(site)[warned:]) {
			if strings.Contains(line, "systemd") {
				t.Errorf("%s: %s", tt.name, line)
			}
		}
	}
}

func isUp() bool { return show("ActiveState") == "active" }

// TestWatchdog has the workers hang, and then the master: systemd starts the service anew. One worker alone that hangs
// is the master's business.
func TestWatchdog(t *testing.T) {
	if !booted(t) {
		return
	}
	start(t, "[Service]", "WatchdogSec=3")
	pid := mainPID()
	stop := func(pids ...int) {
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
	}
	workers := children(pid)
	if len(workers) != 2 {
		t.Fatalf("workers %v", workers)
	}
	stop(workers[0])
	fed := show("WatchdogTimestampMonotonic")
	until(t, "two signs of life", func() bool {
		now := show("WatchdogTimestampMonotonic")
		defer func() { fed = now }()
		return now != fed
	})
	wants(t, "NRestarts=0")
	end := load()
	stop(workers[1])
	until(t, "restarted", func() bool { return show("NRestarts") == "1" && isUp() && mainPID() != pid })
	get(t, "/")
	pid = mainPID()
	stop(pid)
	until(t, "restarted again", func() bool { return show("NRestarts") == "2" && isUp() && mainPID() != pid })
	get(t, "/")
	for _, r := range end() { // systemd kills workers with what they have
		for _, f := range r.Samples {
			if strings.HasPrefix(f.Kind, "connect") {
				t.Errorf("%s at %v: %v", f.Kind, f.Ended, f.Err)
			}
		}
		t.Log(r)
	}
	if log := systemd.Journal(site); strings.Count(log, "Watchdog timeout") != 2 {
		t.Error(log)
	}
}

// children returns the processes that a process has started.
func children(pid int) (all []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for field := range strings.FieldsSeq(string(text)) {
			child, _ := strconv.Atoi(field)
			all = append(all, child)
		}
	}
	return all
}

// TestSteering has connections steered, by the drop-in for that, before the master is killed and afterwards.
func TestSteering(t *testing.T) {
	if !booted(t) {
		return
	}
	text, err := os.ReadFile(filepath.Join(systemd.Units, steering))
	if err != nil {
		t.Fatal(err)
	}
	start(t, string(text), "Environment="+steered+"=1")
	end := load()
	get(t, "/")
	pid := mainPID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "restarted", func() bool { return show("NRestarts") == "1" && mainPID() != pid && isUp() })
	ctl(t, "reload", site)
	get(t, "/")
	onlyKeptAlive(t, end())
	log := systemd.Journal(site)
	if n := strings.Count(log, "steering endpoint=\"tcp :80\" mode=eBPF"); n < 2 || strings.Contains(log, "not steered") {
		t.Errorf("it was steered %d times:\n%s", n, log)
	}
}

// TestJournal has a worker be killed, which is an error in the journal, and nothing else is.
func TestJournal(t *testing.T) {
	if !booted(t) {
		return
	}
	start(t)
	_, worker, _ := strings.Cut(get(t, "/"), " ")
	pid, err := strconv.Atoi(worker)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "replaced", func() bool { return strings.Contains(systemd.Journal(site), "worker ready") })
	ctl(t, "stop", site)
	said := regexp.MustCompile(`^worker failed worker=\d pid=` + worker + ` generation=1 error="signal: killed" .*$`)
	if log := systemd.Warnings(site); !said.MatchString(log) || strings.Contains(log, "\n") {
		t.Errorf("warnings, and worse: %q; want one line, %s", log, said)
	}
	if strings.Contains(systemd.Journal(site), "INFO") {
		t.Errorf("a level is in the text, too: %s", systemd.Journal(site))
	}
	before := len(systemd.Journal(site))
	start(t, "[Service]", "Environment=GOPHERPACK_LOG=json")
	ctl(t, "stop", site)
	if log := systemd.Journal(site)[before:]; !regexp.MustCompile(`{"time":"[^"]*","level":"INFO","msg":"pack is up",`).MatchString(log) {
		t.Errorf("as JSON: %s", log)
	}
}

// TestPaper does literally what the document has readers do.
func TestPaper(t *testing.T) {
	if !booted(t) {
		return
	}
	text, err := os.ReadFile(paper)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "```")
	n := 0
	for i := 1; i < len(parts); i += 2 {
		script, is := strings.CutPrefix(parts[i], "sh\n")
		if !is {
			continue
		}
		n++
		if out, err := exec.Command("sh", "-e", "-x", "-c", script).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		get(t, "/")
	}
	if n < 3 {
		t.Errorf("there are only %d scripts", n)
	}
}

// TestWrongSettings wants one line about each thing that is wrong with a unit.
func TestWrongSettings(t *testing.T) {
	if !booted(t) {
		return
	}
	for want, settings := range map[string][]string{
		"Type=notify-reload":       {"Type=exec", "WatchdogSec=0", "FileDescriptorStoreMax=0"},
		"WatchdogSec= of the unit": {"WatchdogSec=2900ms"},
		"must exec":                {"ExecStart=", "ExecStart=/bin/sh -c '" + server + "; true'", "NotifyAccess=all", "WatchdogSec=0"},
		"watchdog is for process":  {"ExecStart=", "ExecStart=/bin/sh -c 'unset SYSTEMD_EXEC_PID; " + server + "; true'", "NotifyAccess=all"},
	} {
		before, warned := len(systemd.Journal(site)), len(systemd.Warnings(site))
		start(t, append([]string{"[Service]"}, settings...)...)
		until(t, want, func() bool { return strings.Contains(systemd.Journal(site)[before:], "pack is up pid=") })
		ctl(t, "stop", site)
		lines := slices.Collect(strings.Lines(strings.TrimSpace(systemd.Warnings(site)[warned:])))
		if len(lines) != 1 || !strings.Contains(lines[0], want) {
			t.Errorf("%v: %q; want %q", settings, lines, want)
		}
	}
}

// TestWrongSockets wants one line about each socket that is of no use, and about sockets that cannot be had.
func TestWrongSockets(t *testing.T) {
	if !booted(t) {
		return
	}
	for want, tt := range map[string]struct{ socket, service string }{
		"that nobody serves":                    {"ListenStream=81", ""},
		"it is for datagrams":                   {"ListenDatagram=/run/packets.sock", ""},
		"LISTEN_FDS tells of are for process":   {"ListenStream=81", "ExecStart=\nExecStart=/bin/sh -c 'unset SYSTEMD_EXEC_PID WATCHDOG_USEC; " + server + "; true'\nNotifyAccess=all"},
		"listens on 127.0.0.1:80 (more.socket)": {"ListenStream=127.0.0.1:80", ""},
	} {
		before := len(systemd.Journal(site))
		unit := "[Socket]\nService=" + site + "\n" + tt.socket + "\n"
		if err := os.WriteFile(filepath.Join(systemd.Units, "more.socket"), []byte(unit), 0o644); err != nil {
			t.Fatal(err)
		}
		configure(t, "[Unit]", "StartLimitIntervalSec=0", "[Service]", "Restart=no", "Sockets=more.socket", tt.service)
		ctl(t, "start", "more.socket")
		_, err := systemd.Ctl("start", site)
		log := func() string { return systemd.Journal(site)[before:] }
		until(t, want, func() bool { return strings.Contains(log(), want) })
		if fails := strings.Contains(want, ":80"); fails != (err != nil) {
			t.Errorf("%v: %v", tt, err)
		}
		ctl(t, "stop", site, "more.socket")
		if n := strings.Count(log(), want); n != 1 {
			t.Errorf("%v: %q is there %d times: %s", tt, want, n, log())
		}
	}
}

// TestSecurity wants systemd's own judgement of the unit to be OK.
func TestSecurity(t *testing.T) {
	if !booted(t) {
		return
	}
	out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--threshold=49",
		filepath.Join(systemd.Units, site)).CombinedOutput()
	if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); err != nil || !strings.Contains(lines[len(lines)-1], "OK") {
		t.Errorf("%v\n%s", err, out)
	} else {
		t.Log(lines[len(lines)-1])
	}
}
