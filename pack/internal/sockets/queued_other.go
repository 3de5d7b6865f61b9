//go:build !unix

package sockets

import "net"

type pollSet struct{}

func (*pollSet) changed() {}

func (*pollSet) queued(*Keeper) []Ref { return nil }

func listensAgain(net.Listener) bool { return true }
func isListening(net.Listener) bool  { return true }
