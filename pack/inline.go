package pack

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"

	"github.com/gopherpack/gopherpack/internal/systemd"
	"github.com/gopherpack/gopherpack/pack/internal/master"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/pack/internal/worker"
)

// runInline serves in this process, which is master and only worker in one.
func (p *Pack) runInline(ctx context.Context) error {
	inLine.Add(1)
	defer inLine.Add(-1)
	_, files, err := p.prepare(1)
	if err != nil {
		return err
	}
	c := p.workerConfig()
	c.Log = p.config.Logger
	c.OtherSignals = nil
	for _, text := range p.service.Warnings {
		c.Log.Warn(text)
	}
	defer p.reopenInline()()
	start := c.OnStart
	c.OnStart = func(ctx context.Context) error {
		if hook := p.config.OnStart; hook != nil {
			if err := hook(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("OnStart: %w", err)
			}
		}
		if start != nil {
			return start(ctx)
		}
		return nil
	}
	own := sockets.New(files)
	own.Control = p.config.Control
	for _, err := range own.TakePassed(p.service.Passed) {
		c.Log.Warn(err.Error())
	}
	own.Waits = func(e wire.Endpoint, pids []int) {
		c.Log.Warn(sockets.WaitsFor(pids), "address", e.String(), "pids", pids)
	}
	defer own.End()
	listen := func(ctx context.Context, e wire.Endpoint, defers bool) (io.Closer, error) {
		if _, err := own.Open(ctx, e, 1); err != nil {
			return nil, err
		}
		own.Defer(e, defers)
		socket, err := own.Socket(e, 0)
		if conn, ok := socket.(net.PacketConn); ok && e.QUIC {
			return worker.QUICSocket{PacketConn: conn, QUIC: worker.QUIC{Secret: own.Secret(e)}}, nil
		}
		return socket, err
	}
	up := func() {
		var listening []string
		for _, i := range own.Infos() {
			listening = append(listening, i.Endpoint.Network+" "+i.Address)
		}
		for _, name := range own.Left() {
			c.Log.Warn(master.NobodyServes, "socket", name)
		}
		c.Log.Info("pack serves in line, in one process", "listening", listening)
		status := "in line, it serves " + strings.Join(listening, ", ")
		p.service.Notify(systemd.Message{State: systemd.Ready, Status: status})
	}
	begin := c.BeginDrain
	c.BeginDrain = func() {
		p.service.Notify(systemd.Message{State: systemd.Stopping, Extend: p.config.ShutdownTimeout, Status: "stopping"})
		begin()
	}
	defer p.service.KeepAlive()()
	cut, err := worker.RunInline(ctx, c, listen, func() error { return own.QuiesceFinal(0) }, up)
	if cut > 0 {
		c.Log.Warn("connections were cut at ShutdownTimeout", "connections", cut)
	}
	return err
}

// reopenInline handles the signal to open log files anew, until stop is called.
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
