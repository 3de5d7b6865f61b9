//go:build !linux

package upgrade

import "os"

// mark notes the process that passes the socket on: not every system numbers sockets.
func (n note) mark(*os.File) (name string, err error) {
	n.numbers["parent"] = uint64(os.Getpid())
	return "parent", nil
}

func isMeant(_ int, n note) bool { return n.numbers["parent"] == uint64(os.Getppid()) }
