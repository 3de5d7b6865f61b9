//go:build linux

package main

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"debug/buildinfo"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/bench/internal/report"
)

// raw returns a report of nothing yet.
func (b *bench) raw(chosen []*scenario) *report.Raw {
	r := &report.Raw{
		Begun: time.Now(), Command: command(os.Args[1:]), Rounds: b.rounds,
		Duration: b.duration.String(), Clients: b.clients, Apart: b.apart, Machine: b.machine(), Versions: b.versions(),
	}
	for _, s := range chosen {
		r.Scenarios = append(r.Scenarios, s.Scenario)
	}
	return r
}

// command returns the command with these arguments, as a shell wants it.
func command(args []string) string {
	text := "go run ."
	for _, a := range args {
		if strings.ContainsAny(a, "^$()|*? ") {
			a = "'" + a + "'"
		}
		text += " " + a
	}
	return text
}

// machine tells what it can find out about this machine.
func (b *bench) machine() report.Machine {
	m := report.Machine{
		Model: field("/proc/cpuinfo", "model name"), CPUs: affinity.Of(b.usable...).String(), Number: len(b.usable),
		Memory: field("/proc/meminfo", "MemTotal"), Kernel: firstLine("uname", "-srm"),
		Load: firstLine("cat", "/proc/loadavg"),
	}
	m.Load, _, _ = strings.Cut(m.Load, " ")
	for _, name := range []string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"} {
		if v, ok := os.LookupEnv(name); ok {
			m.Env = append(m.Env, name+"="+v)
		}
	}
	return m
}

// field returns the value of the first line of a file that begins with a name.
func field(file, name string) string {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if before, after, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(before) == name {
			return strings.TrimSpace(after)
		}
	}
	return "unknown"
}

// firstLine returns the first line that a program writes, to stdout or stderr; "" if it cannot be run.
func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// versions returns those of everything that is compared: what the programs were built of, and what is installed.
func (b *bench) versions() []string {
	own := "gopherpack"
	all := []string{}
	for program, module := range map[string]string{
		"pack": "", "fasthttp": "github.com/valyala/fasthttp", "fiber": "github.com/gofiber/fiber/v3",
		"tableflip": "github.com/cloudflare/tableflip", "gnet": "github.com/panjf2000/gnet/v2", "grpcgo": "google.golang.org/grpc",
	} {
		info, err := buildinfo.ReadFile(filepath.Join(b.programs, program))
		if err != nil {
			continue // it may not be needed
		}
		if module == "" {
			own = fmt.Sprintf("gopherpack %s, built by %s", revision(info), info.GoVersion)
			continue
		}
		for _, d := range info.Deps {
			if d.Path == module {
				all = append(all, d.Path+" "+d.Version)
			}
		}
	}
	slices.Sort(all)
	all = slices.Concat([]string{own}, all, []string{firstLine("nginx", "-v"), firstLine("haproxy", "-v")})
	return slices.DeleteFunc(all, func(v string) bool { return v == "" })
}

// revision returns of which commit a program was built. The go command does not say in a work tree of git; then it is
// the one that is there now.
func revision(info *debug.BuildInfo) string {
	commit, changed := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = ", changed"
		}
	}
	if commit == "" {
		return cmp.Or(firstLine("git", "describe", "--always", "--dirty"), "of no commit")
	}
	return commit + changed
}

// usable returns the CPUs that this process may use; hardware threads of one core stand side by side.
func usable() ([]int, error) {
	topology, err := affinity.ReadTopology()
	if err != nil {
		return nil, err
	}
	allowed, err := affinity.Allowed(os.Getpid())
	if err != nil {
		return nil, err
	}
	topology = slices.DeleteFunc(topology, func(c affinity.CPU) bool { return !allowed.Contains(c.ID) })
	slices.SortStableFunc(topology, func(a, b affinity.CPU) int {
		first, _ := a.Core.First()
		second, _ := b.Core.First()
		return cmp.Compare(first, second)
	})
	var ids []int
	for _, c := range topology {
		ids = append(ids, c.ID)
	}
	return ids, nil
}

// writeCertificate writes a certificate and its key as servers want them: cert.pem, key.pem, and both.pem.
func writeCertificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), private, 0o600),
		os.WriteFile(filepath.Join(dir, "both.pem"), slices.Concat(cert, private), 0o600))
}
