package drain

import (
	"testing"
	"time"
)

// waitFor waits for what comes about by itself.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 60000 {
		if done() {
			return
		}
		<-tick.C
	}
	t.Fatal(what + ": it does not come about")
}
