//go:build !unix

package pack

import "net"

func readable(net.Listener) bool { return false }
