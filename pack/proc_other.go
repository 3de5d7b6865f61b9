//go:build !linux

package pack

import "time"

func processState(int) string { return "" }

func waitedForCPU(int) time.Duration { return 0 }

func residentMemory(int) uint64 { return 0 }
