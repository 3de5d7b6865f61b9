// Package gopherpack_test checks what holds for the module as a whole.
package gopherpack_test

import (
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
