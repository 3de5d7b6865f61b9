//go:build !linux

package upgrade

import "os"

const runningFile = ""

func executedAs() string { return "" }

func privileged() bool { return os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() }

func nameProcess(string) {}
