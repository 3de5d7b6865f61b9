package upgrade

import (
	"os"

	"golang.org/x/sys/unix"
)

// mark notes which socket it is that is passed on: the process that is meant has it, whoever its parent is by then, and
// one that has merely inherited the variable does not.
func (n note) mark(socket *os.File) (name string, err error) {
	fd, err := descriptor(socket)
	if err != nil {
		return "", err
	}
	n.numbers["inode"], err = socketInode(fd)
	return "inode", err
}

func isMeant(fd int, n note) bool {
	inode, err := socketInode(fd)
	return err == nil && inode == n.numbers["inode"]
}

func socketInode(fd int) (uint64, error) {
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	if s.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return 0, unix.ENOTSOCK
	}
	return s.Ino, nil
}
