package report

import (
	"bytes"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/report.md anew")

// TestReport compares the report of a small raw.json with what it was.
func TestReport(t *testing.T) {
	raw, err := Read("testdata/raw.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := raw.Make(dir); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "report.md"))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/report.md", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/report.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("go test -update ./internal/report writes it anew, if this is right:\n%s", got)
	}
	for _, name := range []string{"hello-2-cpu.svg", "hello-2-rate.svg", "lost-2-lost-kept.svg", "hello-scaling.svg"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Contains(text, []byte("<svg")) {
			t.Errorf("%s: %.40q, %v", name, text, err)
		}
	}
}

// TestReadsWhatItWrites writes raw data, and reads it.
func TestReadsWhatItWrites(t *testing.T) {
	raw, err := Read("testdata/raw.json")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "raw.json")
	if err := raw.Write(file); err != nil {
		t.Fatal(err)
	}
	again, err := Read(file)
	if err != nil || again.markdown(again.tables()) != raw.markdown(raw.tables()) {
		t.Errorf("another report: %v", err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); err == nil {
		t.Error("half a file is read")
	}
}

// TestOneNumber leaves out how many CPUs, where it is always the same.
func TestOneNumber(t *testing.T) {
	raw, err := Read("testdata/raw.json")
	if err != nil {
		t.Fatal(err)
	}
	raw.Samples = slices.DeleteFunc(raw.Samples, func(s Sample) bool { return s.CPUs != 2 })
	text := raw.markdown(raw.tables())
	if !strings.Contains(text, " A server has 2 CPUs.\n") || !strings.Contains(text, "\n## Hello\n") {
		t.Errorf("want the number once, at the beginning:\n%s", text)
	}
	raw.Samples = nil
	if text := raw.markdown(raw.tables()); strings.Contains(text, "A server has") {
		t.Errorf("of nothing:\n%s", text)
	}
}

// TestBusy says that the machine did something else.
func TestBusy(t *testing.T) {
	for load, busy := range map[string]bool{"0.02": false, "0.49": false, "1.70": true, "": false} {
		raw := &Raw{Machine: Machine{Number: 2, Load: load}}
		if got := strings.Contains(raw.markdown(nil), "not idle"); got != busy {
			t.Errorf("at a load of %q on 2 CPUs it is said: %v", load, got)
		}
	}
}

// TestBroken has a pack that lost something in one of two rounds, and a server that could not be measured.
func TestBroken(t *testing.T) {
	raw, err := Read("testdata/raw.json")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"hello of gnet: it does not serve", "lost of pack: lost, kept alive is 2"}
	if got := raw.Broken(); !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   Spread
	}{
		{[]float64{7}, Spread{7, 7, 7}},
		{[]float64{9, 1, 4}, Spread{4, 1, 9}},
		{[]float64{4, 1, 2, 9}, Spread{3, 1, 9}},
	} {
		if got := spreadOf(tt.values); got != tt.want {
			t.Errorf("%v: %v; want %v", tt.values, got, tt.want)
		}
	}
}

// TestRatio has a round in which everything took twice as long, and one in which the base was not measured.
func TestRatio(t *testing.T) {
	base := &row{rounds: map[string]map[int]float64{"cpu": {0: 10, 1: 20, 2: 10}}}
	r := &row{rounds: map[string]map[int]float64{"cpu": {0: 9, 1: 18, 2: 11, 3: 50}}}
	s, ok := r.ratio(base, "cpu")
	if !ok || math.Abs(s.Median-0.9) > 1e-9 || math.Abs(s.Max-1.1) > 1e-9 {
		t.Errorf("%v, %v; want 0.9, to 1.1", s, ok)
	}
	for _, none := range []*row{nil, {}, {rounds: map[string]map[int]float64{"cpu": {0: 0}}}} {
		if s, ok := r.ratio(none, "cpu"); ok {
			t.Errorf("to %v: %v", none, s)
		}
	}
}

func TestValueText(t *testing.T) {
	for _, tt := range []struct {
		digits int
		value  float64
		want   string
	}{{0, 7, "7"}, {0, 123, "123"}, {0, 1234567, "1,234,567"}, {2, 1234.5, "1,234.50"}, {1, 0.04, "0.0"}} {
		if got := valueText(Figure{Digits: tt.digits}, tt.value); got != tt.want {
			t.Errorf("%v to %d digits: %s; want %s", tt.value, tt.digits, got, tt.want)
		}
	}
}

// TestAhead says that a figure within 2 % is neither ahead nor behind.
func TestAhead(t *testing.T) {
	for _, tt := range []struct {
		more          bool
		ratio         float64
		ahead, behind bool
	}{
		{false, 0.97, true, false}, {false, 0.99, false, false}, {false, 1.01, false, false}, {false, 1.03, false, true},
		{true, 0.97, false, true}, {true, 0.99, false, false}, {true, 1.01, false, false}, {true, 1.03, true, false},
	} {
		f := Figure{More: tt.more}
		if ahead(f, tt.ratio) != tt.ahead || behind(f, tt.ratio) != tt.behind {
			t.Errorf("more is better: %v; %v: ahead %v, behind %v", tt.more, tt.ratio, ahead(f, tt.ratio), behind(f, tt.ratio))
		}
	}
}
