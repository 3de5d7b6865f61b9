package pack

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/procgroup"
)

// uniform is a machine with n cores, and threads hardware threads in each, whose numbers are far apart.
func uniform(cores, threads int) machine {
	var m machine
	for id := range cores * threads {
		var core affinity.Set
		for i := range threads {
			core.Add(id%cores + i*cores)
		}
		m.topology = append(m.topology, affinity.CPU{ID: id, Core: core, Cache: affinity.Of(id), Package: affinity.Of(id)})
		m.allowed.Add(id)
	}
	return m
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name     string
		config   Config
		change   func(*machine)
		want     string // the CPUs of each worker
		unpinned string // what the reason says
	}{
		{name: "one per CPU", want: "0 1 2 3 4 5 6 7"},
		{name: "two workers", config: Config{Workers: 2}, want: "0 1"},
		{name: "more than CPUs", config: Config{Workers: 10}, want: "0 1 2 3 4 5 6 7 0 1"},
		{name: "per core", config: Config{Placement: PerCore}, want: "0,4 1,5 2,6 3,7"},
		{name: "some CPUs", config: Config{CPUs: affinity.Of(1, 5, 6)}, want: "1 6 5"},
		{name: "a mask", change: func(m *machine) { m.allowed = affinity.Of(2, 3) }, want: "2 3"},
		{name: "quota", change: func(m *machine) { m.quota = 2.5 }, want: "0 1 2", unpinned: "the processor quota is 2.5 of 8 CPUs"},
		{name: "tiny quota", change: func(m *machine) { m.quota = 0.1 }, want: "0", unpinned: "0.1 of 8"},
		{name: "ample quota", change: func(m *machine) { m.quota = 8 }, want: "0 1 2 3 4 5 6 7"},
		{name: "quota, per core", config: Config{Placement: PerCore}, change: func(m *machine) { m.quota = 3 }, want: "0,4 1,5", unpinned: "3 of 8"},
		{name: "quota, but the CPUs are named", config: Config{CPUs: affinity.Of(4, 5, 6)}, change: func(m *machine) { m.quota = 2 }, want: "4 5"},
		{name: "quota, but the number is named", config: Config{Workers: 4}, change: func(m *machine) { m.quota = 2 }, want: "0 1 2 3"},
		{name: "GOMAXPROCS", change: func(m *machine) { m.maxProcs = 3 }, want: "0 1 2"},
		{name: "GOMAXPROCS is larger", change: func(m *machine) { m.maxProcs = 100 }, want: "0 1 2 3 4 5 6 7"},
	}
	for _, tt := range tests {
		m := uniform(4, 2)
		if tt.change != nil {
			tt.change(&m)
		}
		p, err := tt.config.plan(m)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var got []string
		for _, s := range p.shares {
			got = append(got, s.String())
		}
		if strings.Join(got, " ") != tt.want || (p.unpinned == "") != (tt.unpinned == "") || !strings.Contains(p.unpinned, tt.unpinned) {
			t.Errorf("%s: %v, unpinned %q; want %s, %q", tt.name, got, p.unpinned, tt.want, tt.unpinned)
		}
	}
	if _, err := (&Config{CPUs: affinity.Of(7, 8)}).plan(uniform(8, 1)); err == nil || !strings.Contains(err.Error(), `may not use "8"`) {
		t.Errorf("a CPU that may not be used: %v", err)
	}
}

func TestWorkerEnv(t *testing.T) {
	t.Setenv("GOMAXPROCS", "7")
	t.Setenv("OTHER", "x=y")
	for _, tt := range []struct {
		plan plan
		want string
	}{
		{plan{shares: []affinity.Set{affinity.Of(3)}}, ""},
		{plan{shares: []affinity.Set{affinity.Of(3)}, unpinned: "x"}, "1"},
		{plan{shares: []affinity.Set{affinity.Of(3, 4)}, unpinned: "x"}, "2"},
		{plan{shares: []affinity.Set{{}}, unpinned: "x"}, "1"},
	} {
		procs, other := "", ""
		for _, e := range workerEnv(tt.plan, 0) {
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
	log.Debug("not shown")
	want := `level=info msg="worker ready worker=3 attempt=2"
level=info msg="ERROR worker failed worker=3 g.error=\"signal: killed\""
`
	if b.String() != want {
		t.Errorf("logrus got\n%swant\n%s", b.String(), want)
	}
	var _ StdLogger = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
}

func TestIdentity(t *testing.T) {
	i := identity{id: 3, generation: 2, cpus: affinity.Of(1, 2, 3)}
	if back, err := parseIdentity(i.String()); err != nil || back != i {
		t.Errorf("%v reads back as %v, %v", i, back, err)
	}
	for _, text := range []string{"", "id=", "id=-1", "id=x", "cpus=1", "id=1 cpus=4-1", "id=1 generation=-2"} {
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

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"type":"hello","version":1}`))
	f.Add([]byte(`{"type":"listen","endpoint":{"network":"tcp","address":":80","index":1}}`))
	f.Add([]byte(`{"type":"drain","final":true}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if m, err := parseMessage(body); err == nil && m.Type == "" {
			t.Errorf("%q is a message without a type", body)
		}
	})
}

func FuzzEnvironment(f *testing.F) {
	f.Add("4", "0-3", "core", "1")
	f.Fuzz(func(t *testing.T, workers, cpus, placement, inline string) {
		for name, value := range map[string]string{envWorkers: workers, envCPUs: cpus, envPlacement: placement, envInline: inline} {
			if strings.ContainsRune(value, 0) {
				return
			}
			t.Setenv(name, value)
		}
		var c Config
		if c.overrideByEnv() == nil && (c.Workers < 1 || c.CPUs.Len() == 0 || c.Placement > PerNode) {
			t.Errorf("%q %q %q give %+v", workers, cpus, placement, c)
		}
	})
}

