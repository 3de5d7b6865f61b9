//go:build !linux

package steer

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// There is no such program on other systems.

type kernel struct{}

type group struct{}

func (s *Steering) load() error {
	return fmt.Errorf("%s has no such program: %w", runtime.GOOS, errors.ErrUnsupported)
}

func (s *Steering) watch(<-chan struct{}) {}
func (s *Steering) tell() error           { return nil }
func (s *Steering) queued(int) int        { return 0 }
func (s *Steering) restore(int)           {}

func boardFile(*kernel) (*os.File, error) { return nil, errors.ErrUnsupported }
func (k *kernel) attach([]syscall.Conn, *os.File, *group) (*group, error) {
	return nil, errors.ErrUnsupported
}
func (k *kernel) lost(int, *worker) uint32           { return 0 }
func (k *kernel) count(int, *WorkerStats) error      { return nil }
func (k *kernel) close() error                       { return nil }
func (g *group) holdsAny([]syscall.Conn) (int, bool) { return 0, false }
func (g *group) close() error                        { return nil }
func (g *group) file() (*os.File, error)             { return nil, errors.ErrUnsupported }

func sameGroup([]syscall.Conn) error { return nil }

func receivesSpread([]worker) error { return errors.ErrUnsupported }

func preferIncoming([]syscall.Conn, []worker) error { return errors.ErrUnsupported }
