//go:build !unix

package pack

import (
	"io/fs"
	"net"
)

func readable(net.Listener) bool { return false }

func setMode(int, fs.FileMode) {}
