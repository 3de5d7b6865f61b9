//go:build linux

package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestScenarios looks at the list of what is measured.
func TestScenarios(t *testing.T) {
	names := map[string]bool{}
	for _, s := range scenarios {
		if names[s.Name] || !regexp.MustCompile(`^[a-z0-9-]+$`).MatchString(s.Name) {
			t.Errorf("%q is no name, or the name of two", s.Name)
		}
		names[s.Name] = true
		if s.measure == nil || len(s.Figures) == 0 || s.Title == "" || s.About == "" {
			t.Errorf("%s: something is missing", s.Name)
		}
		base := s.Base == ""
		servers := map[string]bool{}
		for _, server := range s.servers {
			base = base || server.name == s.Base
			if servers[server.name] {
				t.Errorf("%s: %s is there twice", s.Name, server.name)
			}
			servers[server.name] = true
			if s.change == byReload && server.reload == 0 || s.change == byUpgrade && server.upgrade == 0 && !server.second {
				t.Errorf("%s: there is no way to %s %s", s.Name, s.change, server.name)
			}
		}
		if !base {
			t.Errorf("%s: its base, %s, is not among its servers", s.Name, s.Base)
		}
	}
}

// TestServers holds that each program is there, and each is used.
func TestServers(t *testing.T) {
	entries, err := os.ReadDir("servers")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, s := range scenarios {
		for _, server := range s.servers {
			used[server.program] = true
		}
	}
	delete(used, "")
	for _, e := range entries {
		if !used[e.Name()] {
			t.Errorf("nobody uses servers/%s", e.Name())
		}
		delete(used, e.Name())
	}
	if len(used) > 0 {
		t.Errorf("there are no programs %v", used)
	}
}

// TestDocumented holds that the page on what is measured tells of each scenario.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scenarios {
		if !strings.Contains(string(page), "`"+s.Name+"`") {
			t.Errorf("docs/benchmarks.md does not tell of `%s`", s.Name)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		only string
		want []string
	}{
		{"^hello-new/pack$", []string{"hello-new/pack"}},
		{"^(grpc|hello-kept)/(pack|net/http)$", []string{"hello-kept/net/http", "hello-kept/pack", "grpc/pack"}},
		{"nothing", nil},
		{"(", nil},
	} {
		chosen, err := choose(tt.only)
		var got []string
		for _, s := range chosen {
			for _, server := range s.servers {
				got = append(got, s.Name+"/"+server.name)
			}
		}
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("%q: %v, %v; want %v", tt.only, got, err, tt.want)
		}
	}
	if chosen, err := choose(""); len(chosen) != len(scenarios) || err != nil {
		t.Errorf("%d of %d scenarios, %v", len(chosen), len(scenarios), err)
	}
}

func TestParseSizes(t *testing.T) {
	for _, tt := range []struct {
		text   string
		usable int
		apart  bool
		want   []int
	}{
		{"", 4, false, []int{4}},
		{"", 5, true, []int{2}},
		{"1,2", 4, true, []int{1, 2}},
		{"4", 4, true, nil},
		{"0", 4, false, nil},
		{"1,", 4, false, nil},
		{"", 1, true, nil},
	} {
		b := &bench{usable: make([]int, tt.usable), apart: tt.apart}
		if got, err := b.parseSizes(tt.text); !slices.Equal(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("%q of %d CPUs, apart %v: %v, %v; want %v", tt.text, tt.usable, tt.apart, got, err, tt.want)
		}
	}
}

// TestCPUs holds that clients that are apart have no CPU of the server.
func TestCPUs(t *testing.T) {
	b := &bench{usable: []int{0, 4, 1, 5, 2}}
	if got := b.clientCPUs(2); !slices.Equal(got, b.serverCPUs(2)) {
		t.Errorf("clients on %v, server on %v", got, b.serverCPUs(2))
	}
	b.apart = true
	if got := b.clientCPUs(2); !slices.Equal(got, []int{5, 2}) || !slices.Equal(b.serverCPUs(2), []int{0, 4}) {
		t.Errorf("clients on %v, server on %v", got, b.serverCPUs(2))
	}
}

func TestShare(t *testing.T) {
	for _, n := range []int{0, 1, 7, 32} {
		total := 0
		for i := range 3 {
			total += share(n, i, 3)
		}
		if total != n || share(n, 0, 3)-share(n, 2, 3) > 1 {
			t.Errorf("%d: %d, %d, %d", n, share(n, 0, 3), share(n, 1, 3), share(n, 2, 3))
		}
	}
}

// TestMaxToMean has a process that has nothing.
func TestMaxToMean(t *testing.T) {
	if got := maxToMean(map[string]int{"1": 6, "2": 2}, 2); got != 1.5 {
		t.Error(got)
	}
	if got := maxToMean(map[string]int{"1": 8}, 2); got != 2 {
		t.Error(got)
	}
}

func TestMaxLessMin(t *testing.T) {
	for _, tt := range []struct{ processes, want int }{{2, 4}, {3, 6}} {
		if got := maxLessMin(map[string]int{"1": 6, "2": 2}, tt.processes); got != tt.want {
			t.Errorf("of %d processes: %d; want %d", tt.processes, got, tt.want)
		}
	}
}

func TestCommand(t *testing.T) {
	if got := command([]string{"-only", "^hello/(a|b)$", "-for", "1s"}); got != "go run . -only '^hello/(a|b)$' -for 1s" {
		t.Error(got)
	}
}