func FuzzLegacy(f *testing.F) {
	f.Add([]byte(`{"path":"/x","current":2,"generations":[{"number":2,"up":true,"shares":["0"],"group":{"members":[{"phase":"ready","pid":7}]},` +
		`"lifelines":{"0":5},"links":{"7":{"ready":true}}}],"sockets":[{"endpoint":{"network":"tcp","address":":1"},"listeners":[6]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := parseLegacy(text)
		if err != nil {
			return
		}
		seen := map[int]bool{}
		for _, fd := range l.descriptors() {
			if fd < 3 || seen[fd] {
				t.Errorf("descriptors %v", l.descriptors())
			}
			seen[fd] = true
		}
		s := &succession{legacy: l, files: map[int]*os.File{}}
		s.takeGenerations()
	})
}

// watching returns a master that tells its log of workers that hang, and no more.
func watching(timeout time.Duration) (m *masterState, log *bytes.Buffer) {
	log = new(bytes.Buffer)
	m = &masterState{links: map[*procgroup.Process]*workerLink{}, log: slog.New(slog.NewTextHandler(log, nil))}
	m.config.HangTimeout, m.config.Hang = timeout, ReportHung
	return m, log
}

// TestHangsAtOnce has workers hang that have not come to beat even once: as soon as they are ready, and while the master is
// replaced.
func TestHangsAtOnce(t *testing.T) {
	const timeout = 10 * time.Second
	for _, adopted := range []bool{false, true} {
		m, log := watching(timeout)
		m.lookAtWorkers(time.Hour)
		l := &workerLink{process: &procgroup.Process{PID: 1 << 30}, state: linkState{Ready: adopted}}
		m.addLink(l)
		if !adopted {
			m.lookAtWorkers(time.Hour) // it may take long to get ready
			m.ready(l)
		}
		m.lookAtWorkers(timeout)
		if strings.Contains(log.String(), "hangs") {
			t.Errorf("adopted %v: it was not given the time: %s", adopted, log.String())
		}
		m.lookAtWorkers(time.Second)
		if !strings.Contains(log.String(), "worker hangs") {
			t.Errorf("adopted %v: it was not found: %q", adopted, log.String())
		}
	}
}

// TestForgiven has all workers of a starved machine late, and all probes fail. When the first recovers, the others must get
// the time to follow, and one that does not is found all the same.
func TestForgiven(t *testing.T) {
	const timeout = 10 * time.Second
	for _, failure := range []string{"", "no database"} {
		m, log := watching(timeout)
		var workers []*workerLink
		for id := range 3 {
			l := &workerLink{process: &procgroup.Process{ID: id, PID: 1 << 30}}
			m.addLink(l)
			m.ready(l)
			workers = append(workers, l)
		}
		// pass has time pass, in which some workers beat, and some of these say that their probe fails.
		pass := func(d time.Duration, beat, ill []*workerLink) {
			for range d / time.Second {
				for _, l := range beat {
					v := &vitals{}
					if slices.Contains(ill, l) {
						v.Probe = failure
					}
					m.beat(l, v)
				}
				m.lookAtWorkers(time.Second)
			}
		}
		if failure == "" {
			pass(2*timeout, nil, nil)
			pass(4*time.Second, workers[:1], nil)
			pass(time.Second, workers, nil)
		} else {
			pass(2*timeout, workers, workers)
			pass(4*time.Second, workers, workers[1:])
			pass(time.Second, workers, nil)
		}
		if strings.Contains(log.String(), "hangs") {
			t.Errorf("workers that came late were taken for hung: %s", log.String())
		}
		if failure == "" {
			pass(2*timeout, nil, nil)
			pass(timeout, workers[:2], nil)
		} else {
			pass(2*timeout, workers, workers)
			pass(timeout, workers, workers[2:])
		}
		if n := strings.Count(log.String(), "hangs"); n != 1 || !strings.Contains(log.String(), "worker=2") {
			t.Errorf("the worker that never came was not found: %s", log.String())
		}
	}
}

func TestJudge(t *testing.T) {
	const s = time.Second
	for _, test := range []struct {
		silent, failing []time.Duration
		want            []verdict
	}{
		{nil, nil, nil},
		{[]time.Duration{0, 5 * s}, []time.Duration{0, 0}, []verdict{works, works}},
		{[]time.Duration{0, 6 * s}, []time.Duration{0, 0}, []verdict{works, isLate}},
		{[]time.Duration{0, 11 * s}, []time.Duration{0, 11 * s}, []verdict{works, hangs}},
		{[]time.Duration{6 * s, 11 * s}, []time.Duration{0, 0}, []verdict{works, works}}, // all are late
		{[]time.Duration{6 * s, 31 * s}, []time.Duration{0, 0}, []verdict{works, hangs}},
		{[]time.Duration{6 * s}, []time.Duration{0}, []verdict{works}}, // nobody could serve its queue
		{[]time.Duration{11 * s}, []time.Duration{0}, []verdict{hangs}},
		{[]time.Duration{0, 0}, []time.Duration{0, 11 * s}, []verdict{works, unwell}},
		{[]time.Duration{0, 0}, []time.Duration{6 * s, 11 * s}, []verdict{works, works}}, // no probe works
		{[]time.Duration{0}, []time.Duration{11 * s}, []verdict{unwell}},
	} {
		if got, _ := judge(test.silent, test.failing, 10*s); !slices.Equal(got, test.want) {
			t.Errorf("silent for %v, probes failing for %v: %v; want %v", test.silent, test.failing, got, test.want)
		}
	}
}
