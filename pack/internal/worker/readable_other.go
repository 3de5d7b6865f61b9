//go:build !unix

package worker

import "net"

func readable(net.Listener) bool { return false }
