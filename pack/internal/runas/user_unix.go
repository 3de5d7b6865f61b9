//go:build unix

package runas

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

func resolve(spec string) (*syscall.SysProcAttr, error) {
	name, groupName, hasGroup := strings.Cut(spec, ":")
	c := &syscall.Credential{}
	u, err := user.Lookup(name)
	if uid, nerr := strconv.ParseUint(name, 10, 32); err != nil && nerr == nil {
		if u, err = user.LookupId(name); err != nil && hasGroup { // it needs no name
			u, err = &user.User{Uid: strconv.FormatUint(uid, 10)}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	groups := []string{groupName}
	if hasGroup {
		if g, err := user.LookupGroup(groupName); err == nil {
			groups[0] = g.Gid
		}
	} else if groups, err = u.GroupIds(); err != nil {
		return nil, err
	} else {
		groups = append([]string{u.Gid}, groups...)
	}
	for i, text := range append([]string{u.Uid}, groups...) {
		n, err := strconv.ParseUint(text, 10, 32)
		switch {
		case err != nil:
			return nil, fmt.Errorf("unknown group %q", text)
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

func owner(a *syscall.SysProcAttr) (uid, gid int) {
	return int(a.Credential.Uid), int(a.Credential.Gid)
}
