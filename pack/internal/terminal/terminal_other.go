//go:build !unix

// Package terminal tells about the controlling terminal of this process, where there is such a thing.
package terminal

// Controls reports whether this process has a controlling terminal.
func Controls() bool { return false }

// InBackground reports whether this process is in the background of one.
func InBackground() bool { return false }
