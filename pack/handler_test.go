//go:build unix

package pack_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/pack"
)

// systemHandlers are those that only some systems have, by path.
var systemHandlers = map[string]http.HandlerFunc{}

// unwell has the probe of httpProgram fail in this process.
var unwell atomic.Bool

var leaked [][]byte

// toldToStop is closed by what httpProgram and httpsProgram have registered for a shutdown, once.
var toldToStop = make(chan struct{})

// handler answers with who it is, and does what the path says.
func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		id, _ := pack.WorkerID()
		cpu, pinned := pack.WorkerCPU()
		fmt.Fprintf(w, "id=%d pid=%d cpu=%d pinned=%v procs=%d", id, os.Getpid(), cpu, pinned, runtime.GOMAXPROCS(0))
	})
	mux.HandleFunc("/proto", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	mux.HandleFunc("/keep", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "keep-alive") // as in many an event stream
		io.WriteString(w, "kept")
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(2 * time.Second)
		io.WriteString(w, "slow")
	})
	mux.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Hour) })
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello\n")
		w.(http.Flusher).Flush()
		select {
		case <-pack.Draining(r.Context()):
			io.WriteString(w, "bye\n")
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/told", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello\n")
		w.(http.Flusher).Flush()
		<-toldToStop
		io.WriteString(w, "bye\n")
	})
	mux.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "begun\n")
		w.(http.Flusher).Flush()
		time.Sleep(2 * time.Second)
		io.WriteString(w, "ended\n")
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		io.WriteString(c, "hello\n")
		<-pack.Draining(r.Context())
		if r.URL.RawQuery == "deaf" {
			time.Sleep(time.Hour)
		}
		time.Sleep(100 * time.Millisecond) // a good-bye takes a moment
		io.WriteString(c, "bye\n")
	})
	mux.HandleFunc("/spin", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "pid=%d \n", os.Getpid())
		w.(http.Flusher).Flush()
		for r.Context().Err() == nil {
		}
	})
	for path, handler := range systemHandlers {
		mux.HandleFunc(path, handler)
	}
	mux.HandleFunc("/unwell", func(w http.ResponseWriter, r *http.Request) { unwell.Store(true) })
	mux.HandleFunc("/burn", func(w http.ResponseWriter, r *http.Request) {
		for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
		}
		io.WriteString(w, "burnt")
	})
	mux.HandleFunc("/user", func(w http.ResponseWriter, r *http.Request) {
		groups, _ := os.Getgroups()
		fmt.Fprintf(w, "uid=%d gid=%d groups=%v", os.Getuid(), os.Getgid(), groups)
		status, _ := os.ReadFile("/proc/self/status")
		_, privileges, _ := strings.Cut(string(status), "NoNewPrivs:\t")
		fmt.Fprintf(w, " HOME=%s USER=%s LOGNAME=%s SHELL=%s",
			os.Getenv("HOME"), os.Getenv("USER"), os.Getenv("LOGNAME"), os.Getenv("SHELL"))
		fmt.Fprintf(w, " no_new_privs=%.1s", privileges)
	})
	mux.HandleFunc("/descriptors", func(w http.ResponseWriter, r *http.Request) {
		out, err := exec.Command("ls", "/proc/self/fd").CombinedOutput()
		fmt.Fprint(w, strings.Fields(string(out)), err)
	})
	mux.HandleFunc("/orphan", func(w http.ResponseWriter, r *http.Request) {
		// The shell ends, and who it started goes to process 1.
		exec.Command("sh", "-c", "sleep 0.1 & echo").Run()
	})
	mux.HandleFunc("/files", func(w http.ResponseWriter, r *http.Request) {
		var l syscall.Rlimit
		syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
		program, _ := exec.Command("sh", "-c", "ulimit -n").Output()
		fmt.Fprintf(w, "%d, programs %s", l.Cur, bytes.TrimSpace(program))
	})
	mux.HandleFunc("/program", func(w http.ResponseWriter, r *http.Request) {
		cmd := exec.Command("sh", "-c", "echo ${GOMAXPROCS-no},${GOMEMLIMIT-no}; grep Cpus_allowed_list /proc/self/status")
		out := new(bytes.Buffer)
		cmd.Env, cmd.Stdout = pack.Environ(), out
		err := affinity.Do(pack.CPUs(), cmd.Start)
		if err == nil {
			err = cmd.Wait()
		}
		fmt.Fprint(w, strings.Fields(out.String()), err)
	})
	mux.HandleFunc("/leak", func(w http.ResponseWriter, r *http.Request) {
		more := make([]byte, 1<<20)
		for i := range more {
			more[i] = 1
		}
		leaked = append(leaked, more)
	})
	mux.HandleFunc("/memory", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, debug.SetMemoryLimit(-1)>>20)
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) {
		for _, e := range os.Environ() {
			if strings.HasPrefix(e, "GOPHERPACK_") || strings.HasPrefix(e, "PROCGROUP_") {
				fmt.Fprintln(w, e)
			}
		}
	})
	return mux
}
