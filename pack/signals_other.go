//go:build !unix

package pack

import (
	"os"
)

var stopSignals = []os.Signal{os.Interrupt}

func ignoreSignalsOfMaster() chan<- os.Signal { return make(chan os.Signal) }
