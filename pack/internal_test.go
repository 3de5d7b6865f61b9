package pack

import (
	stdlog "log"
	"log/slog"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
)

func TestWorkerEnv(t *testing.T) {
	environ := []string{"GOMAXPROCS=7", "OTHER=x=y"}
	for _, tt := range []struct {
		plan plan.Plan
		want string
	}{
		{plan.Plan{Shares: []affinity.Set{affinity.Of(3)}}, ""},
		{plan.Plan{Shares: []affinity.Set{affinity.Of(3)}, Unpinned: "x"}, "1"},
		{plan.Plan{Shares: []affinity.Set{affinity.Of(3, 4)}, Unpinned: "x"}, "2"},
		{plan.Plan{Shares: []affinity.Set{{}}, Unpinned: "x"}, "1"},
	} {
		procs, other := "", ""
		for _, e := range workerEnv(environ, tt.plan, 0) {
			if v, ok := strings.CutPrefix(e, "GOMAXPROCS="); ok {
				procs = v
			}
			if v, ok := strings.CutPrefix(e, "OTHER="); ok {
				other = v
			}
		}
		if procs != tt.want || other != "x=y" {
			t.Errorf("%+v: GOMAXPROCS=%q OTHER=%q; want %q", tt.plan, procs, other, tt.want)
		}
	}
}

func TestFromStdLogger(t *testing.T) {
	var b strings.Builder
	l := logrus.New()
	l.SetOutput(&b)
	l.SetFormatter(&logrus.TextFormatter{DisableTimestamp: true, DisableColors: true})
	log := FromStdLogger(l).With("worker", 3)
	log.Info("worker ready", "attempt", 2)
	log.WithGroup("g").Error("worker failed", "error", "signal: killed")
	log.Warn("worker is late")
	log.Log(t.Context(), slog.LevelInfo+1, "between")
	log.Debug("not shown")
	want := `level=info msg="worker ready worker=3 attempt=2"
level=error msg="worker failed worker=3 g.error=\"signal: killed\""
level=warning msg="worker is late worker=3"
level=info msg="INFO+1 between worker=3"
`
	if b.String() != want {
		t.Errorf("logrus got\n%swant\n%s", b.String(), want)
	}
	b.Reset()
	std := FromStdLogger(stdlog.New(&b, "", 0))
	std.Error("worker failed", "worker", 3)
	std.Warn("worker is late")
	std.Info("worker ready")
	if want := "ERROR worker failed worker=3\nWARN worker is late\nworker ready\n"; b.String() != want {
		t.Errorf("log got\n%swant\n%s", b.String(), want)
	}
}

// TestDrainOnce has one pack run in line after another in a process, as tests do.
func TestDrainOnce(t *testing.T) {
	d := newDrainOnce()
	for range 3 {
		begin := d.next()
		begun := d.begun()
		select {
		case <-begun:
			t.Fatal("it drains before its time")
		default:
		}
		begin()
		begin()
		<-begun
		<-d.begun()
	}
}

func TestIdentity(t *testing.T) {
	i := identity{id: 3, generation: 2, cpus: affinity.Of(1, 2, 3)}
	if back, err := parseIdentity(i.String()); err != nil || back != i {
		t.Errorf("%v reads back as %v, %v", i, back, err)
	}
	i.crash, i.stdout, i.stderr = 5, 3, 4
	i.all, i.procs, i.memory = affinity.Of(0, 9), variable{"2", true}, variable{" 1=\x00", true}
	if back, err := parseIdentity(i.String()); err != nil || back != i {
		t.Errorf("%v reads back as %v, %v", i, back, err)
	}
	for _, text := range []string{
		"", "id=", "id=-1", "id=x", "cpus=1", "id=1 cpus=4-1", "id=1 generation=-2", "id=1 all=x", "id=1 GOMEMLIMIT=%",
	} {
		if i, err := parseIdentity(text); err == nil {
			t.Errorf("%q is %v", text, i)
		}
	}
	if i, err := parseIdentity("id=1 colour=red"); err != nil || i.id != 1 {
		t.Errorf("from a newer master: %v, %v", i, err)
	}
}

func FuzzIdentity(f *testing.F) {
	f.Add("id=3 generation=2 cpus=1-3")
	f.Add("id=0 generation=1 cpus=")
	f.Add("id=0 generation=1 cpus=1 all=0-3 GOMAXPROCS= GOMEMLIMIT=1+%20")
	f.Fuzz(func(t *testing.T, text string) {
		i, err := parseIdentity(text)
		if err != nil {
			return
		}
		if back, err := parseIdentity(i.String()); err != nil || back != i {
			t.Errorf("%q is %v, which reads back as %v, %v", text, i, back, err)
		}
	})
}

// TestEmptyEnvironment has variables that are empty, as compose files have it, and override nothing.
func TestEmptyEnvironment(t *testing.T) {
	for _, name := range []string{envWorkers, envCPUs, envPlacement, envInline} {
		t.Setenv(name, "")
	}
	c := Config{Workers: 3, Placement: PerCore, CPUs: affinity.Of(0)}
	if err := c.overrideByEnv(); err != nil || c.Workers != 3 || c.Placement != PerCore || c.CPUs != affinity.Of(0) {
		t.Errorf("%v: %+v", err, c)
	}
}

func FuzzEnvironment(f *testing.F) {
	f.Add("4", "0-3", "core", "1")
	f.Add("", "", "", "")
	f.Fuzz(func(t *testing.T, workers, cpus, placement, inline string) {
		for name, value := range map[string]string{
			envWorkers: workers, envCPUs: cpus, envPlacement: placement, envInline: inline,
		} {
			if strings.ContainsRune(value, 0) {
				return
			}
			t.Setenv(name, value)
		}
		var c Config
		if c.overrideByEnv() == nil &&
			(c.Workers < 1 && workers != "" || c.CPUs.Len() == 0 && cpus != "" || c.Placement > PerPackage) {
			t.Errorf("%q %q %q give %+v", workers, cpus, placement, c)
		}
	})
}
