//go:build !unix || aix

package upgrade

import (
	"context"
	"errors"
)

func preflight(context.Context, *Image, []byte, []string) ([]byte, error) {
	return nil, errors.ErrUnsupported
}
