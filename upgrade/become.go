package upgrade

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
)

// estateVersion is the version of what Become passes on. A program that does not know it says so in Preflight.
const estateVersion = 1

// Become replaces this program by another in this process, execve(2): the process ID, the parent and the children stay
// what they are. The new program is started with [Args], [Environ] and env, in [Dir]. It gets state, of any size, and
// copies of the descriptors of files, any number, by [Inherited]; those stay the caller's, and no two may have the same
// number. The executable that runs now is kept open for it, so that it can go back: see [Estate.HandBack].
//
// Become returns only if it fails, and then everything is as it was, but that the runtime may have forgotten the
// limit of open files (RLIMIT_NOFILE) that this process was started with: then its children have this process's. The
// error matches [LateSignal], or the errno of what failed. It is for Linux, needs /proc, and is refused to a program
// that has rights by its file (setuid, setgid, capabilities), since the next one could not tell who has started it;
// elsewhere it matches [errors.ErrUnsupported].
func Become(i *Image, state []byte, files []*os.File, s Signals, env ...string) error {
	if err := become(i, state, files, s, env); err != nil {
		return fmt.Errorf("upgrade: become %s: %w", i.name, err)
	}
	return nil
}

var becoming sync.Mutex // held by what changes the process as a whole

// inventory begins the file in memory that Become passes on, as a line of JSON. The state follows.
type inventory struct {
	Files []int  `json:"files"`          // descriptors
	Path  []byte `json:"path,omitempty"` // what Path returns
	Dir   []byte `json:"dir,omitempty"`  // where the program that passes this on was started
}

func become(i *Image, state []byte, files []*os.File, s Signals, env []string) error {
	if err := canBecome(); err != nil {
		return err
	}
	if err := i.check(); err != nil {
		return err
	}
	numbers, files, done, err := passable(files)
	defer done()
	if err != nil {
		return err
	}
	memory, err := inMemory(inventory{numbers, []byte(started.path), []byte(started.dir)}, state)
	if err != nil {
		return err
	}
	defer memory.Close()
	self, err := RunningImage()
	if err != nil {
		return err
	}
	defer self.Close()
	n := note{numbers: map[string]uint64{}}
	for name, f := range map[string]*os.File{"memory": memory, "previous": self.file} {
		fd, err := descriptor(f)
		if err != nil {
			return err
		}
		n.numbers[name] = uint64(fd)
	}
	n.numbers["version"] = estateVersion
	return execute(i, n, append(files, memory, self.file), s, env, Dir())
}

// execute becomes a program, which learns from a note what it inherits.
func execute(i *Image, n note, files []*os.File, s Signals, env []string, dir string) (err error) {
	becoming.Lock()
	defer becoming.Unlock()
	n.numbers["pid"] = uint64(os.Getpid())
	if n.numbers["start"], err = startTime(); err != nil {
		return err
	}
	ignored, restore, err := s.set()
	if err != nil {
		return err
	}
	defer restore()
	defer runtime.KeepAlive(i) // which closes it, if nobody refers to it
	if e := started.estate; e != nil {
		ignored |= e.note.numbers["ignored"] // for this program's sake, which has not asked for them
	}
	n.numbers["ignored"] = ignored
	told := n.setting(estateEnv, "version", "pid", "start", "memory", "previous", "ignored")
	return execve(i.path, Args(), merge(Environ(), append(slices.Clip(env), told)), files, dir)
}

// passable returns the numbers of files that another program may get. A copy is made of standard input, output and
// error, which have a meaning of their own.
func passable(files []*os.File) (numbers []int, passed []*os.File, done func(), err error) {
	var copies []*os.File
	done = func() { closeAll(copies) }
	seen := map[int]bool{}
	for _, f := range files {
		fd, err := descriptor(f)
		if err == nil && fd < 3 {
			if f, err = dup(f); err == nil {
				copies = append(copies, f)
				fd, err = descriptor(f)
			}
		}
		if err != nil {
			return nil, nil, done, err
		}
		if seen[fd] {
			return nil, nil, done, fmt.Errorf("file %s is passed on twice", f.Name())
		}
		seen[fd] = true
		numbers, passed = append(numbers, fd), append(passed, f)
	}
	return numbers, passed, done, nil
}

// inMemory writes what is passed on to a file that has no name in the file system.
func inMemory(i inventory, state []byte) (*os.File, error) {
	head, err := json.Marshal(i)
	if err != nil {
		return nil, err
	}
	f, err := memoryFile()
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(append(head, '\n')); err == nil {
		_, err = f.Write(state)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readMemory is the opposite of inMemory. It leaves the file as it is, for a program to which it may go back.
func readMemory(f *os.File) (i inventory, state []byte, err error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return i, nil, err
	}
	text := make([]byte, size)
	if _, err := f.ReadAt(text, 0); err != nil && !errors.Is(err, io.EOF) {
		return i, nil, err
	}
	return parseMemory(text)
}

func parseMemory(text []byte) (i inventory, state []byte, err error) {
	head, state, found := bytes.Cut(text, []byte("\n"))
	if !found {
		return i, nil, errors.New("what was passed on has no inventory")
	}
	if err := json.Unmarshal(head, &i); err != nil {
		return i, nil, fmt.Errorf("the inventory: %w", err)
	}
	seen := map[int]bool{}
	for _, fd := range i.Files {
		if fd < 3 || seen[fd] {
			return i, nil, fmt.Errorf("the inventory has descriptor %d", fd)
		}
		seen[fd] = true
	}
	return i, state, nil
}
