//go:build linux

package pack_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// makeGroup makes a control group, which is removed when the test has ended.
func makeGroup(t *testing.T, group string) error {
	t.Helper()
	if err := os.Mkdir(group, 0o755); err != nil {
		return err
	}
	t.Cleanup(func() {
		err := os.Remove(group)
		for deadline := time.Now().Add(inTime); err != nil && time.Now().Before(deadline); err = os.Remove(group) {
			time.Sleep(10 * time.Millisecond) // who has just ended is in it for a moment longer
		}
		if err != nil {
			t.Error(err)
		}
	})
	return nil
}

// setGroup writes to a file of a control group. The kernel has made it, if there is such a thing in this group.
func setGroup(group, file, text string) error {
	f, err := os.OpenFile(filepath.Join(group, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}
