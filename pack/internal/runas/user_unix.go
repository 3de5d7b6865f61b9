//go:build unix

package runas

import (
	"fmt"
	"math"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

func resolve(spec string) (*syscall.SysProcAttr, error) {
	name, groupName, hasGroup := strings.Cut(spec, ":")
	u, err := lookUp(name, hasGroup)
	if err != nil {
		return nil, err
	}
	var groups []string
	if hasGroup {
		groups, err = groupOf(groupName)
	} else if groups, err = u.GroupIds(); err == nil {
		groups = append([]string{u.Gid}, groups...)
	}
	if err != nil {
		return nil, err
	}
	c := &syscall.Credential{}
	for i, text := range append([]string{u.Uid}, groups...) {
		n, err := strconv.ParseUint(text, 10, 32)
		switch {
		case err != nil || n == math.MaxUint32: // which is -1, for "as it was"
			return nil, fmt.Errorf("%q is no number of a user or a group", text)
		case i == 0:
			c.Uid = uint32(n)
		case i == 1:
			c.Gid = uint32(n)
		default:
			c.Groups = append(c.Groups, uint32(n))
		}
	}
	return &syscall.SysProcAttr{Credential: c}, nil
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
