package upgrade

import (
	"fmt"
	"os"
	"slices"
	"syscall"
)

// AddFile hands a copy of a descriptor to the successor under a name, instead of what was added under it before: an
// [os.File], such as a pipe, a connection ([net.TCPConn] and the like), or a socket that another owns, such as those of
// systemd's socket activation. The file stays the caller's. The copy stays open, so that the other end of a connection
// does not see its end, until RemoveFile, or Close, or a new process has taken over.
func (u *Upgrader) AddFile(fileName string, f syscall.Conn) error {
	n := name{Kind: "file", Address: fileName}
	err := n.check()
	var copied *os.File
	if err == nil {
		copied, err = duplicate(f, fileName, 3)
	}
	if err == nil {
		if err = u.add(n, &item{file: copied}); err != nil {
			copied.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("upgrade: add %s: %w", n, err)
	}
	return nil
}

// RemoveFile has what AddFile or a predecessor has added under a name not be handed on, if there is anything.
func (u *Upgrader) RemoveFile(fileName string) {
	n := name{Kind: "file", Address: fileName}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, all := range []map[name]*item{u.items, u.inherited} {
		if i := all[n]; i != nil {
			u.retired = append(u.retired, i.file)
			delete(all, n)
		}
	}
	u.retire()
}

// FileNames returns the names under which the predecessor has added files that were not asked for by File, nor replaced
// by AddFile, yet, sorted. After Ready there are none.
func (u *Upgrader) FileNames() (all []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for n := range u.inherited {
		if n.Kind == "file" && u.items[n] == nil {
			all = append(all, n.Address)
		}
	}
	slices.Sort(all)
	return all
}

// File returns a copy of the file that the predecessor added under a name, or nil and no error if there is none. The
// caller closes it. It is handed on to the successor in turn. [net.FileConn], [net.FileListener] and
// [net.FilePacketConn] make of it what it was.
func (u *Upgrader) File(fileName string) (*os.File, error) {
	n := name{Kind: "file", Address: fileName}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.phase == replaced || u.phase == closed {
		return nil, fmt.Errorf("upgrade: %s: %w", n, ErrDone)
	}
	i := u.items[n]
	if i == nil {
		if i = u.inherited[n]; i == nil {
			return nil, nil
		}
		u.items[n] = i
		delete(u.inherited, n)
	}
	f, err := duplicate(i.file, fileName, 3)
	if err != nil {
		return nil, fmt.Errorf("upgrade: %s: %w", n, err)
	}
	return f, nil
}
