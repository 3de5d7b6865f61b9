//go:build linux

package pack_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/pack"
)

func init() { programs["faulty"] = faultyProgram }

// faultyProgram has a system call of its master fail: from the start, or from a signal on.
func faultyProgram() error {
	c, address := configFlags()
	call := flag.String("call", "", "")
	later := flag.Bool("later", false, "")
	flag.Parse()
	if pack.IsMaster() {
		if *later {
			asked := make(chan os.Signal, 1)
			signal.Notify(asked, syscall.SIGWINCH)
			go func() {
				<-asked
				err := deny(*call)
				c.Logger.Info("denied", "error", err)
			}()
		} else if err := deny(*call); err != nil {
			return err
		}
	}
	return serve(c, *address, &http.Server{Handler: handler()})
}

// calls are the system calls of a master, and how they fail.
var calls = map[string]struct {
	number uintptr
	errno  unix.Errno
}{
	"socket":     {unix.SYS_SOCKET, unix.EMFILE},
	"bind":       {unix.SYS_BIND, unix.EACCES},
	"listen":     {unix.SYS_LISTEN, unix.EADDRINUSE},
	"setsockopt": {unix.SYS_SETSOCKOPT, unix.ENOPROTOOPT},
	"socketpair": {unix.SYS_SOCKETPAIR, unix.EMFILE},
	"clone":      {unix.SYS_CLONE, unix.EAGAIN},
	"execve":     {unix.SYS_EXECVE, unix.ENOMEM},
	"epoll_ctl":  {unix.SYS_EPOLL_CTL, unix.ENOSPC},
	"sendmsg":    {unix.SYS_SENDMSG, unix.ETOOMANYREFS},
	"recvmsg":    {unix.SYS_RECVMSG, unix.ENOMEM},
	"pidfd_open": {unix.SYS_PIDFD_OPEN, unix.ENOSYS},
}

// deny has a system call fail from now on in every thread of this process, by a filter that programs that it starts
// inherit. Threads can still be made.
func deny(name string) error {
	call := calls[name]
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(call.number), Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16}, // the first argument
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(call.errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if name == "clone" {
		program[3].K = unix.CLONE_THREAD
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	runtime.LockOSThread() // of which no_new_privs is an attribute, without which a filter needs privileges
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return errno
	}
	return nil
}

// deniable skips what deny cannot tell apart: of 386 and s390x package syscall makes one system call of all that have to
// do with sockets, socketcall(2).
func deniable(t *testing.T, name string) {
	t.Helper()
	of := []string{"socket", "bind", "listen", "setsockopt", "socketpair", "sendmsg", "recvmsg"}
	if (runtime.GOARCH == "386" || runtime.GOARCH == "s390x") && slices.Contains(of, name) {
		t.Skip(name + " is a part of socketcall(2) here")
	}
}

// TestFaultsAtStart has each system call fail from the start: the pack must end at once and say which, or do without.
func TestFaultsAtStart(t *testing.T) {
	t.Parallel()
	withoutIt := []string{"pidfd_open"}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			deniable(t, name)
			p := start(t, "faulty", nil, "-workers=2", "-call="+name, "-ready=3s")
			if slices.Contains(withoutIt, name) {
				if r := load(p, 4, 5).Run(t.Context()); r.Failed() != 0 {
					t.Error(r)
				}
				p.Stop()
				return
			}
			if status := p.Wait(inTime); status != 1 {
				t.Errorf("exit status %d", status)
			}
			p.WaitSilent()
			if !strings.Contains(p.Text(), call.errno.Error()) {
				t.Errorf("it did not say %q", call.errno)
			}
		})
	}
}

// TestFaultsLater has each system call fail when the pack is up, and kills a worker: the log must tell why no other
// comes, or one must; those that are there must answer, and the pack must stop.
func TestFaultsLater(t *testing.T) {
	t.Parallel()
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			deniable(t, name)
			p := start(t, "faulty", nil, "-workers=2", "-call="+name, "-later", "-ready=3s", "-shutdown=5s")
			p.Addresses()
			before := p.Workers()
			p.Signal(syscall.SIGWINCH)
			if r := p.Logged(1, "denied"); r["error"] != nil {
				t.Fatal(r)
			}
			syscall.Kill(before[0], syscall.SIGKILL)
			p.Logged(1, "worker failed")
			// Without these two nobody can cover for the worker.
			limit, covered := 10*time.Second, name != "sendmsg" && name != "recvmsg"
			if !covered {
				limit = 2 * time.Second
			}
			served := atomic.Int64{}
			var clients sync.WaitGroup
			for range 20 {
				clients.Go(func() {
					if answersWithin(p.Address(), limit) {
						served.Add(1)
					}
				})
			}
			clients.Wait()
			t.Logf("%d of 20 requests answered", served.Load())
			if served.Load() < 20 && covered {
				t.Errorf("%d of 20 requests were answered", served.Load())
			}
			told := func() bool {
				of := call.errno.Error()
				return strings.Contains(strings.Join(p.Other(), "\n"), of) ||
					slices.ContainsFunc(p.Records(), func(r program.Record) bool {
						return r.Msg() == "worker ready" || strings.Contains(fmt.Sprint(r["error"], r["reason"]), of)
					})
			}
			p.Until("the log to tell of "+call.errno.Error(), inTime, told)
			p.Signal(syscall.SIGTERM)
			if status := p.Wait(inTime); status != 0 {
				t.Errorf("exit status %d, %v", status, p.Err())
			}
		})
	}
}
