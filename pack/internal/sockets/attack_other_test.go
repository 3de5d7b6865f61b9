//go:build !linux

package sockets

func attack(string) {}
