//go:build unix

package runas

import (
	"fmt"
	"io/fs"
	"math"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func resolve(spec string) (a account, err error) {
	name, groupName, hasGroup := strings.Cut(spec, ":")
	u, err := lookUp(name, hasGroup)
	if err != nil {
		return a, err
	}
	var groups []string
	if hasGroup {
		groups, err = groupOf(groupName)
	} else if groups, err = u.GroupIds(); err == nil {
		groups = append([]string{u.Gid}, groups...)
	}
	if err != nil {
		return a, err
	}
	c := &syscall.Credential{}
	for i, text := range append([]string{u.Uid}, groups...) {
		n, err := strconv.ParseUint(text, 10, 32)
		switch {
		case err != nil || n == math.MaxUint32: // which is -1, for "as it was"
			return a, fmt.Errorf("%q is no number of a user or a group", text)
		case i == 0:
			c.Uid = uint32(n)
		case i == 1:
			c.Gid = uint32(n)
		default:
			c.Groups = append(c.Groups, uint32(n))
		}
	}
	return account{&syscall.SysProcAttr{Credential: c}, u.Username, u.HomeDir}, nil
}

// lookUp finds a user by name or number. A number needs no name if a group is given with it.
func lookUp(name string, hasGroup bool) (*user.User, error) {
	u, err := user.Lookup(name)
	if err == nil || !isNumber(name) {
		return u, err
	}
	switch u, err = user.LookupId(name); {
	case err == nil:
		return u, nil
	case hasGroup:
		return &user.User{Uid: name}, nil
	}
	return nil, fmt.Errorf("%w; as uid:gid it needs no name", err)
}

// groupOf finds a group by name or number.
func groupOf(name string) ([]string, error) {
	g, err := user.LookupGroup(name)
	switch {
	case err == nil:
		return []string{g.Gid}, nil
	case isNumber(name):
		return []string{name}, nil
	}
	return nil, err
}

func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 32)
	return err == nil
}

func owner(a *syscall.SysProcAttr) (uid, gid int) {
	return int(a.Credential.Uid), int(a.Credential.Gid)
}

// executable reports whether a file's mode lets a user execute it.
func executable(a *syscall.SysProcAttr, info fs.FileInfo) bool {
	file, ok := info.Sys().(*syscall.Stat_t)
	c, mode := a.Credential, info.Mode()
	switch {
	case !ok:
		return true
	case c.Uid == 0: // as execve(2) has it
		return mode&0o111 != 0
	case c.Uid == file.Uid:
		return mode&0o100 != 0
	case c.Gid == file.Gid, slices.Contains(c.Groups, file.Gid):
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}

func ownerOf(info fs.FileInfo) string {
	if file, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%d:%d", file.Uid, file.Gid)
	}
	return "not known"
}
