//go:build !unix

package pack

import "os"

var (
	stopSignals                   = []os.Signal{os.Interrupt}
	reloadSignals, upgradeSignals []os.Signal
	moreSignals, fewerSignals     []os.Signal
	stackSignals, reopenSignals   []os.Signal
)

func ignoreSignalsOfMaster() chan<- os.Signal { return make(chan os.Signal) }

func outliveReaders() (stop func()) { return func() {} }
