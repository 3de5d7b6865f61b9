// Package gopherpack_test checks what holds for the module as a whole.
package gopherpack_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gopherpack/gopherpack"

// TestPackagesLinkOnlyWhatTheyNeed compares what each package links, besides the standard library, with what it may.
func TestPackagesLinkOnlyWhatTheyNeed(t *testing.T) {
	sys := []string{"golang.org/x/sys/unix"}
	sharing := []string{ // x/sys/windows by go-reuseport
		sys[0], "golang.org/x/net/bpf", "github.com/libp2p/go-reuseport", "golang.org/x/sys/windows",
	}
	concerns := []string{module + "/affinity", module + "/procgroup", module + "/reuseport", module + "/rlimit", module + "/sigctl", module + "/upgrade"}
	for name, may := range map[string][]string{
		"affinity":  sys,
		"rlimit":    sys,
		"sigctl":    nil,
		"reuseport": sharing,
		"procgroup": {sys[0], module + "/internal/fdmsg", module + "/internal/proc"},
		"upgrade":   {sys[0], module + "/internal/fdmsg"},
		"ebpf/steer": append([]string{
			"github.com/cilium/ebpf",
			module + "/affinity", module + "/reuseport", module + "/internal/scoreboard",
		}, sharing...),
		"pack": slices.Concat(sharing, concerns, []string{
			module + "/internal/scoreboard", module + "/internal/cgroup",
			module + "/internal/drain", module + "/internal/systemd", module + "/internal/fdmsg", module + "/internal/proc",
			"github.com/KimMachineGun/automemlimit/memlimit", "github.com/pbnjay/memory"}),
	} {
		for _, goos := range []string{"linux", "darwin", "freebsd", "windows"} {
			cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./"+name)
			cmd.Env = append(cmd.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("go list ./%s: %v", name, err)
			}
			allowed := " " + strings.Join(append(may, module+"/"+name), " ") + " "
			for dep := range strings.FieldsSeq(string(out)) {
				if part, ok := strings.CutPrefix(dep, "github.com/cilium/ebpf/"); ok && strings.Contains(allowed, " github.com/cilium/ebpf ") && part != "" {
					continue // its own parts
				}
				if strings.HasPrefix(dep, module+"/"+name+"/internal/") {
					continue
				}
				if !strings.Contains(allowed, " "+dep+" ") {
					t.Errorf("%s on %s links %s", name, goos, dep)
				}
			}
		}
	}
}

// TestNothingKeepsAllMethods links all packages into a program. Whoever asks package reflect for a method whose name is
// no constant has the linker keep every exported method of every type that the program uses, of whatever package: a
// megabyte of those of net/http alone.
func TestNothingKeepsAllMethods(t *testing.T) {
	cmd := exec.Command("go", "build", "-o", os.DevNull, "-ldflags=-dumpdep", "./examples/steered")
	cmd.Env = append(cmd.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %.1000s", err, out)
	}
	found := false
	for line := range strings.Lines(string(out)) {
		found = found || strings.HasPrefix(line, "main.main -> ")
		if strings.Contains(line, "<ReflectMethod> -> ") {
			t.Errorf("%s", line)
		}
	}
	if !found {
		t.Errorf("the linker does not tell what it keeps: %.1000s", out)
	}
}

// TestNoProfiles holds that who does not want profiles does not link package runtime/pprof.
func TestNoProfiles(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./pack", "./ebpf/steer").Output()
	if err != nil || slices.Contains(strings.Fields(string(out)), "runtime/pprof") {
		t.Errorf("pack or ebpf/steer links runtime/pprof, or: %v", err)
	}
}
