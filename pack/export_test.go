package pack

import (
	"errors"
	"os"
)

// AtStep has f called at each step of a reload or an upgrade.
func AtStep(f func(string)) { atStep = func(s step) { f(string(s)) } }

// FailExec makes the first n attempts to become another program fail.
func FailExec(n int) {
	become := becomeProgram
	becomeProgram = func(path string, args, env []string, files ...*os.File) error {
		if n--; n >= 0 {
			return errors.New("no memory for another program")
		}
		return become(path, args, env, files...)
	}
}
