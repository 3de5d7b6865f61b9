//go:build !linux

package executable

import (
	"errors"
	"fmt"
)

const hasRunning = false

func (i *Image) descriptorPath() (string, error) {
	return "", fmt.Errorf("executable %s was replaced: %w", i.path, errors.ErrUnsupported)
}
