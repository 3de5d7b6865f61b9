package pack

import (
	"errors"
	"os"

	"github.com/gopherpack/gopherpack/pack/internal/master"
	"github.com/gopherpack/gopherpack/upgrade"
)

// AtStep has f called at each step of a reload or an upgrade.
func AtStep(f func(string)) { master.AtStep = func(s master.Step) { f(string(s)) } }

// FailExec makes the first n attempts to become another program fail.
func FailExec(n int) {
	become := master.Become
	master.Become = func(i *upgrade.Image, state []byte, files []*os.File, s upgrade.Signals, env ...string) error {
		if n--; n >= 0 {
			return errors.New("no memory for another program")
		}
		return become(i, state, files, s, env...)
	}
}
