//go:build !linux

package sockets

import "context"

// Await waits until ctx ends, and returns false: no connection tells of itself here.
func (k *Keeper) Await(ctx context.Context) (comes bool) {
	<-ctx.Done()
	return false
}
