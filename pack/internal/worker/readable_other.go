//go:build !unix

package worker

func readable(any) bool { return false }
