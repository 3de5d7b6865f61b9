//go:build !linux

package pack

import "os"

func executable() (string, error) { return os.Executable() }
