package upgrade

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// modeTells says that a file's mode tells whether it may be executed.
const modeTells = true

// openExecutable opens a file so that it can be executed, under a number that the files which a child gets do not take,
// nor the numbers after those: there Go moves descriptors, in the child, before it executes the file.
func openExecutable(path string) (*os.File, error) {
	low, err := os.OpenFile(path, unix.O_PATH, 0) // whoever may execute it need not be allowed to read it
	if err != nil {
		return nil, err
	}
	defer low.Close()
	for _, least := range []int{4096, 64, leastImage} { // few descriptors may be allowed
		if f, err := duplicate(low, path, least); err == nil {
			return f, nil
		}
	}
	_, err = duplicate(low, path, leastImage)
	if errors.Is(err, unix.EINVAL) { // fcntl(2) has that for what is not below the limit
		err = fmt.Errorf("it takes a descriptor of %d or more, and the limit of open files (ulimit -n) is too low: %w",
			leastImage, unix.EMFILE)
	}
	return nil, err
}

// leastImage is the least number under which an executable is held open.
const leastImage = 16

func pathOf(f *os.File, name string) (string, error) {
	fd, err := descriptor(f)
	if err != nil {
		return "", err
	}
	path := "/proc/self/fd/" + strconv.Itoa(fd)
	switch _, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist), err == nil && isScript(path):
		return byName(name)
	case err != nil:
		return "", err
	}
	return path, nil
}

func isScript(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var begin [2]byte
	_, err = io.ReadFull(f, begin[:])
	return err == nil && string(begin[:]) == "#!"
}
