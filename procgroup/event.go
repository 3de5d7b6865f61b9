package procgroup

import (
	"fmt"
	"time"
)

// StartError is why a group could not be started: its first process failed before it was ready.
type StartError struct {
	Err error // what it told by Process.Fail, or how it ended
}

func (e *StartError) Error() string { return "the first process failed: " + e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// RestartPolicy says which processes that end unasked are replaced.
type RestartPolicy int

const (
	// RestartAlways replaces each: to end is to fail.
	RestartAlways RestartPolicy = iota

	// RestartOnFailure replaces those that fail. A process has not failed, but has done its work, if it was ready, ends
	// with exit status 0, and nobody called its Fail. When all members have done their work Run returns nil.
	RestartOnFailure

	// RestartNever replaces none. When all processes have ended, Run returns a [*MemberError] about the first that
	// failed, or nil.
	RestartNever
)

var policyNames = []string{"always", "on failure", "never"}

// String returns "always", "on failure" or "never".
func (p RestartPolicy) String() string { return nameOf("RestartPolicy", policyNames, int(p)) }

func nameOf(kind string, names []string, i int) string {
	if i < 0 || i >= len(names) {
		return fmt.Sprintf("%s(%d)", kind, i)
	}
	return names[i]
}

// MemberError is why a group gave up, or what failed in one that replaces nothing.
type MemberError struct {
	ID       int
	Failures int   // that were not forgiven
	GaveUp   bool  // they are MaxFailures
	Err      error // of the last
}

func (e *MemberError) Error() string {
	if e.GaveUp {
		return fmt.Sprintf("gave up at failure %d of member %d: %v", e.Failures, e.ID, e.Err)
	}
	return fmt.Sprintf("member %d failed: %v", e.ID, e.Err)
}

func (e *MemberError) Unwrap() error { return e.Err }

// EventKind is what happened.
type EventKind int

const (
	Started EventKind = iota // a process was started
	Ready                    // a process is ready
	Killed                   // a process had to be killed, because of Err
	Failed                   // a process could not be started, or ended unasked, because of Err
	Stopped                  // a process ended that was asked to; Err is its exit status, if that is not 0
	Done                     // a process ended unasked and has not failed, by the RestartPolicy: it is not replaced
)

var kindNames = []string{"started", "ready", "killed", "failed", "stopped", "done"}

// String returns the name of the constant in lower case.
func (k EventKind) String() string { return nameOf("EventKind", kindNames, int(k)) }

// Event is something that happened to a process of the group.
type Event struct {
	Kind     EventKind
	ID       int           // the member
	PID      int           // 0 if it could not be started
	Attempt  int           // which process of the member
	Err      error         // why, for Killed, Failed and Stopped
	Failures int           // for Failed: how many in a row
	Retry    time.Duration // for Failed: the delay before the next process; -1 if there will be none
	Uptime   time.Duration // for Failed, Stopped and Done: since the start
}
