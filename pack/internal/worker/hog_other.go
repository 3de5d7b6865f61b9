//go:build !linux

package worker

import "time"

// processorTime does not matter where workers are not pinned.
func processorTime() (used time.Duration, ok bool) { return 0, false }
