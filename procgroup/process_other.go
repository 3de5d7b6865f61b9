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

func openLifeline(int) (*net.UnixConn, error) { return nil, errors.ErrUnsupported }
func lifelineEnded(int) bool                  { return false }
