//go:build !unix

package master

import (
	"errors"
	"os"
)

func checkConn(*os.File) error             { return errors.ErrUnsupported }
func duplicate(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }
