//go:build unix

package pack

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/pack/internal/terminal"
	"github.com/gopherpack/gopherpack/upgrade"
)

// stopSignals stop a pack gracefully.
var stopSignals = []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT}

// reloadSignals start new workers in place of the old.
var reloadSignals = []os.Signal{syscall.SIGHUP}

// moreSignals and fewerSignals change the number of workers by one.
var (
	moreSignals  = []os.Signal{syscall.SIGTTIN}
	fewerSignals = []os.Signal{syscall.SIGTTOU}
)

// reopenSignals have log files opened anew, and the state of the pack written to the log.
var reopenSignals = []os.Signal{syscall.SIGUSR1}

// upgradeSignals start the executable that is on disk now, workers and master.
var upgradeSignals = []os.Signal{syscall.SIGUSR2}

// stackSignals have a worker that hangs write the stacks of its goroutines, and end: the first is not handled by
// anybody but the runtime, and the second is for a process that is stopped.
var stackSignals = []os.Signal{syscall.SIGABRT, syscall.SIGCONT}

// continueSignals come to a program that was stopped, as by Ctrl-Z, when it goes on.
var continueSignals = []os.Signal{syscall.SIGCONT}

// otherSignals are meant for the master, and must not end a worker that gets them, too (pkill -HUP).
func otherSignals() []os.Signal {
	signals := slices.Concat(reloadSignals, upgradeSignals, reopenSignals)
	if !jobControl {
		signals = slices.Concat(signals, moreSignals, fewerSignals)
	}
	return signals
}

// hangUpIgnored says that HUP was ignored when this program began, as by nohup(1).
var hangUpIgnored = signal.Ignored(syscall.SIGHUP)

// jobControl says that this is a worker with a controlling terminal. To that, a worker is a background process, which
// is stopped if it reads, and if it writes with "stty tostop"; where the signals for that are caught, it tries again
// and again. Ignored, it reads nothing and writes as ever, and so do the programs that it starts.
var jobControl = process.kind == isWorker && terminal.Controls()

// outliveReaders has writes to stdout and stderr fail when what reads them, such as a pipe to a logger, is gone, until
// stop is called. By default that ends a Go program, with SIGPIPE, and a service must not end because its logger has.
func outliveReaders() (stop func()) {
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGPIPE)
	return func() { signal.Stop(ignored) }
}

// keepOutput has the programs that this worker starts not inherit the master's stdout and stderr.
func (i identity) keepOutput() {
	for _, fd := range []int{i.stdout, i.stderr} {
		if fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// restoreOutput has this worker write to where its master wrote, since nobody reads what it writes any more.
func (i identity) restoreOutput() {
	for to, fd := range map[int]int{1: i.stdout, 2: i.stderr} {
		if fd > 2 {
			unix.Dup2(fd, to) // else it writes to nobody, and goes on
		}
	}
}

func init() {
	if jobControl {
		signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU)
	}
}

// What a worker, or the next version of the master, writes before Run must not end it, either.
func init() {
	if process.kind == isWorker || upgrade.Inherited() != nil || upgrade.Asked() != nil {
		outliveReaders()
	}
}
