package upgrade

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// An answer is the version of what this package passes on and a length, each four bytes, big-endian, and that many
// bytes.
const (
	answerHeader = 8
	maxAnswer    = 1 << 20 // bytes
	maxVersion   = 1 << 16 // beyond that it is something else, such as text

	// versionOfPrivileged is instead of a version, and of all else, from a program that has rights by its file.
	versionOfPrivileged = 0
)

var errPrivileged = errors.New("it has rights by its file (setuid, setgid or capabilities), and so believes nobody " +
	"who starts it: give it ambient capabilities instead (AmbientCapabilities= of systemd, setpriv --ambient-caps)")

var errNoAnswer = errors.New("it did not answer")

// Preflight runs an executable as far as its call of [Question.Answer], and returns the answer. So most of what is
// wrong with a new version is found while the old one is whole: it is started with [Args], [Environ] and env, in
// [Dir], does what comes before, finds by [Asked] that it is asked, and what. What it writes to standard output and
// error goes where this program's goes; its standard input is empty.
//
// If it ends without an answer, or with one of more than 1 MiB, the error says so, and with which status. When ctx
// ends, and a moment after the answer, the program and all that is left in its process group are killed. A program
// whose package upgrade does not understand what this one passes on is refused, and so is one that has rights by its
// file (setuid, setgid, capabilities), since it believes nobody who starts it.
//
// It works where there are Unix sockets and process groups; elsewhere the error matches [errors.ErrUnsupported].
func Preflight(ctx context.Context, i *Image, question []byte, env ...string) (answer []byte, err error) {
	answer, err = preflight(ctx, i, question, env)
	if err != nil {
		return nil, fmt.Errorf("upgrade: preflight of %s: %w", i.name, err)
	}
	return answer, nil
}

// Question is what [Preflight] asks of this program. Its methods are safe for concurrent use.
type Question struct {
	file *os.File
	read func() []byte
}

// Asked returns a question if Preflight started this program, nil if not. It is found before main begins. A program
// that is asked must not serve, nor change anything: another is serving.
func Asked() *Question { return started.question }

// Bytes returns the question.
func (q *Question) Bytes() []byte { return q.read() }

// Answer answers and ends the process, with status 0, or 1 if nobody is there to take the answer.
func (q *Question) Answer(b []byte) {
	text := binary.BigEndian.AppendUint32(nil, estateVersion)
	text = binary.BigEndian.AppendUint32(text, uint32(len(b)))
	if _, err := q.file.Write(append(text, b...)); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// refuse ends this process, which has rights by its file, if it is asked, or is to take over: it would go on as if that
// were not so, beside the program that runs. To say so takes no belief: what is written goes to the asker's own socket.
func refuse(notes map[string]note) {
	if s := inheritSocket(notes[preflightEnv]); s != nil {
		s.file.Write(binary.BigEndian.AppendUint32(nil, versionOfPrivileged))
		os.Exit(1)
	}
	if inheritSocket(notes[successorEnv]) != nil {
		fmt.Fprintln(os.Stderr, "upgrade:", errPrivileged)
		os.Exit(1)
	}
}

func inheritQuestion(n note) *Question {
	s := inheritSocket(n)
	if s == nil {
		return nil
	}
	return &Question{s.file, sync.OnceValue(func() []byte {
		text, _ := io.ReadAll(s.file) // a question that is cut short is nobody's any more, and Answer finds that out
		return text
	})}
}

// readAnswer reads an answer, which ends where it says, not at the end of the connection: something that the program
// has started may hold that.
func readAnswer(r io.Reader) ([]byte, error) {
	header := make([]byte, answerHeader)
	switch n, err := io.ReadFull(r, header); {
	case n >= 4 && binary.BigEndian.Uint32(header) == versionOfPrivileged:
		return nil, errPrivileged
	case err != nil:
		return nil, errNoAnswer
	}
	version, length := binary.BigEndian.Uint32(header), binary.BigEndian.Uint32(header[4:])
	switch {
	case version > maxVersion:
		rest, _ := io.ReadAll(io.LimitReader(r, 200))
		return nil, fmt.Errorf("its answer is not one: %q", append(header, rest...))
	case version != estateVersion:
		return nil, fmt.Errorf("it takes over what is of version %d, and this is version %d", version, estateVersion)
	case length > maxAnswer:
		return nil, fmt.Errorf("its answer has %d bytes, at most %d are read", length, maxAnswer)
	}
	answer := make([]byte, length)
	if _, err := io.ReadFull(r, answer); err != nil {
		return nil, fmt.Errorf("its answer is cut short: %w", err)
	}
	return answer, nil
}
