package pack

import (
	"context"
	"time"
)

// every calls do again and again, one call at a time, until stop is called, which waits for a call that is under way; its context
// ends then.
func every(d time.Duration, do func(ctx context.Context, now time.Time)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				do(ctx, now)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}
