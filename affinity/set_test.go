package affinity_test

import (
	"encoding/json"
	"flag"
	"strings"
	"testing"

	"github.com/gopherpack/gopherpack/affinity"
)

func TestParse(t *testing.T) {
	tests := []struct {
		text string
		want string // the list format that it comes back as
		err  string // what the error must mention
	}{
		{text: "", want: ""},
		{text: "  \n", want: ""},
		{text: "0", want: "0"},
		{text: "0-3,8", want: "0-3,8"},
		{text: "8,3,2,1,0", want: "0-3,8"},
		{text: "0-1,1-2", want: "0-2"},
		{text: " 0 , 2 ", want: "0,2"},
		{text: "0,1", want: "0-1"},
		{text: "1023", want: "1023"},
		{text: "0-1023", want: "0-1023"},
		{text: "0-15:2/4", want: "0-1,4-5,8-9,12-13"},
		{text: "1-7:1/2", want: "1,3,5,7"},
		{text: "1024", err: "CPU 1024 is not within 0-1023"},
		{text: "0-99999999999999999999", err: "too large"},
		{text: "3-1", err: "runs backwards"},
		{text: "1,,2", err: `"" is not a number`},
		{text: "-1", err: "is not a number"},
		{text: "+1", err: "is not a number"},
		{text: "1_0", err: "is not a number"},
		{text: "0x1", err: "is not a number"},
		{text: "a", err: `"a" is not a number`},
		{text: "0-7:0/4", err: "stride"},
		{text: "0-7:5/4", err: "stride"},
		{text: "3:1/2", err: "stride"},
		{text: "0-3:2", err: "stride"},
	}
	for _, tt := range tests {
		s, err := affinity.Parse(tt.text)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Parse(%q) = %q, %v; want an error about %q", tt.text, s, err, tt.err)
			}
			continue
		}
		if err != nil || s.String() != tt.want {
			t.Errorf("Parse(%q) = %q, %v; want %q", tt.text, s, err, tt.want)
		}
	}
}

func TestSetAlgebra(t *testing.T) {
	a, b := affinity.Of(0, 1, 64, 1023), affinity.Of(1, 2, 64)
	for _, tt := range []struct {
		name string
		got  affinity.Set
		want string
	}{
		{"union", a.Union(b), "0-2,64,1023"},
		{"intersect", a.Intersect(b), "1,64"},
		{"minus", a.Minus(b), "0,1023"},
		{"unchanged", a, "0-1,64,1023"},
	} {
		if tt.got.String() != tt.want {
			t.Errorf("%s = %q, want %q", tt.name, tt.got, tt.want)
		}
	}
	if a.Len() != 4 || !a.Contains(1023) || a.Contains(2) || a.Contains(-1) || a.Contains(1024) {
		t.Errorf("%q: Len %d or Contains is wrong", a, a.Len())
	}
	if first, ok := b.First(); first != 1 || !ok {
		t.Errorf("First of %q = %d, %v", b, first, ok)
	}
	if _, ok := (affinity.Set{}).First(); ok {
		t.Error("the empty set has a first CPU")
	}
	if affinity.Of(2, 1) != affinity.Of(1, 2) {
		t.Error("equal sets are not ==")
	}
}

func TestOfPanics(t *testing.T) {
	for _, cpu := range []int{-1, affinity.MaxCPUs} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Of(%d) did not panic", cpu)
				}
			}()
			affinity.Of(cpu)
		}()
	}
}

func TestSetAsFlagAndJSON(t *testing.T) {
	var s affinity.Set
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.SetOutput(t.Output())
	flags.TextVar(&s, "cpus", affinity.Of(0), "CPUs to use")
	if err := flags.Parse([]string{"-cpus=2-3"}); err != nil || s != affinity.Of(2, 3) {
		t.Errorf("flag: %q, %v", s, err)
	}
	if err := flags.Parse([]string{"-cpus=x"}); err == nil || s != affinity.Of(2, 3) {
		t.Errorf("a bad flag: %q, %v; want the former set and an error", s, err)
	}
	text, err := json.Marshal(map[string]affinity.Set{"cpus": s})
	if err != nil || string(text) != `{"cpus":"2-3"}` {
		t.Errorf("JSON: %s, %v", text, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "0-3,8", "0-1023", "0-15:2/4", "1024", "a", "0-", ",", " 5 "} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := affinity.Parse(text)
		if err != nil {
			if s != (affinity.Set{}) {
				t.Errorf("Parse(%q) gave both %q and %v", text, s, err)
			}
			return
		}
		again, err := affinity.Parse(s.String())
		if err != nil || again != s {
			t.Errorf("Parse(%q) = %q, which reads back as %q, %v", text, s, again, err)
		}
	})
}
