package affinity_test

import (
	"cmp"
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
		{text: "1100,1024", want: "1024,1100"}, // more than cpu_set_t holds
		{text: "8191", want: "8191"},
		{text: "0-8191", want: "0-8191"},
		{text: "0-15:2/4", want: "0-1,4-5,8-9,12-13"},
		{text: "1-7:1/2", want: "1,3,5,7"},
		{text: "8192", err: "CPU 8192 is not within 0-8191"},
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
	a, b := affinity.Of(0, 1, 64, 8191), affinity.Of(1, 2, 64)
	for _, tt := range []struct {
		name string
		got  affinity.Set
		want string
	}{
		{"union", a.Union(b), "0-2,64,8191"},
		{"intersect", a.Intersect(b), "1,64"},
		{"minus", a.Minus(b), "0,8191"},
		{"unchanged", a, "0-1,64,8191"},
	} {
		if tt.got.String() != tt.want {
			t.Errorf("%s = %q, want %q", tt.name, tt.got, tt.want)
		}
	}
	if a.Len() != 4 || !a.Contains(8191) || a.Contains(2) || a.Contains(-1) || a.Contains(8192) {
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

func TestSubsets(t *testing.T) {
	none, some := affinity.Set{}, affinity.Of(1, 8191)
	if !none.IsEmpty() || some.IsEmpty() || affinity.Of(8191).IsEmpty() {
		t.Error("IsEmpty is wrong")
	}
	for _, tt := range []struct {
		a, b affinity.Set
		want bool
	}{
		{none, none, true}, {none, some, true}, {some, none, false}, {some, some, true},
		{affinity.Of(8191), some, true}, {affinity.Of(1, 2), some, false}, {some, affinity.Of(1), false},
	} {
		if got := tt.a.IsSubsetOf(tt.b); got != tt.want {
			t.Errorf("%q is a subset of %q: %v", tt.a, tt.b, got)
		}
	}
}

func TestMask(t *testing.T) {
	for _, tt := range []struct {
		mask string
		cpus string
		as   string // what it is written as; "" if as it was
		err  string // what the error must mention
	}{
		{mask: "0", cpus: ""},
		{mask: "3", cpus: "0-1"},
		{mask: "10f", cpus: "0-3,8"},
		{mask: "80000000", cpus: "31"},
		{mask: "1,00000000", cpus: "32"},
		{mask: "3,00000001,80000000", cpus: "31-32,64-65"},
		{mask: "0x3", cpus: "0-1", as: "3"},
		{mask: "0XFF", cpus: "0-7", as: "ff"},
		{mask: " aB\n", cpus: "0-1,3,5,7", as: "ab"},
		{mask: "00000000,00000000,0000000f", cpus: "0-3", as: "f"}, // /proc/PID/status
		{mask: "100000000", cpus: "32", as: "1,00000000"},          // taskset
		{mask: "1" + strings.Repeat("0", 275), cpus: "1100", as: "1000" + strings.Repeat(",00000000", 34)},
		{mask: "8" + strings.Repeat("0", 2047), cpus: "8191", as: "80000000" + strings.Repeat(",00000000", 255)},
		{mask: strings.Repeat("0", 3000) + "1", cpus: "0", as: "1"},
		{mask: "1" + strings.Repeat("0", 2048), err: "CPU 8192 is not within 0-8191"},
		{mask: "", err: "hexadecimal digits"},
		{mask: "0x", err: "hexadecimal digits"},
		{mask: ",00000001", err: "hexadecimal digits"},
		{mask: "1,", err: "hexadecimal digits"},
		{mask: "1,0", err: `"0": want 8 digits between commas`},
		{mask: "100000000,00000000", err: "want 8 digits"},
		{mask: "0-3", err: `'-' is not a hexadecimal digit`},
		{mask: "-1", err: "is not a hexadecimal digit"},
		{mask: "+1", err: "is not a hexadecimal digit"},
		{mask: "1_0", err: "is not a hexadecimal digit"},
		{mask: "0x0x1", err: "is not a hexadecimal digit"},
		{mask: "\x10", err: "is not a hexadecimal digit"},
		{mask: "é", err: "is not a hexadecimal digit"},
	} {
		s, err := affinity.ParseMask(tt.mask)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || !s.IsEmpty() {
				t.Errorf("ParseMask(%.40q) = %q, %v; want an error about %q", tt.mask, s, err, tt.err)
			}
			continue
		}
		if err != nil || s.String() != tt.cpus {
			t.Errorf("ParseMask(%.40q) = %q, %v; want %q", tt.mask, s, err, tt.cpus)
		}
		if want := cmp.Or(tt.as, tt.mask); s.Mask() != want {
			t.Errorf("Mask of %q = %.60q, want %.60q", tt.cpus, s.Mask(), want)
		}
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
	many, back := affinity.Of(0, 1100, affinity.MaxCPUs-1), affinity.Set{}
	if text, err = json.Marshal(many); err != nil || json.Unmarshal(text, &back) != nil || back != many {
		t.Errorf("JSON of %q: %s, %v, which reads back as %q", many, text, err, back)
	}
}

func FuzzMask(f *testing.F) {
	for _, text := range []string{"0", "0x10f", "1,00000000", "00000000,0000000f", "x", ","} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := affinity.ParseMask(text)
		if err != nil {
			if !s.IsEmpty() {
				t.Errorf("ParseMask(%q) gave both %q and %v", text, s, err)
			}
			return
		}
		if again, err := affinity.ParseMask(s.Mask()); err != nil || again != s {
			t.Errorf("ParseMask(%q) = %q, which reads back as %q, %v", text, s, again, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "0-3,8", "0-8191", "0-15:2/4", "8192", "a", "0-", ",", " 5 "} {
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
