//go:build !linux

package worker

import "net"

// inheritKeepAlive leaves it to package net.
func inheritKeepAlive(*net.TCPListener) {}
