//go:build !linux

package proc

func readStat(int) (state string, parent int) { return "", 0 }
func readTimes(int) Times                     { return Times{} }
func resident(int) uint64                     { return 0 }

func inheritsOrphans() bool          { return false }
func endedChildren() map[int]bool    { return nil }
func wait(int) (status int, ok bool) { return 0, false }
