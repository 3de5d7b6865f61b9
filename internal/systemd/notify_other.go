//go:build !linux

package systemd

import "errors"

// Keep and Drop are for Linux.
func (s Service) Keep(string, int) error { return errors.ErrUnsupported }
func (s Service) Drop(string) error      { return errors.ErrUnsupported }

func closeOnExec(int) {}

// Notify does nothing: nobody has asked to be told.
func (s Service) Notify(Message) error { return nil }
