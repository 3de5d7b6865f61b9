//go:build !linux

package proc

import "time"

func readStat(int) (state string, parent int) { return "", 0 }
func waitedForCPU(int) time.Duration          { return 0 }
func resident(int) uint64                     { return 0 }

func inheritsOrphans() bool          { return false }
func endedChildren() map[int]bool    { return nil }
func wait(int) (status int, ok bool) { return 0, false }
