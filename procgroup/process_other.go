//go:build !unix

package procgroup

import (
	"errors"
	"net"
	"os"
)

var terminate = os.Kill

func (g *Group) startProcess(*Process) (handle, error)           { return nil, errors.ErrUnsupported }
func (g *Group) adoptProcess(*Process, *os.File) (handle, error) { return nil, errors.ErrUnsupported }

func openControl(int) (*net.UnixConn, error) { return nil, errors.ErrUnsupported }
func controlEnded(int) bool                  { return false }
