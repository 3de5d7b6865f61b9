// Package systemd boots a real systemd for tests: Debian 13's, as process 1 of namespaces of its own, with a journal,
// and without a virtual machine. The tests run in there, as a service: what they start is real units, by systemctl(1).
//
// That takes root, a control group file system of version 2, overlayfs, and mmdebstrap(1) for the root file system, which
// is made once, from the machine's own source of Debian packages, and kept in a cache.
package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Units is where unit files are to be put, and Programs where programs are, as the booted system sees them: both are
// empty directories at first.
const (
	Units    = "/etc/systemd/system"
	Programs = "/srv"
)

const (
	asInit  = "TEST_SYSTEMD_INIT" // the directory of a system that is to be booted
	within  = "TEST_SYSTEMD"      // set in there
	shared  = "/test"             // of both systems
	program = "test"              // the test binary in there
	service = "test.service"
)

// Main is called first in a TestMain: in the first process of a system that boots it becomes systemd.
func Main() {
	if dir := os.Getenv(asInit); dir != "" && os.Getpid() == 1 {
		fmt.Fprintln(os.Stderr, unable, boot(dir))
		os.Exit(1)
	}
}

// unable stands before why a system cannot be booted here, as where a container may not mount anything.
const unable = "this machine lets no system boot:"

// Inside reports whether this process runs in a booted system.
func Inside() bool { return os.Getenv(within) != "" }

// Run boots a system and runs those tests of this binary in there whose names match, with the flags of this run. files
// are put there before, by their paths in there: their sources, here.
func Run(t *testing.T, tests string, files map[string]string) {
	t.Helper()
	root := rootFiles(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	args := []string{filepath.Join(shared, program), "-test.v", "-test.run=" + tests, "-test.timeout=5m"}
	unit := "[Unit]\nSuccessAction=exit\nFailureAction=exit\n" +
		"Wants=systemd-journald.socket\nAfter=systemd-journald.socket\n" +
		"[Service]\nType=exec\nEnvironment=" + within + "=1 " + environment("PACK_TEST_FULL", "GORACE", "GOTRACEBACK") + "\n" +
		"ExecStart=" + strings.Join(args, " ") + "\n" +
		"StandardOutput=append:" + shared + "/output\nStandardError=append:" + shared + "/output\n"
	err = errors.Join(
		os.MkdirAll(filepath.Join(dir, "shared"), 0o755),
		os.WriteFile(filepath.Join(dir, "root"), []byte(root), 0o644),
		copyFile(filepath.Join(dir, "shared", program), self),
		writeFile(filepath.Join(dir, "files", Units, service), unit),
		writeFile(filepath.Join(dir, "files", Units, "test.target"), target),
		os.MkdirAll(filepath.Join(dir, "files", Programs), 0o755),
	)
	for path, source := range files {
		err = errors.Join(err, copyFile(filepath.Join(dir, "files", path), source))
	}
	if err != nil {
		t.Fatal(err)
	}
	limit := 5 * time.Minute
	if deadline, ok := t.Deadline(); ok {
		limit = min(limit, time.Until(deadline)*9/10)
	}
	console, err := start(self, dir, limit)
	output, _ := os.ReadFile(filepath.Join(dir, "shared", "output"))
	switch {
	case err != nil && len(output) == 0 && strings.HasPrefix(console, unable):
		t.Skip(strings.TrimSpace(console))
	case err != nil && len(output) == 0:
		t.Fatalf("it came to no test: %v\n%s", err, console)
	case err != nil:
		t.Fatalf("%v\n%s\nsystemd said:\n%s", err, output, console)
	}
	t.Logf("in %s\n%s", root, output)
}

// target is all that is started: a system that is to be up in a second needs no more.
const target = `[Unit]
DefaultDependencies=no
Requires=test.service
`

// environment returns those variables of this process that are set, as a unit has them.
func environment(names ...string) string {
	var all []string
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			all = append(all, fmt.Sprintf("%q", name+"="+value))
		}
	}
	return strings.Join(all, " ")
}

// start runs a system until it has ended, and returns what it has written to its console.
func start(self, dir string, limit time.Duration) (console string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and ends with its file systems: it is never unlocked
		console, err = startHere(self, dir, limit)
	}()
	<-done
	return console, err
}

// startHere is start, on a thread whose mounts are to be its own.
func startHere(self, dir string, limit time.Duration) (console string, err error) {
	groups := filepath.Join(dir, "groups")
	err = errors.Join(
		os.Mkdir(groups, 0o755),
		os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNS)),
	)
	if err == nil {
		err = mountAll([]mount{{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""}, {"cgroup2", groups, "cgroup2", 0, ""}})
	}
	if err != nil {
		return fmt.Sprintln(unable, err), err
	}
	group := filepath.Join(groups, fmt.Sprintf("gopherpack-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	if err := os.Mkdir(group, 0o755); err != nil {
		return fmt.Sprintln(unable, err), err
	}
	defer removeGroup(group)
	fd, err := unix.Open(group, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: group, Err: err}
	}
	defer unix.Close(fd)
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("it has not ended within %v", limit))
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), asInit+"="+dir)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, 10*time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL, UseCgroupFD: true, CgroupFD: fd,
	}
	err = cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return out.String(), err
}

