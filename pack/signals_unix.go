//go:build unix

package pack

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

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

// otherSignals are meant for the master, and must not end a worker that gets them, too (pkill -HUP).
func otherSignals() []os.Signal {
	return slices.Concat(reloadSignals, upgradeSignals, moreSignals, fewerSignals, reopenSignals)
}

// outliveReaders has writes to stdout and stderr fail when what reads them, such as a pipe to a logger, is gone, until
// stop is called. By default that ends a Go program, with SIGPIPE, and a service must not end because its logger has.
func outliveReaders() (stop func()) {
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGPIPE)
	return func() { signal.Stop(ignored) }
}

// What a worker, or the next version of the master, writes before Run must not end it, either.
func init() {
	if process.kind == isWorker || upgrade.Inherited() != nil || upgrade.Asked() != nil {
		outliveReaders()
	}
}
