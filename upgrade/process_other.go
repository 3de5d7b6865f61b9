//go:build !unix || aix

package upgrade

import (
	"context"
	"errors"

	"github.com/gopherpack/gopherpack/internal/executable"
)

func (u *Upgrader) inherit() error { return nil }
func (u *Upgrader) draining() int  { return 0 }
func (u *Upgrader) become() error  { return errors.ErrUnsupported }

func (u *Upgrader) start(context.Context, *executable.Image) (*control, error) {
	return nil, errors.ErrUnsupported
}

func tryOut(context.Context, *executable.Image) error { return errors.ErrUnsupported }
