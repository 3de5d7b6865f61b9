//go:build linux

// Command group is bare net/http in one process per CPU, pinned, each with a socket of its own in one reuseport group,
// and a parent that does nothing else: what a pack would cost if all that it does were free.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/bench/internal/site"
)

func main() {
	child := flag.Bool("child", false, "serve")
	f := site.Parse()
	run := parent
	if *child {
		run = func() error { return serve(f) }
	}
	if err := run(); err != nil {
		log.Fatal("group: ", err)
	}
}

func serve(f site.Flags) error {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return err
	}}
	l, err := lc.Listen(context.Background(), "tcp", f.Address)
	if err != nil {
		return err
	}
	return f.Serve(l)
}

// parent starts a child on each CPU that it may use, and ends them when it is asked to end.
func parent() error {
	runtime.LockOSThread() // children get the mask of the thread that starts them, and end with it
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	var children []*exec.Cmd
	for cpu := range len(all) * 64 {
		if !all.IsSet(cpu) {
			continue
		}
		one.Zero()
		one.Set(cpu)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return os.NewSyscallError("sched_setaffinity", err)
		}
		cmd := exec.Command("/proc/self/exe", append([]string{"-child"}, os.Args[1:]...)...)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return err
		}
		children = append(children, cmd)
	}
	if err := unix.SchedSetaffinity(0, &all); err != nil {
		return os.NewSyscallError("sched_setaffinity", err)
	}
	<-terms
	for _, c := range children {
		c.Process.Signal(syscall.SIGTERM)
	}
	for _, c := range children {
		c.Wait()
	}
	return nil
}
