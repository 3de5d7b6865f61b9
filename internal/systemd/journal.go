package systemd

import (
	"fmt"
	"os"
)

// IsJournal reports whether a file is the stream to the journal that systemd has given to the service that this process
// belongs to: systemd.exec(5), JOURNAL_STREAM.
func IsJournal(f *os.File) bool {
	device, inode, ok := numbers(f)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", device, inode)
}
