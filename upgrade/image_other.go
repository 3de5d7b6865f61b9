//go:build !linux

package upgrade

import (
	"os"
	"runtime"
)

const modeTells = runtime.GOOS != "windows"

func openExecutable(path string) (*os.File, error) { return os.Open(path) }

func pathOf(_ *os.File, name string) (string, error) { return byName(name) }