// removeGroup removes a control group and those in it, whose processes have ended or are about to.
func removeGroup(group string) {
	for range 1000 {
		var all []string
		filepath.WalkDir(group, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		if len(all) == 0 {
			return
		}
		for _, path := range slices.Backward(all) {
			unix.Rmdir(path)
		}
		time.Sleep(time.Millisecond)
	}
}

// mount is what mount(2) is called with.
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func mountAll(all []mount) error {
	for _, m := range all {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

// boot makes the root file system of a system, and becomes its systemd. It returns only if that fails.
func boot(dir string) error {
	runtime.LockOSThread()
	lower, err := os.ReadFile(filepath.Join(dir, "root"))
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	private := mount{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""}
	upper := filepath.Join(dir, "upper")
	if err := errors.Join(os.Mkdir(upper, 0o755), mountAll([]mount{private, {"tmpfs", upper, "tmpfs", 0, ""}})); err != nil {
		return err
	}
	root := filepath.Join(upper, "root")
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s/up,workdir=%s/work", lower, upper, upper)
	err = errors.Join(os.Mkdir(upper+"/up", 0o755), os.Mkdir(upper+"/work", 0o755), os.Mkdir(root, 0o755))
	if err == nil {
		err = mountAll([]mount{{"overlay", root, "overlay", 0, layers}})
	}
	if err == nil {
		err = furnish(root, dir)
	}
	if err != nil {
		return err
	}
	if err := enter(root); err != nil {
		return err
	}
	argv := []string{"/usr/lib/systemd/systemd", "--system", "--unit=test.target", "--log-target=journal",
		"--show-status=no", "--log-level=info"}
	env := []string{"container=gopherpack", "PATH=/usr/sbin:/usr/bin"}
	return os.NewSyscallError("exec", unix.Exec(argv[0], argv, env))
}

// furnish puts into a root file system what packages that were only unpacked do not bring along, and what tests want.
func furnish(root, dir string) error {
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if _, err := os.Lstat(filepath.Join(root, name)); err != nil {
			if err := os.Symlink("usr/"+name, filepath.Join(root, name)); err != nil {
				return err
			}
		}
	}
	users, groups := "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
		"root:x:0:\nnogroup:x:65534:\nsystemd-journal:x:101:\n"
	err := errors.Join(
		writeFile(root+"/etc/passwd", users), writeFile(root+"/etc/group", groups),
		writeFile(root+"/etc/machine-id", strings.Repeat("0123456789abcdef", 2)+"\n"),
		writeFile(root+"/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
		os.CopyFS(root, os.DirFS(filepath.Join(dir, "files"))),
	)
	for _, name := range []string{"proc", "sys", "dev", "run", "tmp", "test"} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(root, name), 0o755))
	}
	if err != nil {
		return err
	}
	in := func(path string) string { return root + path }
	err = mountAll([]mount{
		{"proc", in("/proc"), "proc", 0, ""},
		{"sysfs", in("/sys"), "sysfs", unix.MS_RDONLY, ""},
		{"cgroup2", in("/sys/fs/cgroup"), "cgroup2", 0, ""},
		{"tmpfs", in("/dev"), "tmpfs", 0, "mode=755"},
		{"tmpfs", in("/run"), "tmpfs", 0, "mode=755"},
		{"tmpfs", in("/tmp"), "tmpfs", 0, "mode=1777"},
		{filepath.Join(dir, "shared"), in(shared), "", unix.MS_BIND, ""},
	})
	for _, name := range []string{"pts", "shm", "mqueue", "hugepages"} { // private devices of units have these
		err = errors.Join(err, os.MkdirAll(in("/dev/"+name), 0o1777))
	}
	err = errors.Join(err, os.Symlink("pts/ptmx", in("/dev/ptmx")), mountAll([]mount{
		{"devpts", in("/dev/pts"), "devpts", 0, "newinstance,ptmxmode=0666,mode=620"},
		{"tmpfs", in("/dev/shm"), "tmpfs", 0, "mode=1777"},
	}))
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		device := in("/dev/" + name)
		err = errors.Join(err, writeFile(device, ""), mountAll([]mount{{"/dev/" + name, device, "", unix.MS_BIND, ""}}))
	}
	return err
}

// enter makes a directory the root of this process, and leaves the file systems that it had.
func enter(root string) error {
	old := filepath.Join(root, "tmp")
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", old); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	loopback()
	return errors.Join(os.Chdir("/"), os.NewSyscallError("umount", unix.Unmount("/tmp", unix.MNT_DETACH)))
}

// loopback brings the network device up by which the system speaks to itself.
func loopback() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if r, err := unix.NewIfreq("lo"); err == nil {
		r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
	}
}

func writeFile(path, text string) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
}

// copyFile copies a file with its permissions.
func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, info.Mode().Perm()))
}
