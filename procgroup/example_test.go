package procgroup_test

import (
	"context"
	"io"
	"log"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/procgroup"
	"github.com/gopherpack/gopherpack/sigctl"
)

// Keep four processes running, each on a CPU of its own, until a signal asks to stop.
func ExampleGroup() {
	ctx, stop := sigctl.Context(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cpus, err := affinity.Spread(4, affinity.PerCPU)
	if err != nil {
		log.Fatal(err)
	}
	g := &procgroup.Group{
		Size:         4,
		Command:      func(id int) (*exec.Cmd, error) { return exec.Command("worker"), nil },
		Start:        func(id int, cmd *exec.Cmd) error { return affinity.Do(cpus[id], cmd.Start) },
		ReadyTimeout: time.Minute,
		Event:        func(e procgroup.Event) { log.Println("worker", e.ID, e.Kind, e.Err) },
	}
	if err := g.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// The other side: say ready, and end with the parent.
func ExampleInherit() {
	control, err := procgroup.Inherit()
	if err != nil {
		log.Fatal(err)
	}
	control.Write([]byte{1})
	go func() {
		io.Copy(io.Discard, control)
		os.Exit(0)
	}()
}
