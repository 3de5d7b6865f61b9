//go:build !unix

package sockets

import "net"

func keep(l net.Listener) (socket, error) { return l.(socket), nil }

func accepting(s socket) (net.Listener, error) { return s.(net.Listener), nil }
