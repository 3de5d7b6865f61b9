package worker

import (
	"context"

	"github.com/gopherpack/gopherpack/sigctl"
)

// RunInline serves in this process, without a master, until one of StopSignals arrives or ctx ends, and drains; a
// second signal ends the process. listen opens the socket of an endpoint, up is called once when all servers accept,
// and quiesce keeps new connections out of the sockets before what is queued on them is served. It returns how many
// connections were cut at ShutdownTimeout, and why it could not serve. OnReopen is the caller's to call.
func RunInline(ctx context.Context, c Config, listen opener, quiesce func() error, up func()) (cut int, err error) {
	if len(c.StopSignals) > 0 {
		var release func()
		ctx, release = sigctl.Context(ctx, c.StopSignals...)
		defer release()
	}
	ctx, cancel := context.WithCancel(ctx) // what was begun ends also when a server fails
	defer cancel()
	_, release := catch(c.OtherSignals)
	defer release()
	if c.Tickets == nil {
		c.Tickets = NewTickets()
	}
	s := &service{Config: &c, log: c.Log, listen: listen}
	err = s.start(ctx)
	if err == nil && ctx.Err() == nil {
		up()
		select {
		case err = <-s.broken:
		case <-ctx.Done():
		}
	}
	deadline, expire := context.WithTimeout(context.WithoutCancel(ctx), c.drainTimeout())
	defer expire()
	return s.drain(deadline, drainOptions{quiesce: quiesce}), err
}
