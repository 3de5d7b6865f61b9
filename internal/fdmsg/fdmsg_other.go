//go:build !unix

package fdmsg

import (
	"errors"
	"os"
)

var oobSpace = 0

func dontLinger(*os.File)               {}
func rights([]int) []byte               { return nil }
func truncated(int) bool                { return false }
func parseRights([]byte) ([]int, error) { return nil, errors.ErrUnsupported }
