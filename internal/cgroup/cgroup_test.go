package cgroup

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	mountV2  = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	mountV1  = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
	otherV1  = "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
	mountSub = "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
)

func TestQuota(t *testing.T) {
	tests := []struct {
		name           string
		group, mounts  string
		files          map[string]string // below sys/fs/cgroup
		want           float64
		limited, fails bool
	}{
		{name: "none", group: "0::/\n", mounts: mountV2},
		{name: "no control groups", group: "", mounts: ""},
		{name: "v2 max", group: "0::/a\n", mounts: mountV2, files: map[string]string{"a/cpu.max": "max 100000\n"}},
		{name: "v2", group: "0::/a\n", mounts: mountV2, files: map[string]string{"a/cpu.max": "150000 100000\n"}, want: 1.5, limited: true},
		{name: "v2 parent is tighter", group: "0::/a/b/c\n", mounts: mountV2,
			files: map[string]string{"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000", "a/b/c/cpu.max": "400000 100000"}, want: 0.5, limited: true},
		{name: "v2 own is tighter", group: "0::/a/b\n", mounts: mountV2,
			files: map[string]string{"a/cpu.max": "500000 100000", "a/b/cpu.max": "300000 100000"}, want: 3, limited: true},
		{name: "v2 namespace root", group: "0::/\n", mounts: mountV2, files: map[string]string{"cpu.max": "200000 100000"}, want: 2, limited: true},
		{name: "v1", group: "4:cpu,cpuacct:/a\n3:cpuset:/x\n", mounts: otherV1 + mountV1,
			files: map[string]string{"cpu,cpuacct/a/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"}, want: 2.5, limited: true},
		{name: "v1 ancestor", group: "4:cpu,cpuacct:/a/b\n", mounts: mountV1,
			files: map[string]string{"cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
				"cpu,cpuacct/a/cpu.cfs_quota_us": "100000", "cpu,cpuacct/a/cpu.cfs_period_us": "50000"}, want: 2, limited: true},
		{name: "v1 part of the tree is mounted", group: "4:cpu:/docker/abc/sub\n", mounts: mountSub,
			files: map[string]string{"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, want: 1, limited: true},
		{name: "v1 another part is mounted", group: "4:cpu:/docker/abcdef\n", mounts: mountSub,
			files: map[string]string{"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, want: 1, limited: true},
		{name: "both", group: "4:cpu,cpuacct:/a\n0::/a\n", mounts: mountV1 + mountV2,
			files: map[string]string{"cpu,cpuacct/a/cpu.cfs_quota_us": "300000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000", "a/cpu.max": "max 100000"}, want: 3, limited: true},
		{name: "garbage", group: "0::/a\n", mounts: mountV2, files: map[string]string{"a/cpu.max": "many\n"}, fails: true},
		{name: "period 0", group: "0::/a\n", mounts: mountV2, files: map[string]string{"a/cpu.max": "1 0\n"}, fails: true},
	}
	for _, tt := range tests {
		root := fstest.MapFS{}
		if tt.group != "" {
			root["proc/self/cgroup"] = &fstest.MapFile{Data: []byte(tt.group)}
			root["proc/self/mountinfo"] = &fstest.MapFile{Data: []byte(tt.mounts)}
		}
		for name, text := range tt.files {
			root["sys/fs/cgroup/"+name] = &fstest.MapFile{Data: []byte(text)}
		}
		cpus, limited, err := quota(root)
		if cpus != tt.want || limited != tt.limited || (err != nil) != tt.fails {
			t.Errorf("%s: %v, %v, %v; want %v, %v", tt.name, cpus, limited, err, tt.want, tt.limited)
		}
	}
}

func TestQuotaHere(t *testing.T) {
	cpus, limited, err := Quota()
	if err != nil || limited && cpus <= 0 {
		t.Errorf("%v, %v, %v", cpus, limited, err)
	}
}

func FuzzQuota(f *testing.F) {
	f.Add("0::/a\n", mountV2, "50000 100000")
	f.Add("4:cpu:/docker/abc/sub\n", mountSub, "1")
	f.Add("0::/..\n", mountV2, "max")
	f.Fuzz(func(t *testing.T, group, mounts, value string) {
		root := fstest.MapFS{"proc/self/cgroup": {Data: []byte(group)}, "proc/self/mountinfo": {Data: []byte(mounts)}}
		for _, dir := range []string{"", "a/", "cpu/", "cpu,cpuacct/a/"} {
			for _, name := range []string{"cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"} {
				root["sys/fs/cgroup/"+dir+name] = &fstest.MapFile{Data: []byte(value)}
			}
		}
		cpus, limited, err := quota(root)
		if err != nil && !strings.HasPrefix(err.Error(), "cgroup: ") || limited && cpus <= 0 {
			t.Errorf("%v, %v, %v", cpus, limited, err)
		}
	})
}

// TestOtherMounts has many mounts that are none of control groups, some with long options: they cost nothing.
func TestOtherMounts(t *testing.T) {
	root := func(others int) fs.FS {
		other := "40 23 0:30 / /var/lib/layers/1 rw - overlay overlay rw,lowerdir=" + strings.Repeat("/a/layer:", 300) + "\n"
		huge := "41 23 0:31 / /var/lib/layers/2 rw - overlay overlay rw,lowerdir=" + strings.Repeat("/a/layer:", 30000) + "\n"
		return fstest.MapFS{
			"proc/self/cgroup":        {Data: []byte("0::/a\n")},
			"proc/self/mountinfo":     {Data: []byte(huge + strings.Repeat(other, others) + mountV2)},
			"sys/fs/cgroup/a/cpu.max": {Data: []byte("150000 100000\n")},
		}
	}
	allocations := func(root fs.FS) float64 {
		return testing.AllocsPerRun(20, func() {
			if cpus, limited, err := quota(root); cpus != 1.5 || !limited || err != nil {
				t.Fatalf("%v, %v, %v", cpus, limited, err)
			}
		})
	}
	if few, many := allocations(root(1)), allocations(root(200)); many > few+20 {
		t.Errorf("%v allocations with 200 other mounts, %v with one", many, few)
	}
}
