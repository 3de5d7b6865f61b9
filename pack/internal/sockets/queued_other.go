//go:build !unix

package sockets

import "syscall"

type pollSet struct{}

func (*pollSet) changed() {}

func (*pollSet) queued(*Keeper) []Ref { return nil }

func listens(syscall.Conn) bool { return true }
