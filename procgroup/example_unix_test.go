//go:build unix

package procgroup_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"time"

	"github.com/gopherpack/gopherpack/procgroup"
)

// Members can run different programs, as in a Procfile: Command is asked which, by number. What they write comes line
// by line, after their numbers.
func ExampleGroup_commands() {
	commands := [][]string{
		{"echo", "I am the web server"},
		{"sh", "-c", "echo I do the jobs"},
	}
	g := &procgroup.Group{
		Size: len(commands),
		Command: func(id int) (*exec.Cmd, error) {
			return exec.Command(commands[id][0], commands[id][1:]...), nil
		},
		Output:        procgroup.LinesTo(os.Stdout),
		RestartPolicy: procgroup.RestartNever,
	}
	if err := g.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// 0: I am the web server
	// 1: I do the jobs
}

// Processes that fail are replaced, those that end well are not, and at the third failure it is enough.
func ExampleGroup_restartPolicy() {
	g := &procgroup.Group{
		Size: 2,
		Command: func(id int) (*exec.Cmd, error) {
			if id == 0 {
				return exec.Command("true"), nil
			}
			return exec.Command("sh", "-c", "exit 3"), nil
		},
		RestartPolicy: procgroup.RestartOnFailure,
		MaxFailures:   3,
		BackoffMin:    time.Millisecond,
	}
	fmt.Println(g.Run(context.Background()))
	// Output:
	// procgroup: gave up at failure 3 of member 1: exit status 3
}

// Take note of what members write, and see where lines came too fast.
func ExampleGroup_output() {
	g := &procgroup.Group{
		Size:          1,
		Command:       func(int) (*exec.Cmd, error) { return exec.Command("sh", "-c", "echo one; echo two >&2"), nil },
		RestartPolicy: procgroup.RestartNever,
		Output: func(l procgroup.Line) {
			switch {
			case l.Lost > 0:
				fmt.Println("member", l.ID, "is too fast:", l.Lost, "lines were lost")
			case l.Stderr:
				fmt.Println("member", l.ID, "complains:", l.Text)
			default:
				fmt.Println("member", l.ID, "says:", l.Text)
			}
		},
	}
	if err := g.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// member 0 says: one
	// member 0 complains: two
}

// Replace the processes one by one, each when the one before is ready, for instance after their configuration has
// changed.
func ExampleGroup_Restart() {
	ready := make(chan procgroup.Event, 10) // Event must not block
	g := &procgroup.Group{
		Size:    2,
		Command: func(int) (*exec.Cmd, error) { return exec.Command("sleep", "1000"), nil },
		Event: func(e procgroup.Event) {
			if e.Kind == procgroup.Ready {
				ready <- e
			}
		},
	}
	ctx, stop := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- g.Run(ctx) }()
	for range 2 {
		<-ready
	}
	for id := range 2 {
		if err := g.Restart(id); err != nil {
			log.Fatal(err)
		}
		e := <-ready
		fmt.Println("member", e.ID, "has its process", e.Attempt)
	}
	stop()
	fmt.Println(<-result)
	// Output:
	// member 0 has its process 2
	// member 1 has its process 2
	// <nil>
}

// Hand the processes to another group, which could be in the program that takes this one's place by execve(2), and got
// the State as JSON.
func ExampleGroup_Release() {
	began := make(chan int, 10)
	sleep := func(int) (*exec.Cmd, error) { return exec.Command("sleep", "1000"), nil }
	first := &procgroup.Group{
		Size: 1, Command: sleep,
		Event: func(e procgroup.Event) { began <- e.PID },
	}
	go first.Run(context.Background()) // returns ErrReleased
	pid := <-began

	second := &procgroup.Group{Size: 1, Command: sleep, Adopt: first.Release()}
	ctx, stop := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- second.Run(ctx) }()
	for second.Members() == nil { // until it runs
		time.Sleep(time.Millisecond)
	}
	fmt.Println("the same process:", second.Members()[0].PID == pid)
	stop()
	fmt.Println(<-result)
	// Output:
	// the same process: true
	// <nil>
}
