//go:build !linux

package pack

import "time"

func processState(int) string { return "" }

func waitedForCPU(int) time.Duration { return 0 }
