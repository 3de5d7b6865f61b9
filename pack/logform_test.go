//go:build linux

package pack_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/gopherpack/gopherpack/internal/test/program"
)

func init() { programs["plain"] = plainProgram }

// plainProgram has no logger of its own.
func plainProgram() error {
	c, address := configFlags()
	flag.Parse()
	c.Logger = nil
	return serve(c, *address, &http.Server{Handler: handler()})
}

// TestLogForms has a pack write all levels of its log in each form.
func TestLogForms(t *testing.T) {
	t.Parallel()
	const (
		text    = `^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (INFO|ERROR) \w`
		json    = `^{"time":".*","level":"(INFO|ERROR)","msg":"`
		journal = `^<[36]>\w[^{]*$`
		worker  = `(?m)^<3>worker failed worker=0 pid=\d+ .*error="signal: killed"`
	)
	for _, tt := range []struct {
		name, form, stream string // stream is JOURNAL_STREAM; "ours" for what stderr is
		want, says         string
	}{
		{name: "none", want: text},
		{name: "text", form: "text", stream: "ours", want: text},
		{name: "json", form: "json", stream: "ours", want: json, says: `"msg":"worker failed","worker":0`},
		{name: "journal", form: "journal", want: journal, says: worker},
		{name: "the journal", stream: "ours", want: journal, says: worker},
		{name: "a file under systemd", stream: "1:2", want: text},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			log := filepath.Join(t.TempDir(), "log")
			p := start(t, "plain", func(cmd *exec.Cmd) {
				f, err := os.Create(log)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { f.Close() })
				if tt.stream == "ours" {
					info, _ := f.Stat()
					stat := info.Sys().(*syscall.Stat_t)
					tt.stream = fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
				}
				cmd.Stderr = f
				cmd.Env = append(cmd.Env, "JOURNAL_STREAM="+tt.stream, "GOPHERPACK_LOG="+tt.form)
			}, "-workers=1")
			said := func() string {
				text, _ := os.ReadFile(log)
				return string(text)
			}
			await := func(what string) {
				p.Until(what, program.Patience, func() bool { return strings.Contains(said(), what) })
			}
			await("pack is up")
			syscall.Kill(p.Workers()[0], syscall.SIGKILL)
			await("worker ready")
			p.Stop()
			for line := range strings.Lines(said()) {
				if !regexp.MustCompile(tt.want).MatchString(strings.TrimSuffix(line, "\n")) {
					t.Errorf("%q is not of this form", line)
				}
			}
			if !regexp.MustCompile(tt.says).MatchString(said()) {
				t.Errorf("no line matches %s:\n%s", tt.says, said())
			}
		})
	}
}

// TestOwnLoggerKeepsItsForm has a program that has set slog's default write to what is the journal.
func TestOwnLoggerKeepsItsForm(t *testing.T) {
	t.Parallel()
	p := start(t, "oneline", func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "GOPHERPACK_LOG=journal") })
	p.Addresses() // in JSON
	p.Stop()
}
