package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// How this program was started, as found in init: main, or a library that it uses, may change all of it afterwards.
var started struct {
	args    []string
	environ []string // without what is meant for this process alone
	dir     string   // the working directory, "" if it is not known
	pwd     string   // $PWD, if it named that directory
	path    string   // where the executable was
	pathErr error

	estate    *Estate
	question  *Question
	successor *inheritedSocket // from the predecessor, if this is a new process that takes over from it
}

func init() {
	started.args = slices.Clone(os.Args)
	notes := takeNotes()
	started.environ = slices.DeleteFunc(os.Environ(), isActivation)
	started.dir, started.pwd = startDirectory()
	started.path, started.pathErr = findExecutable()
	if privileged() { // whoever started this program has fewer rights than it: what they say is not to be believed
		refuse(notes)
		return
	}
	started.estate = inheritEstate(notes[estateEnv])
	started.question = inheritQuestion(notes[preflightEnv])
	started.successor = inheritSocket(notes[successorEnv])
	if started.estate != nil || started.question != nil || started.successor != nil {
		NameProcess() // the kernel has named it after a number
	}
}

// Args returns the arguments that this program was started with, its name first, whatever has become of [os.Args]. The
// slice is the caller's.
func Args() []string { return slices.Clone(started.args) }

// Environ returns the environment that this program was started with, whatever has become of it since, in the form of
// [os.Environ] and without the variables by which this package, or systemd's socket activation (LISTEN_FDS and others,
// sd_listen_fds(3)), tells a program what it inherits: the next one inherits something else. The slice is the caller's.
func Environ() []string { return slices.Clone(started.environ) }

// isActivation reports whether a variable says which sockets a process was started with.
func isActivation(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	return slices.Contains([]string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"}, name)
}

// Dir returns the directory in which the next program should start: the one in which this program was started. If the
// environment variable PWD named it then, Dir returns that name, so that a symbolic link such as "current" leads to
// where it points now. It returns "" if that directory is not known, or no longer exists.
func Dir() string {
	for _, dir := range []string{started.pwd, started.dir} {
		if info, err := os.Stat(dir); dir != "" && err == nil && info.IsDir() {
			return dir
		}
	}
	return ""
}

// startDirectory returns the working directory, and $PWD if that names it.
func startDirectory() (dir, pwd string) {
	here, err := os.Stat(".")
	if err != nil {
		return "", ""
	}
	pwd = os.Getenv("PWD")
	if there, err := os.Stat(pwd); err != nil || !filepath.IsAbs(pwd) || !os.SameFile(here, there) {
		pwd = ""
	}
	dir, err = os.Getwd()
	if err != nil {
		return "", pwd
	}
	if physical, err := filepath.EvalSymlinks(dir); err == nil {
		dir = physical
	}
	return dir, pwd
}

// Path returns where this program was started from, which is where its next version will be. Symbolic links are kept,
// since a deployment may turn them to another version. The path is absolute. It is found out before main begins, and a
// program that [Become] runs has it from its predecessor, so that no later change of the file or of [os.Args] matters.
//
// The name that the program was called by is followed as a shell would. If that leads to something else than what is
// running (it can be anything), the path is that of the running file.
func Path() (string, error) {
	if started.pathErr != nil {
		return "", fmt.Errorf("upgrade: %w", started.pathErr)
	}
	return started.path, nil
}

// findExecutable is called before anything has changed os.Args, PATH or the working directory.
func findExecutable() (string, error) {
	if len(os.Args) > 0 && os.Args[0] != "" {
		path := os.Args[0]
		if !strings.ContainsRune(path, filepath.Separator) {
			path, _ = exec.LookPath(path)
		}
		if path, err := filepath.Abs(path); err == nil && isRunning(path) {
			return path, nil
		}
	}
	path, err := os.Executable()
	if errors.Is(err, fs.ErrNotExist) && runningFile != "" {
		if path := executedAs(); path != "" {
			return filepath.Abs(path)
		}
		err = fmt.Errorf("%w (is /proc mounted?)", err)
	}
	return path, err
}

// isRunning reports whether a path leads to the file that this process runs, as far as that can be known.
func isRunning(path string) bool {
	there, err := os.Stat(path)
	if err != nil {
		return false
	}
	self, err := os.Stat(runningFile)
	return err == nil && os.SameFile(there, self)
}

// NameProcess names this process after the base name of its first argument, or of [Path] if that is empty, as ps and
// pkill show it. A process that was started from [Image.Path] needs that, since the kernel has named it after the last
// part of that path, a number; in programs that this package starts it has been done before main begins. It is for
// Linux, and elsewhere does nothing.
func NameProcess() {
	nameProcess(processName(started.args, started.path))
}

func processName(args []string, path string) string {
	if len(args) > 0 && args[0] != "" {
		path = args[0]
	}
	return strings.TrimPrefix(filepath.Base(path), "-") // a login shell's name begins so
}

// merge returns an environment with variables added or replaced.
func merge(environ, more []string) []string {
	names := map[string]bool{}
	for _, v := range more {
		name, _, _ := strings.Cut(v, "=")
		names[name] = true
	}
	merged := slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return names[name]
	})
	for i, v := range more {
		name, _, _ := strings.Cut(v, "=")
		later := slices.ContainsFunc(more[i+1:], func(v string) bool { return strings.HasPrefix(v, name+"=") })
		if !later {
			merged = append(merged, v)
		}
	}
	return merged
}
