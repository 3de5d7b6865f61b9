package upgrade

import (
	"os"
	"testing"
)

// TestExecutedAs finds this program without /proc.
func TestExecutedAs(t *testing.T) {
	found, err := os.Stat(executedAs())
	if err != nil {
		t.Fatal(err)
	}
	if self, err := os.Stat(runningFile); err != nil || !os.SameFile(found, self) {
		t.Errorf("%s is another file: %v", executedAs(), err)
	}
}
