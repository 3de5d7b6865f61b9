package upgrade

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"
)

// Parts of an Upgrader that are handed on in place: the state of the estate is a line of JSON with this, then the state
// that the caller has set. Its files are the items, in order.
type handed struct {
	Version  int          `json:"version"`
	Items    []handedItem `json:"items"`
	HasState bool         `json:"hasState,omitempty"`
}

type handedItem struct {
	Name name   `json:"name"`
	Path string `json:"path,omitempty"`
	File fileID `json:"file,omitzero"` // of Path
}

// verdict is the answer of a program that is tried out.
type verdict struct {
	Version int    `json:"version"`
	Error   string `json:"error,omitempty"`
}

// answer ends a program that is tried out.
func answer(q *Question, err error) {
	v := verdict{Version: protocolVersion}
	if err != nil {
		v.Error = err.Error()
	}
	text, _ := json.Marshal(v)
	q.Answer(text)
}

// prepare tries the successor out. Finish will become it.
func (u *Upgrader) prepare(ctx context.Context) error {
	pid, err := writePID(u.pidFile, os.Getpid()) // as Ready will have to
	if err != nil {
		return err
	}
	pid.discard()
	image, err := openImage(u.path)
	if err != nil {
		return err
	}
	if err = u.try(ctx, image); err == nil {
		err = u.leave(ctx, image)
	}
	if err != nil {
		image.Close()
	}
	return err
}

func (u *Upgrader) try(ctx context.Context, image *Image) error {
	if err := canBecome(); err != nil {
		return err
	}
	ctx, cancel := u.withTimeout(ctx)
	defer cancel()
	text, err := preflight(ctx, image, nil, nil)
	var v verdict
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	switch {
	case err != nil:
	case v.Error != "":
		err = failedError(v.Error)
	case v.Version != protocolVersion:
		err = otherVersion(v.Version)
	}
	if err != nil {
		return fmt.Errorf("executable %s, tried out: %w", image.name, err)
	}
	return nil
}

// leave tells this program to finish. From then on, signals to stop it are watched for: it may not look at them any
// more.
func (u *Upgrader) leave(ctx context.Context, image *Image) error {
	stop := watch(u.config.Signals.Stop)
	select {
	case <-time.After(settle): // one that has arrived before may be about to end ctx
	case <-ctx.Done():
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if ctx.Err() != nil {
		stop.end()
		return context.Cause(ctx)
	}
	u.image, u.stop, u.phase = image, stop, leaving
	close(u.done)
	return nil
}

// become becomes the successor.
func (u *Upgrader) become() error {
	all := u.holdings()
	h := handed{Version: protocolVersion, HasState: all.state != nil}
	var files []*os.File
	for _, n := range all.names() {
		h.Items = append(h.Items, handedItem{n, all.items[n].path, all.items[n].id})
		files = append(files, all.items[n].file)
	}
	head, err := json.Marshal(h)
	if err != nil {
		return err
	}
	signals := u.config.Signals
	signals.Late = func() os.Signal {
		if s := u.stop.received(); s != nil {
			return s
		}
		if late := u.config.Signals.Late; late != nil {
			return late()
		}
		return nil
	}
	return become(u.image, append(append(head, '\n'), all.state...), files, signals, nil)
}

// holdings returns what an Upgrader has passed on.
func (e *Estate) holdings() (*holdings, error) {
	if e.err != nil {
		return nil, e.err
	}
	head, state, found := bytes.Cut(e.State, []byte("\n"))
	var h handed
	if err := json.Unmarshal(head, &h); err != nil || !found {
		return nil, errors.Join(errors.New("the state is not that of an Upgrader"), err)
	}
	if h.Version != protocolVersion {
		return nil, otherVersion(h.Version)
	}
	if len(h.Items) != len(e.Files) {
		return nil, fmt.Errorf("%d descriptors have %d names", len(e.Files), len(h.Items))
	}
	all := &holdings{items: map[name]*item{}}
	for n, i := range h.Items {
		if all.items[i.Name] != nil {
			return nil, fmt.Errorf("two descriptors are named %s", i.Name)
		}
		all.items[i.Name] = &item{file: e.Files[n], path: i.Path, id: i.File, inherited: true}
	}
	if h.HasState {
		all.state = append([]byte{}, state...)
	}
	return all, nil
}

// stopWatch notes the first of some signals. Another then has the effect that the program has given it, or its default.
type stopWatch struct {
	arrived chan os.Signal
	first   chan os.Signal
	over    chan struct{}
}

func watch(signals []os.Signal) *stopWatch {
	w := &stopWatch{make(chan os.Signal, 1), make(chan os.Signal, 1), make(chan struct{})}
	if len(signals) == 0 {
		return w
	}
	signal.Notify(w.arrived, signals...)
	go func() {
		defer signal.Stop(w.arrived)
		select {
		case s := <-w.arrived:
			w.first <- s
		case <-w.over:
		}
	}()
	return w
}

// received returns the signal, nil if there was none.
func (w *stopWatch) received() os.Signal {
	select {
	case s := <-w.first:
		w.first <- s
		return s
	default:
		return nil
	}
}

func (w *stopWatch) end() { close(w.over) }
