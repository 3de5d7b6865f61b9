//go:build unix

package program

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Identity is which worker a process is.
type Identity struct{ ID, Generation int }

// others are processes that are not of a program, and when they were looked at. To look at all of them again and again
// would be most of what tests cost.
type others struct {
	mu sync.Mutex
	at map[string]time.Time
}

// sameProcess is for how long a PID is that of the same process.
const sameProcess = 5 * time.Second

// environ returns the environments of the processes of this program, by their PIDs, zombies left out.
func (p *Program) environ() map[int][]byte {
	p.others.mu.Lock()
	defer p.others.mu.Unlock()
	all, before := map[int][]byte{}, p.others.at
	p.others.at = map[string]time.Time{}
	mark := []byte("\x00" + Mark + "=" + p.mark + "\x00")
	now := time.Now()
	dir, err := os.Open("/proc")
	if err != nil {
		return all
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if at, ok := before[name]; ok && now.Sub(at) < sameProcess {
			p.others.at[name] = at
			continue
		}
		env, _ := os.ReadFile("/proc/" + name + "/environ")
		switch {
		case bytes.Contains(env, mark):
			all[pid] = env
		case len(env) > 0: // else it may just be becoming another program
			p.others.at[name] = now
		}
	}
	return all
}

// Processes returns the PIDs of every process of this program, zombies left out.
func (p *Program) Processes() []int { return slices.Sorted(maps.Keys(p.environ())) }

// Identities returns which workers there are, by their PIDs. Others, the master and what handlers have started, have
// none.
func (p *Program) Identities() map[int]Identity {
	all := map[int]Identity{}
	for pid, env := range p.environ() {
		var is Identity
		if _, after, ok := bytes.Cut(env, []byte("\x00GOPHERPACK_IDENTITY=")); ok {
			fmt.Sscanf(string(after), "id=%d generation=%d", &is.ID, &is.Generation)
			all[pid] = is
		}
	}
	return all
}

// Workers returns the PIDs of the workers that there are.
func (p *Program) Workers() []int { return slices.Sorted(maps.Keys(p.Identities())) }

// Complete reports whether there are n workers, of one generation, and no others: while one is missing, a worker of the
// generation before may go on.
func (p *Program) Complete(n int) bool {
	ids, generations := map[int]bool{}, map[int]bool{}
	all := p.Identities()
	for _, is := range all {
		ids[is.ID], generations[is.Generation] = true, true
	}
	return len(all) == n && len(ids) == n && len(generations) == 1
}

// Parent returns the PID of a process' parent, 0 if it has ended.
func Parent(pid int) int {
	if fields := stat(pid); len(fields) > 1 {
		parent, _ := strconv.Atoi(fields[1])
		return parent
	}
	return 0
}

// MostWorkers counts the master's living workers, and preflights, again and again; the function that it returns tells
// how many there were at most. Go's package os has a child of another kind for a moment, to see what the kernel can do.
func (p *Program) MostWorkers() (most func() int) {
	ended, done := atomic.Bool{}, make(chan int)
	go func() {
		most := 0
		for !ended.Load() {
			alive := 0
			for pid := range children(p.PID()) {
				env, _ := os.ReadFile("/proc/" + pid + "/environ") // of a zombie it is empty
				if bytes.Contains(env, []byte("GOPHERPACK_IDENTITY=")) ||
					bytes.Contains(env, []byte("GOPHERPACK_PREFLIGHT=")) {
					alive++
				}
			}
			most = max(most, alive)
			time.Sleep(2 * time.Millisecond)
		}
		done <- most
	}()
	return func() int {
		ended.Store(true)
		return <-done
	}
}

// children returns the PIDs of the children of a process. All are found before any is looked at: those that live then,
// live at once. Some may be found with two threads, since those of a thread that ends go to another.
func children(pid int) map[string]bool {
	all := map[string]bool{}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for child := range strings.FieldsSeq(string(text)) {
			all[child] = true
		}
	}
	return all
}

// Upkeep is what a process costs.
type Upkeep struct {
	Descriptors, Threads, Children int
	Resident, Anonymous            int // memory, and memory without files, in KiB
}

// Upkeep returns what the first process costs. It does not count descriptors of epoll(7), of which a master has one more
// while it waits for the first connection after a pause.
func (p *Program) Upkeep() (u Upkeep) {
	dir := fmt.Sprintf("/proc/%d/", p.PID())
	fds, _ := os.ReadDir(dir + "fd")
	for _, fd := range fds {
		if what, _ := os.Readlink(dir + "fd/" + fd.Name()); what != "anon_inode:[eventpoll]" {
			u.Descriptors++
		}
	}
	threads, _ := os.ReadDir(dir + "task")
	u.Threads, u.Children = len(threads), len(children(p.PID()))
	u.Resident, u.Anonymous = Status(p.PID(), "VmRSS"), Status(p.PID(), "RssAnon")
	return u
}

// CPUTime returns how much of a CPU a process has used; 0 if it has been waited for. The clock ticks 100 times a second.
func CPUTime(pid int) time.Duration {
	var ticks time.Duration
	if f := stat(pid); len(f) > 12 {
		for _, field := range f[11:13] { // in user mode, and in the kernel
			n, _ := strconv.Atoi(field)
			ticks += time.Duration(n)
		}
	}
	return ticks * 10 * time.Millisecond
}

// stat returns what stands behind the name in /proc/PID/stat; see proc_pid_stat(5).
func stat(pid int) []string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// Status returns a number of /proc/PID/status.
func Status(pid int, name string) (n int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), name+":")
	fmt.Sscan(rest, &n)
	return n
}
