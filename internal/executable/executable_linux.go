package executable

import (
	"strconv"

	"github.com/gopherpack/gopherpack/internal/inplace"
)

// hasRunning says that there is a /proc/self/exe.
const hasRunning = true

// descriptorPath returns a path that leads to the open file, in this process and, until execve has closed it, in a
// child of it.
func (i *Image) descriptorPath() (string, error) {
	fd, err := inplace.Descriptor(i.file)
	return "/proc/self/fd/" + strconv.Itoa(fd), err
}
