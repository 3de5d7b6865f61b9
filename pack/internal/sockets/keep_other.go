//go:build !unix

package sockets

import "io"

func keep(l socket) (socket, error) { return l, nil }

func served(s socket) (io.Closer, error) {
	if p, ok := s.(packetConn); ok {
		return p.UDPConn, nil
	}
	return s, nil
}
