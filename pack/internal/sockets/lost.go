package sockets

import (
	"context"
	"errors"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// Renewed is a Unix socket whose file somebody has removed or replaced. If it could be bound anew, workers that are to
// come get another socket, and the one before, with what is queued on it, is known by another name.
type Renewed struct {
	Endpoint wire.Endpoint
	Info     Info          // of the new socket
	Before   wire.Endpoint // how the one before is called now
	Err      error         // why there is no new one, and nobody can connect; nil if there is
}

// Lost reports whether somebody has removed or replaced the file of a Unix socket, to which nobody can connect any
// more.
func (k *Keeper) Lost() bool { return len(k.lost()) > 0 }

func (k *Keeper) lost() (all []wire.Endpoint) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.endpoints() {
		if s := k.open[e]; s.file != nil && !isReplaced(e) && !s.file.inPlace() {
			all = append(all, e)
		}
	}
	return all
}

// isReplaced reports whether the endpoint has the name of sockets that others have taken the place of.
func isReplaced(e wire.Endpoint) bool { return e.Index < 0 }

// Renew binds sockets anew whose file is lost.
func (k *Keeper) Renew(ctx context.Context) (all []Renewed) {
	for _, e := range k.lost() {
		s, err := k.openUnix(ctx, e.Address)
		r := Renewed{Endpoint: e, Err: explain(err, "")}
		if err == nil {
			r.Info, r.Before, r.Err = k.replace(e, s)
		}
		all = append(all, r)
	}
	return all
}

// replace puts other sockets in the place of those that there are, and returns the name that these have from now on.
func (k *Keeper) replace(e wire.Endpoint, s *set) (info Info, before wire.Endpoint, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || k.open[e] == nil {
		s.close()
		return info, before, errors.New("it was closed meanwhile")
	}
	before = e
	for before.Index = -1; k.open[before] != nil; before.Index-- { // which no worker asks for
	}
	k.open[before], k.open[e] = k.open[e], s
	k.polled.changed()
	return s.info(e), before, nil
}
