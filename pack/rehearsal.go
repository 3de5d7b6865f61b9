package pack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/executable"
)

// A rehearsal is the start of a new executable as if it were the master's successor already, before it is: it does what
// comes before Run, checks its configuration, and tells over a pipe what workers it wants, and whether it understands
// what it would inherit. Then it exits. So most of what would end a pack that has just become another program is found
// while the old one is whole.

// rehearsalEnv tells a program that it is one: "fd=3 parent=123 version=1 protocol=1".
const rehearsalEnv = "GOPHERPACK_REHEARSAL"

// rehearsal is what a rehearsing program knows of the master that has started it.
type rehearsal struct {
	answer   *os.File
	version  int // of the succession
	protocol int // that the running workers speak
}

// rehearsalAnswer is what it says.
type rehearsalAnswer struct {
	Error    string         `json:"error,omitempty"` // why it would not do
	Shares   []affinity.Set `json:"shares,omitempty"`
	Unpinned string         `json:"unpinned,omitempty"`
	User     string         `json:"user,omitempty"`
}

// inheritRehearsal returns what a master that wants a rehearsal has said; nil if there is none.
func inheritRehearsal() *rehearsal {
	text, ok := os.LookupEnv(rehearsalEnv)
	if !ok {
		return nil
	}
	os.Unsetenv(rehearsalEnv)
	numbers := map[string]int{}
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		numbers[name], _ = strconv.Atoi(value)
	}
	if numbers["parent"] != os.Getppid() || numbers["fd"] < 3 {
		return nil // a program that the rehearsing one started
	}
	closeOnExec(numbers["fd"])
	return &rehearsal{
		answer:   os.NewFile(uintptr(numbers["fd"]), "rehearsal"),
		version:  numbers["version"],
		protocol: numbers["protocol"],
	}
}

// rehearse is Run in a rehearsal. It does not return, since what follows Run is for the end of a pack that has run.
func (p *Pack) rehearse(r *rehearsal, err error) {
	var answer rehearsalAnswer
	if err == nil {
		answer, err = p.audition(r)
	}
	if err != nil {
		answer = rehearsalAnswer{Error: err.Error()}
	}
	status := 0
	if json.NewEncoder(r.answer).Encode(answer) != nil {
		status = 1 // the master is gone
	}
	os.Exit(status)
}

func (p *Pack) audition(r *rehearsal) (a rehearsalAnswer, err error) {
	switch {
	case p.config.Inline:
		return a, errors.New("it runs in line, without a master")
	case r.version != successionVersion:
		return a, fmt.Errorf("it takes over a state of version %d, and this is version %d", successionVersion, r.version)
	case r.protocol != protocolVersion:
		return a, fmt.Errorf("it speaks version %d of the protocol with workers, and these speak %d", protocolVersion, r.protocol)
	}
	spec, err := (&masterState{config: p.config}).prepare()
	if err != nil {
		return a, err
	}
	if err := p.config.trySteering(spec.plan); err != nil {
		return a, err
	}
	return rehearsalAnswer{Shares: spec.plan.shares, Unpinned: spec.plan.unpinned, User: spec.user}, nil
}

// rehearse has an executable rehearse, and returns what workers it wants.
func (m *masterState) rehearse(ctx context.Context, image *executable.Image) (generationSpec, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.config.ReadyTimeout, fmt.Errorf("no answer within %v", m.config.ReadyTimeout))
	defer cancel()
	answer, err := runRehearsal(ctx, image)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return generationSpec{}, fmt.Errorf("the new executable does not do as a master: %w", err)
	}
	if answer.Error != "" {
		return generationSpec{}, fmt.Errorf("the new executable will not be the master: %s", answer.Error)
	}
	if n := len(answer.Shares); n < 1 || n > maxWorkers {
		return generationSpec{}, fmt.Errorf("the new executable wants %d workers", n)
	}
	return generationSpec{plan: plan{shares: answer.Shares, unpinned: answer.Unpinned}, user: answer.User, image: image}, nil
}

func runRehearsal(ctx context.Context, image *executable.Image) (a rehearsalAnswer, err error) {
	path, err := image.Path()
	if err != nil {
		return a, err
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		return a, err
	}
	defer ours.Close()
	cmd := exec.CommandContext(ctx, path)
	cmd.Args = os.Args
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=fd=3 parent=%d version=%d protocol=%d",
		rehearsalEnv, os.Getpid(), successionVersion, protocolVersion))
	inOwnGroup(cmd)
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return a, err
	}
	read := make(chan []byte, 1)
	go func() {
		text, _ := io.ReadAll(io.LimitReader(ours, 1<<20))
		read <- text
	}()
	err = cmd.Wait()
	// The pipe ends with the process, unless something that it started has a copy.
	ours.SetReadDeadline(time.Now().Add(time.Second))
	text := <-read
	if err != nil {
		return a, err
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return a, errors.New("it ended, with exit status 0, without having called Run")
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("its answer %.100q: %w", text, err)
	}
	return a, nil
}
