package upgrade

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
)

// Upgrade starts the successor and waits until it is ready; then Done is closed and the error is nil. If it does not
// become ready, the error says why and this process goes on as if nothing had happened. It gives up when ctx ends.
//
// A program that stops while Upgrade runs must call Close before it ends: a successor whose predecessor ends without a
// word takes over.
//
// In place, it tries the executable out and closes Done; Finish then becomes the program. It is the very file that was
// tried out, whatever happens on disk in the meantime.
//
// Errors match [ErrInProgress], [ErrDone] if Close is called in the meantime, too, [os.ErrNotExist] for an executable
// that is not there, or the errno of what failed.
func (u *Upgrader) Upgrade(ctx context.Context) error {
	ctx, a, err := u.begin(ctx)
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	defer u.end(a)
	if u.config.InPlace {
		err = u.prepare(ctx)
	} else {
		err = u.replace(ctx)
	}
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	return nil
}

// begin begins an upgrade, or reports why there cannot be one now.
func (u *Upgrader) begin(ctx context.Context) (context.Context, *attempt, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.phase > serving:
		return nil, nil, ErrDone
	case u.busy != nil:
		return nil, nil, ErrInProgress
	case u.phase == starting:
		return nil, nil, errors.New("this process is not ready itself: Ready was not called")
	}
	if n := u.draining(); n > u.config.MaxDraining {
		return nil, nil, fmt.Errorf("%d predecessors have not ended yet, and MaxDraining is %d", n, u.config.MaxDraining)
	}
	ctx, a := u.attemptLocked(ctx)
	return ctx, a, nil
}

func (u *Upgrader) attemptLocked(ctx context.Context) (context.Context, *attempt) {
	ctx, cancel := context.WithCancelCause(ctx)
	u.busy = &attempt{cancel, make(chan struct{})}
	return ctx, u.busy
}

// wait waits until no attempt is under way, with mu unlocked in the meantime. It cancels them, if cause is not nil.
func (u *Upgrader) wait(cause error) {
	for u.busy != nil {
		a := u.busy
		if cause != nil {
			a.cancel(cause)
		}
		u.mu.Unlock()
		<-a.ended
		u.mu.Lock()
	}
}

func (u *Upgrader) end(a *attempt) {
	a.cancel(nil)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.busy = nil
	u.retire()
	close(a.ended)
}

// replace starts a new process, and is replaced by it.
func (u *Upgrader) replace(ctx context.Context) error {
	if os.Getpid() == 1 {
		return errors.New("process 1 cannot hand over to another process: set Config.InPlace")
	}
	image, err := openImage(u.path)
	if err != nil {
		return err
	}
	defer image.Close()
	ctx, cancel := u.withTimeout(ctx)
	defer cancel()
	child, err := start(ctx, image, u.holdings(), u.pidFile)
	if err != nil {
		return err
	}
	pid, err := writePID(u.pidFile, child.pid())
	if err != nil {
		child.kill()
		return err
	}
	defer pid.discard()
	u.mu.Lock()
	defer u.mu.Unlock()
	if ctx.Err() != nil { // Close waits for this, or the caller has changed its mind
		child.kill()
		return context.Cause(ctx)
	}
	if err := pid.commit(); err != nil {
		child.kill()
		return err
	}
	u.child, u.phase = child.control, replaced
	for _, i := range u.items {
		i.close(false) // when the successor has closed its copy, nobody is to wait for an answer
	}
	u.items = nil
	close(u.done)
	child.send(message{Type: msgReplaced}) // if that fails it has ended
	return nil
}

func (u *Upgrader) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, u.config.ReadyTimeout, fmt.Errorf("not ready within %v", u.config.ReadyTimeout))
}

// holdings returns what is handed on. The items stay open while an attempt is under way.
func (u *Upgrader) holdings() *holdings {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := &holdings{items: map[name]*item{}, state: u.state}
	maps.Copy(all.items, u.items)
	if u.parent != nil {
		all.ancestors = append(all.ancestors, u.parent.conn)
	}
	for _, f := range u.ancestors {
		all.ancestors = append(all.ancestors, f)
	}
	return all
}

// Finish is called when this process has finished what it was doing. In place it becomes the new program, and returns
// nil only if Close was called or a signal of Signals.Stop has arrived since Done was closed, after which it closes the
// sockets as Close does. If becoming the program fails it returns the error. With a new process it returns nil. In all
// cases but an error, this process should end, which tells the successor. If there is none, the PID file is removed.
func (u *Upgrader) Finish() error {
	a := u.beginFinish()
	if a == nil {
		return u.finished(nil)
	}
	err := u.become()
	u.end(a)
	if _, late := errors.AsType[LateSignal](err); late {
		return u.finished(u.Close())
	}
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	return nil
}

// finished removes the PID file, unless a successor or predecessor has its ID there.
func (u *Upgrader) finished(err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.phase != closed {
		return err
	}
	if perr := removePID(u.pidFile, os.Getpid()); perr != nil {
		err = errors.Join(err, fmt.Errorf("upgrade: finish: %w", perr))
	}
	return err
}

func (u *Upgrader) beginFinish() *attempt {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.wait(nil) // for the call of Upgrade that has just closed Done
	if u.phase != leaving {
		return nil
	}
	_, a := u.attemptLocked(context.Background())
	return a
}

// HandBack is for a program that finds, before Ready, that it cannot do what its predecessor does. In place it becomes
// the predecessor's executable again, which gets the same sockets, files and state, and returns only if that fails, or
// if this is the executable that was handed back to. Otherwise it tells the predecessor, whose Upgrade fails with why.
// The error has why in any case: this program should end with it.
func (u *Upgrader) HandBack(why error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.phase != starting {
		return fmt.Errorf("%w; and there is no way back, since Ready or Close was called", why)
	}
	for n, i := range u.items {
		if !i.inherited { // the next successor will open it
			i.close(true)
			delete(u.items, n)
		}
	}
	switch {
	case u.parent != nil:
		// A predecessor that has ended need not know.
		u.parent.send(message{Type: msgFailed, Error: fmt.Sprintf("%.4000s", why)})
	case u.estate != nil && u.estate.Returned == "":
		return fmt.Errorf("%w; and %w", why, u.estate.HandBack(why, u.config.Signals))
	}
	return why
}

// Close gives up the sockets, for a program that ends without a successor: Unix sockets are removed from the file
// system. It ends a call of Upgrade, and a successor that is not ready. If a successor has taken over, or the
// predecessor has not been replaced by this process yet, it only closes this process's copies. Done is closed.
func (u *Upgrader) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.wait(ErrDone)
	var errs []error
	for _, all := range []map[name]*item{u.items, u.inherited} {
		for _, i := range all {
			others := u.phase == replaced || u.phase == starting && u.parent != nil && i.inherited
			errs = append(errs, i.close(!others))
		}
	}
	u.items, u.inherited = nil, nil
	if u.phase <= serving {
		close(u.done)
	}
	u.phase = closed
	u.retire()
	u.forget()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("upgrade: close: %w", err)
	}
	return nil
}

// forget closes what is not handed on.
func (u *Upgrader) forget() {
	if u.parent != nil {
		u.parent.close()
	}
	if u.estate != nil {
		u.estate.Files = nil
		u.estate.Close()
	}
	if u.image != nil {
		u.image.Close()
	}
	if u.stop != nil {
		u.stop.end()
		u.stop = nil
	}
	closeAll(u.ancestors)
	u.ancestors = nil
}
