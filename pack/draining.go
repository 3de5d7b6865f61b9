package pack

import (
	"context"
	"sync"

	"github.com/gopherpack/gopherpack/internal/drain"
)

// Draining returns a channel that is closed when the worker that this is begins to drain: in a reload, an upgrade or a
// stop. It is for handlers that go on for long, of event streams, gRPC streams, and hijacked connections such as
// WebSockets: they should say good-bye then and return, or close the connection, so that the client comes back to
// another worker. A worker waits for them until ShutdownTimeout.
//
// ctx is the context of the request, or any other, as with servers of [GRPC] and [Func]: in all servers of a process
// the drain begins at once. (Where tests run several packs in line in one process, only the context of an HTTP request
// tells which is meant; with others the channel is that of all.) In the master, which does not drain, it is never
// closed.
func Draining(ctx context.Context) <-chan struct{} {
	if begun := drain.Begun(ctx); begun != nil {
		return begun
	}
	return ownDrain.begun()
}

// ownDrain is that of this process.
var ownDrain = newDrainOnce()

// drainOnce tells that a drain has begun.
type drainOnce struct {
	mu     sync.Mutex
	ctx    context.Context // ends then
	cancel context.CancelFunc
}

func newDrainOnce() *drainOnce {
	d := new(drainOnce)
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

func (d *drainOnce) begun() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ctx.Done()
}

// next returns what begins the drain of the pack that runs now. What begun has returned before a first one is of that.
func (d *drainOnce) next() (begin func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil { // of a pack in line that has ended
		d.ctx, d.cancel = context.WithCancel(context.Background())
	}
	return d.cancel
}
