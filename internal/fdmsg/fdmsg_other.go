//go:build !unix

package fdmsg

import (
	"errors"
	"syscall"
)

var oobSpace = 0

func isReset(error) bool                { return false }
func areTooMany(error) bool             { return false }
func dontLinger(syscall.Conn)           {}
func rights([]int) []byte               { return nil }
func truncated(int) bool                { return false }
func parseRights([]byte) ([]int, error) { return nil, errors.ErrUnsupported }
