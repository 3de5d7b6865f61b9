// Package crash is how a master learns why a worker has crashed: the Go runtime writes what it writes to stderr then to
// a file in memory, too (debug.SetCrashOutput), which the master reads when the worker has ended.
package crash

import (
	"io"
	"os"
	"strings"
)

// size is how much of a crash is kept, in bytes: its beginning.
const size = 64 << 10

// maxReason is how long a reason may be, in bytes.
const maxReason = 500

// Reason returns the line that says why a process has crashed, which was told to write that to a file of New: "boom" of
// "panic: boom", or what begins with "fatal error: " or the name of a signal. It returns "" if it has not crashed, or
// nobody knows; f may be nil.
func Reason(f *os.File) string {
	if f == nil {
		return ""
	}
	text, _ := io.ReadAll(io.NewSectionReader(f, 0, size))
	return reason(string(text))
}

func reason(text string) string {
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\x00\n")
		said, isPanic := strings.CutPrefix(line, "panic: ")
		if isPanic || strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "SIG") {
			return strings.ToValidUTF8(said[:min(len(said), maxReason)], "?")
		}
	}
	return ""
}
