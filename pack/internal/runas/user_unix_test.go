//go:build unix

package runas

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestAttributes(t *testing.T) {
	if a, err := Attributes(""); a != nil || err != nil {
		t.Errorf("%v, %v of nobody", a, err)
	}
	root, err := user.LookupId("0")
	if err != nil {
		t.Skip(err)
	}
	group, err := user.LookupGroupId(root.Gid)
	if err != nil {
		t.Skip(err)
	}
	gid, err := strconv.Atoi(root.Gid)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		spec     string
		uid, gid int
		more     bool // supplementary groups
	}{
		{root.Username, 0, gid, true},
		{"0", 0, gid, true},
		{root.Username + ":" + group.Name, 0, gid, false},
		{"0:2147483646", 0, 2147483646, false},
		{"2147483646:" + group.Name, 2147483646, gid, false},
		{"2147483646:2147483645", 2147483646, 2147483645, false},
	} {
		for range 2 { // the second time as it was found
			a, err := Attributes(tt.spec)
			if err != nil {
				t.Errorf("%s: %v", tt.spec, err)
				continue
			}
			c := a.Credential
			if int(c.Uid) != tt.uid || int(c.Gid) != tt.gid || slices.Contains(c.Groups, c.Gid) != tt.more || c.NoSetGroups {
				t.Errorf("%s: %+v", tt.spec, c)
			}
			if uid, gid, err := Owner(tt.spec); uid != tt.uid || gid != tt.gid || err != nil {
				t.Errorf("%s: its owner is %d, %d, %v", tt.spec, uid, gid, err)
			}
		}
	}
	for spec, want := range map[string]string{
		"no such user":                `user "no such user": user: unknown user no such user`,
		root.Username + ":no such":    "unknown group no such",
		root.Username + ":":           "unknown group",
		":" + group.Name:              "unknown user",
		"2147483646":                  "unknown userid 2147483646; as uid:gid it needs no name",
		"4294967296:0":                "unknown user",
		root.Username + ":4294967296": "unknown group",
		"4294967295:0":                `"4294967295" is no number`,
		"-1:-1":                       "unknown user",
	} {
		a, err := Attributes(spec)
		if a != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", spec, a, err, want)
		}
	}
}

func TestEnviron(t *testing.T) {
	root, err := user.LookupId("0")
	if err != nil {
		t.Skip(err)
	}
	environ := []string{"HOME=/h", "A=b", "USER=u", "LOGNAME=l", "SHELL=s", "HOMER=x"}
	nobodys := []string{"A=b", "SHELL=s", "HOMER=x"}
	roots := append(slices.Clone(nobodys), "USER="+root.Username, "LOGNAME="+root.Username, "HOME="+root.HomeDir)
	for spec, want := range map[string][]string{
		"":                      environ,
		root.Username:           roots,
		"0:7":                   roots,
		"2147483646:2147483645": nobodys,
	} {
		got, err := Environ(spec, slices.Clone(environ))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", spec, got, err, want)
		}
	}
	if _, err := Environ("no such user", environ); err == nil {
		t.Error("no error of a user who is not known")
	}
}

func TestMayExecute(t *testing.T) {
	path := t.TempDir() + "/program"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	const other = 2147483646
	for _, tt := range []struct {
		mode     os.FileMode
		uid, gid int
		may      bool
	}{
		{0o700, uid, other, true},
		{0o077, uid, gid, uid == 0}, // the owner's rights are the owner's, but for root
		{0o010, other, gid, true},
		{0o701, other, gid, false},
		{0o001, other, other, true},
		{0o710, other, other, false},
		{0o100, 0, 0, true},
		{0o600, 0, 0, false},
	} {
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		spec := fmt.Sprintf("%d:%d", tt.uid, tt.gid)
		err := MayExecute(spec, path)
		if runtime.GOOS == "linux" && (err == nil) != tt.may {
			t.Errorf("%s, mode %v: %v", spec, tt.mode, err)
		}
		if err != nil && (!strings.Contains(err.Error(), spec) || !strings.Contains(err.Error(), path)) {
			t.Errorf("%v does not tell who and what", err)
		}
	}
}

func TestExplain(t *testing.T) {
	cmd := &exec.Cmd{Path: "/srv/program"}
	denied := &os.PathError{Op: "fork/exec", Path: cmd.Path, Err: syscall.EACCES}
	const want = `user "nobody" may not execute /srv/program: fork`
	if err := Explain("nobody", cmd, denied); !strings.HasPrefix(err.Error(), want) {
		t.Error(err)
	}
	cmd.Dir = "/root"
	if err := Explain("nobody", cmd, denied); !strings.Contains(err.Error(), "or not enter the directory /root") {
		t.Error(err)
	}
	if err := Explain("nobody", cmd, syscall.EPERM); !strings.Contains(err.Error(), `may not become user "nobody"`) {
		t.Error(err)
	}
	if err := Explain("nobody", cmd, syscall.ENOENT); err != syscall.ENOENT {
		t.Error(err)
	}
}

// TestNamed tells which program could not be started that has but a number.
func TestNamed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere programs are started by their names")
	}
	path := t.TempDir() + "/program"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = Named(exec.Command(fmt.Sprintf("/proc/self/fd/%d", f.Fd())).Start())
	if want := "fork/exec " + path + ": permission denied"; err == nil || err.Error() != want {
		t.Errorf("%v; want %q", err, want)
	}
	if Named(nil) != nil {
		t.Error("what has started has an error")
	}
}
