package pack

import (
	"context"
	"net"
	"os"
	"os/signal"

	"github.com/gopherpack/gopherpack/sigctl"
)

// runInline serves in this process, which is master and only worker in one.
func (p *Pack) runInline(ctx context.Context) error {
	log := p.config.Logger
	ctx, release := sigctl.Context(ctx, stopSignals...)
	defer release()
	defer p.reopenInline()()
	if err := onStart(ctx, p.config.OnStart); err != nil {
		return err
	}
	own := &sockets{files: p.config.socketFiles()}
	defer own.close()
	s := &service{pack: p, log: log, listen: func(e endpoint) (net.Listener, error) {
		socket, err := own.get(ctx, e, 0, 1)
		if err != nil {
			return nil, err
		}
		return socket, nil
	}}
	err := s.start(ctx)
	if err == nil && ctx.Err() == nil {
		log.Info("pack serves in line, in one process", "listening", own.addresses())
		select {
		case err = <-s.broken:
		case <-ctx.Done():
		}
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), workerShutdownTimeout(p.config.ShutdownTimeout))
	defer cancel()
	if cut := s.drain(deadline, drainOptions{quiesce: func() error { return own.quiesce(0) }}); cut > 0 {
		log.Warn("connections were cut at ShutdownTimeout", "connections", cut)
	}
	return err
}

// reopenInline heeds the signal to open log files anew, until stop is called.
func (p *Pack) reopenInline() (stop func()) {
	asked := make(chan os.Signal, 1)
	if len(reopenSignals) > 0 {
		signal.Notify(asked, reopenSignals...)
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-asked:
				if hook := p.config.OnReopen; hook != nil {
					hook()
				}
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(asked); close(done) }
}
