//go:build !unix

package pack

import "os"

var (
	stopSignals                   = []os.Signal{os.Interrupt}
	reloadSignals, upgradeSignals []os.Signal
	moreSignals, fewerSignals     []os.Signal
	stackSignals, reopenSignals   []os.Signal
	continueSignals               []os.Signal
)

const hangUpIgnored = false

func otherSignals() []os.Signal { return nil }

func (identity) keepOutput()    {}
func (identity) restoreOutput() {}

func outliveReaders() (stop func()) { return func() {} }
