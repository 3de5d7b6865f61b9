package plan

import (
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// masterShare is what is left to the master of the memory that the pack may use.
	masterShare = 32 << 20

	// leastShare is the least that a worker is told to get along with. With less, its garbage collector would run all
	// the time.
	leastShare = 16 << 20
)

// MemoryLimit returns how much memory the Go runtimes of this program's processes shall use together: what GOMEMLIMIT
// says if it is set, else nine tenths of what the control group allows, since not all memory is the runtime's. It
// returns false if there is no limit, or none is wanted.
func MemoryLimit() (bytes uint64, limited bool) {
	if own := debug.SetMemoryLimit(-1); own != math.MaxInt64 {
		return uint64(own), true
	}
	if os.Getenv("GOMEMLIMIT") == "off" {
		return 0, false
	}
	allowed, err := memlimit.FromCgroup()
	if err != nil || allowed >= math.MaxInt64/2 { // version 1 of control groups has a huge number for none
		return 0, false
	}
	return allowed / 10 * 9, true
}

// MemoryShare returns a worker's share of a limit.
func MemoryShare(limit uint64, workers int) uint64 {
	if limit < masterShare {
		return leastShare
	}
	return max((limit-masterShare)/uint64(workers), leastShare)
}

// LittleMemory reports whether a limit leaves too little for so many workers.
func LittleMemory(limit uint64, workers int) bool { return MemoryShare(limit, workers) == leastShare }
