//go:build !unix || aix

package upgrade

import (
	"context"
	"errors"
	"os"
)

var usualSignals []os.Signal

type successor struct{ *control }

func (*successor) kill()          {}
func (*successor) pid() int       { return 0 }
func (*control) ready() error     { return errors.ErrUnsupported }
func (u *Upgrader) draining() int { return 0 }

func connect(*inheritedSocket) (*control, *holdings, error) { return nil, nil, errors.ErrUnsupported }

func start(context.Context, *Image, *holdings, string) (*successor, error) {
	return nil, errors.ErrUnsupported
}
