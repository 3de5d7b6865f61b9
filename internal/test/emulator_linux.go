package test

import (
	"os"
	"testing"
)

// NotEmulated skips a test that needs what an emulator of processors, such as qemu-aarch64, does not pass on to
// programs. It is told from its file being what the kernel runs, while the program is told of its own.
func NotEmulated(t testing.TB, lacks string) {
	t.Helper()
	runs, err := os.Stat("/proc/self/exe")
	if err != nil {
		return
	}
	name, err := os.Executable()
	if err != nil {
		return
	}
	if told, err := os.Stat(name); err == nil && !os.SameFile(runs, told) {
		t.Skip("this program is emulated: " + lacks)
	}
}
