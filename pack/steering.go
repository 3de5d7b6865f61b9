package pack

import (
	"os"
	"syscall"

	"github.com/gopherpack/gopherpack/affinity"
)

// Steering has the kernel choose which worker's socket a connection goes to. Package ebpf/steer has one, which it says
// more about. Its methods are called in the master, which does without what they cannot do, but for Start, and logs it
// once.
type Steering interface {
	// Start gets ready for workers 0 to n-1, which are pinned to these CPUs, and forgets what was before. An error
	// keeps the pack from starting, or calls an upgrade off.
	Start(workers []affinity.Set) error

	// Mode returns how connections are steered, and why in no better way. With "hash" and
	// "SO_INCOMING_CPU" the kernel may choose any socket of the group, otherwise only those that were attached.
	Mode() (mode string, reason error)

	// Attach steers what comes to a group of sockets, of which sockets[i] is worker i's. inherited, which it closes, is
	// what Export returned in the program whose place this one has taken; nil if there was none.
	Attach(name string, sockets []syscall.Conn, inherited *os.File) error

	// Export returns what the program that takes the place of this one needs to attach its steering without a gap: a
	// file that the caller closes, or nil.
	Export(name string) (*os.File, error)

	// Join finds a slot of the scoreboard for a worker process to report in, and Leave gives it back.
	Join() (slot int, err error)
	Leave(slot int)

	// Board returns the scoreboard, which worker processes map to report in. The caller closes it.
	Board() (*os.File, error)

	// Up says that a worker accepts connections, and in which slot it reports; Drain that it only finishes what it has,
	// and Down that it is gone.
	Up(worker, slot int) error
	Drain(worker int) error
	Down(worker int) error

	// Watch has f called when a worker is found to hang, and when it goes on, unless Up, Drain or Down was called for it
	// meanwhile, after which it is judged anew. It is called before Start.
	Watch(f func(worker int, hung bool))

	// Close ends the steering of this process.
	Close() error
}
