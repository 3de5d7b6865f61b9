package upgrade

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
)

// Estate is what [Become] passed on to this program. Its methods must not be called at the same time.
type Estate struct {
	// State is the state, as it was.
	State []byte

	// Files have the descriptors, in order, under the numbers that they had. A file that is to outlive Close is taken
	// out by setting its element to nil. To make a listener of one, copy it (net.FileListener does).
	Files []*os.File

	// Returned is why the successor of this program handed back. It is "" in the successor.
	Returned string

	note     note
	dir      string // where the predecessor was started
	numbers  []int
	memory   *os.File
	previous *Image
	err      error
	opened   sync.Once
}

// Inherited returns what Become passed on to this program, nil if nothing. Each call returns the same.
//
// It is found, and its descriptors are made close-on-exec, before main begins, so that no program that is started in
// the meantime inherits them. A process that has merely inherited the environment is not deceived.
func Inherited() *Estate {
	e := started.estate
	if e != nil {
		e.opened.Do(func() {
			for _, fd := range e.numbers {
				e.Files = append(e.Files, os.NewFile(uintptr(fd), "inherited"))
			}
		})
	}
	return e
}

// Err returns why what was passed on cannot be understood, nil if it can. If it cannot, State and Files are nil, and
// HandBack is what can be done.
func (e *Estate) Err() error { return e.err }

// inheritEstate returns what a note speaks of, nil if it was meant for another process.
func inheritEstate(n note) *Estate {
	memory, previous := n.descriptor("memory"), n.descriptor("previous")
	if memory < 0 || n.numbers["pid"] != uint64(os.Getpid()) {
		return nil
	}
	if start, err := startTime(); err != nil || n.numbers["start"] != start || !closeOnExec(memory) {
		return nil
	}
	e := &Estate{note: n, Returned: n.text, memory: os.NewFile(uintptr(memory), "estate")}
	if previous >= 0 && closeOnExec(previous) {
		f := os.NewFile(uintptr(previous), "the previous executable")
		e.previous = &Image{name: f.Name(), file: f}
		e.previous.path, e.err = pathOf(f, f.Name())
	}
	e.err = cmp.Or(e.read(), e.err)
	return e
}

func (e *Estate) read() error {
	if v := e.note.numbers["version"]; v != estateVersion {
		return fmt.Errorf("what was passed on is of version %d, this program knows version %d", v, estateVersion)
	}
	i, state, err := readMemory(e.memory)
	if err != nil {
		return err
	}
	for _, fd := range i.Files {
		if !closeOnExec(fd) {
			return fmt.Errorf("descriptor %d, which was passed on, is not open", fd)
		}
	}
	e.State, e.numbers, e.dir = state, i.Files, string(i.Dir)
	if len(i.Path) > 0 {
		started.path, started.pathErr = string(i.Path), nil
	}
	return nil
}

// Previous returns the executable that this program has taken the place of, which stays the estate's; nil if there is
// none. It is for a program that has changed what it inherited already, and so goes back by [Become].
func (e *Estate) Previous() *Image { return e.previous }

// HandBack becomes the previous executable again, which gets the same state and files, and why as [Estate.Returned].
// It is for a program that finds that it cannot go on from what it inherited. It returns only if that fails, and then
// everything is as it was.
//
// None of Files may have been closed or taken out before, nor have been changed in what matters to the previous
// program: there is no other copy. Nothing else that this program has opened stays open.
//
// There is no way back from a program that was handed back to, but an error.
func (e *Estate) HandBack(why error, s Signals) error {
	if err := e.handBack(why, s); err != nil {
		return fmt.Errorf("upgrade: hand back: %w", err)
	}
	return nil
}

func (e *Estate) handBack(why error, s Signals) error {
	if e.Returned != "" {
		return fmt.Errorf("this is the previous executable, its successor handed back (%s)", e.Returned)
	}
	if e.previous == nil {
		return errors.New("there is no previous executable")
	}
	files := []*os.File{e.memory}
	for i, number := range e.numbers {
		gone := fmt.Errorf("file %d of the estate, descriptor %d, was closed or taken out", i, number)
		if i >= len(e.Files) {
			return gone
		}
		if fd, err := descriptor(e.Files[i]); err != nil || fd != number {
			return gone
		}
		files = append(files, e.Files[i])
	}
	n := note{numbers: maps.Clone(e.note.numbers)}
	n.numbers["previous"] = 0
	n.text = strings.TrimSpace(fmt.Sprintf("%.4000s", why.Error()))
	n.text = cmp.Or(n.text, "no reason was given")
	dir := e.dir
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = Dir()
	}
	return execute(e.previous, n, files, s, nil, dir)
}

// Close closes what is left of Files, and the previous executable, so that there is no way back. It is called when
// this program has taken over, and has asked for the signals that it handles: those that were ignored for its sake
// and that it has not asked for by [signal.Notify] get their default action, so call [signal.Ignore] afterwards.
// Calling it again does nothing.
func (e *Estate) Close() {
	for _, f := range e.Files {
		if f != nil {
			f.Close()
		}
	}
	e.Files, e.numbers = nil, nil
	e.memory.Close()
	if e.previous != nil {
		e.previous.Close()
	}
	becoming.Lock()
	defer becoming.Unlock()
	stopIgnoring(e.note.numbers["ignored"])
	e.note.numbers["ignored"] = 0
}
