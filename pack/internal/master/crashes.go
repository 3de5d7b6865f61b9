package master

import (
	"errors"
	"os"
	"os/exec"
	"sync"

	"github.com/gopherpack/gopherpack/pack/internal/crash"
)

// crashes are the files to which workers write why they crash, of those that have a process. Without one, the log does
// not say it.
type crashes struct {
	mu    sync.Mutex
	files map[seat]*os.File
}

// seat is where a worker sits: its generation, and its number there.
type seat struct{ generation, id int }

// expect returns the file for the next process of a worker; nil if there can be none.
func (c *crashes) expect(at seat) *os.File {
	f, err := crash.New()
	if err != nil {
		return nil
	}
	c.put(at, f)
	return f
}

func (c *crashes) put(at seat, f *os.File) {
	old := c.take(at)
	c.mu.Lock()
	c.files[at] = f
	c.mu.Unlock()
	closeFiles([]*os.File{old})
}

func (c *crashes) get(at seat) *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.files[at]
}

func (c *crashes) take(at seat) *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[at]
	delete(c.files, at)
	return f
}

// ended returns why the process of a worker has crashed, in a line; "" if it has not, or it is known why it was ended.
func (c *crashes) ended(at seat, err error) string {
	f := c.take(at)
	defer closeFiles([]*os.File{f})
	if _, byItself := errors.AsType[*exec.ExitError](err); !byItself {
		return ""
	}
	return crash.Reason(f)
}

func (c *crashes) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.files {
		f.Close()
	}
	clear(c.files)
}
