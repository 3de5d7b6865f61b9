//go:build !unix

package procgroup

import (
	"errors"
	"net"
	"os"
	"os/exec"
)

var terminate = os.Kill

func askToEnd(signal func(os.Signal) error) error { return signal(terminate) }

func (g *Group) startProcess(*Process) (handle, error)           { return nil, errors.ErrUnsupported }
func (g *Group) adoptProcess(*Process, *os.File) (handle, error) { return nil, errors.ErrUnsupported }

func openControl(int) (*net.UnixConn, error) { return nil, errors.ErrUnsupported }
func controlEnded(int) bool                  { return false }
func isSocket(int) bool                      { return false }

func giveTo(*exec.Cmd, *os.File) {}

func readNow(*os.File, []byte) (int, error) { return 0, errors.ErrUnsupported }
func reopen(*os.File) (*os.File, error)     { return nil, errors.ErrUnsupported }
