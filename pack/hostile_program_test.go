//go:build linux

package pack_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/fdmsg"
	"github.com/gopherpack/gopherpack/pack"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

func init() { programs["hostile"] = hostileProgram }

// hostileID is the worker that has been taken over by an attacker.
const hostileID = 1

// hostileProgram serves as any other, but for one worker. That attacks its master when a client asks for it, and, if
// files of these names are in -orders, when it is about to start, or drains: as they say.
func hostileProgram() error {
	c, address := configFlags()
	orders := flag.String("orders", "", "")
	flag.Parse()
	id, isWorker := pack.WorkerID()
	hostile := isWorker && id == hostileID
	order := func(when string) {
		if name, err := os.ReadFile(*orders + "/" + when); err == nil && hostile {
			attack(string(name), *orders)
		}
	}
	c.OnWorkerStart = func(context.Context) error {
		order("start")
		return nil
	}
	c.OnShutdown = func(context.Context) { order("drain") }
	mux := http.NewServeMux()
	mux.Handle("/", handler())
	mux.HandleFunc("/attack", func(w http.ResponseWriter, r *http.Request) {
		if !hostile {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", "5")
		io.WriteString(w, "begun")
		http.NewResponseController(w).Flush() // who asks has an answer before this worker is killed
		go attack(r.URL.Query().Get("by"), *orders)
	})
	return serve(c, *address, &http.Server{Handler: mux})
}

// attack attacks the master in the way that is called so.
func attack(name, dir string) {
	c, err := controlSocket()
	if err != nil {
		panic(err)
	}
	attacks[name](wire.NewConn(c), dir)
}

// controlSocket returns a copy of this worker's control socket.
func controlSocket() (*net.UnixConn, error) {
	all := controlDescriptors()
	if len(all) == 0 {
		return nil, errors.New("there is no control socket")
	}
	again, err := unix.FcntlInt(uintptr(all[0]), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again), "control")
	defer f.Close()
	return fdmsg.Conn(f)
}

// controlDescriptors returns the descriptors of sockets of which the other end is the master's.
func controlDescriptors() (all []int) {
	for _, fd := range ownDescriptors() {
		peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil && int(peer.Pid) == os.Getppid() {
			all = append(all, fd)
		}
	}
	return all
}

func ownDescriptors() (all []int) {
	names, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range names {
		if fd, err := strconv.Atoi(filepath.Base(name)); err == nil {
			all = append(all, fd)
		}
	}
	return all
}

// listening returns this worker's listening sockets.
func listening() (all []int) {
	for _, fd := range ownDescriptors() {
		if yes, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && yes != 0 {
			all = append(all, fd)
		}
	}
	return all
}

var kept struct {
	sync.Mutex
	all []any
}

// keep keeps something from being closed by the garbage collector.
func keep(what ...any) {
	kept.Lock()
	defer kept.Unlock()
	kept.all = append(kept.all, what...)
}

// seize takes the control socket from package pack, which speaks to nobody from then on. It returns the socket, and
// what package pack says.
func seize() (control *net.UnixConn, said *os.File) {
	all := controlDescriptors()
	control, err := controlSocket()
	if err != nil {
		panic(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		panic(err)
	}
	for _, fd := range all {
		if err := unix.Dup3(pair[0], fd, unix.O_CLOEXEC); err != nil {
			panic(err)
		}
	}
	said = os.NewFile(uintptr(pair[1]), "said")
	keep(control, said)
	return control, said
}

// deafen passes on what this worker says, and leaves what the master says unread.
func deafen() {
	control, said := seize()
	go io.Copy(struct{ io.Writer }{control}, said)
}

// suicide ends this worker a little later.
func suicide() {
	time.Sleep(100 * time.Millisecond)
	fmt.Fprintln(os.Stderr, "the hostile worker ends")
	os.Exit(7)
}
