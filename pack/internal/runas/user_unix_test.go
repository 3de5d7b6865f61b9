//go:build unix

package runas

import (
	"os/user"
	"slices"
	"strconv"
	"strings"
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
