package affinity

import (
	"errors"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"
)

// TestTheMaskIsTheTruth has a /sys that tells something else than the mask of the process, as in containers.
func TestTheMaskIsTheTruth(t *testing.T) {
	siblings := func(a, b string) fstest.MapFS {
		return fstest.MapFS{
			"cpu/cpu0/topology/core_cpus_list": {Data: []byte(a)}, "cpu/cpu1/topology/core_cpus_list": {Data: []byte(b)},
		}
	}
	with := func(online string, fsys fstest.MapFS) fstest.MapFS {
		fsys["cpu/online"] = &fstest.MapFile{Data: []byte(online)}
		return fsys
	}
	for _, tt := range []struct {
		name string
		sys  fstest.MapFS
		mask Set
		want []Set // the cores of the CPUs of the mask
	}{
		{"one CPU, and it is another", with("0\n", siblings("0", "1")), Of(1), []Set{Of(1)}},
		{"fewer CPUs, whose files are there", with("0\n", siblings("0-1", "0-1")), Of(0, 1), []Set{Of(0, 1), Of(0, 1)}},
		{"fewer CPUs, whose files are not there", with("0\n", fstest.MapFS{}), Of(0, 5), []Set{Of(0), Of(5)}},
		{"an empty file", with("", fstest.MapFS{}), Of(2), []Set{Of(2)}},
		{"no list", siblings("0-1", "0-1"), Of(0, 1), []Set{Of(0, 1), Of(0, 1)}},
		{"nothing", fstest.MapFS{}, Of(3, 1100), []Set{Of(3), Of(1100)}},
	} {
		topology, err := readTopology(tt.sys, tt.sys, tt.mask)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var cores []Set
		for _, c := range topology {
			if tt.mask.Contains(c.ID) {
				cores = append(cores, c.Core)
			}
		}
		if !slices.Equal(cores, tt.want) {
			t.Errorf("%s: cores %v, want %v", tt.name, cores, tt.want)
		}
		if shares, err := topology.Spread(tt.mask, 0, PerCPU); err != nil || len(shares) != tt.mask.Len() {
			t.Errorf("%s: shares %v, %v; want one for each CPU of %q", tt.name, shares, err, tt.mask)
		}
	}
}

// denied is a file system that nobody may read.
type denied struct{}

func (denied) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

func TestUnreadableSys(t *testing.T) {
	if topology, err := readTopology(denied{}, denied{}, Of(0)); !errors.Is(err, fs.ErrPermission) || topology != nil {
		t.Errorf("%v, %v", topology, err)
	}
	topology := loneCores(Of(1, 3))
	if shares, err := topology.Spread(Of(1, 3), 0, PerPackage); err != nil || !slices.Equal(shares, []Set{Of(1), Of(3)}) {
		t.Errorf("shares %v, %v", shares, err)
	}
}
