//go:build !unix

package sockets

type pollSet struct{}

func (*pollSet) changed() {}

func (*pollSet) queued(*Keeper) []Ref { return nil }

func listensAgain(socket) bool { return true }
func isListening(socket) bool  { return true }
