package affinity

import (
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	rest := " S" + strings.Repeat(" 7", 35) + " 1023 0 0"
	for _, tt := range []struct{ line, name, err string }{
		{"1 (init)" + rest, "init", ""},
		{"1 (a) b (c))" + rest, "a) b (c)", ""},
		{"1 ()" + rest, "", ""},
		{"1 (new\nline)" + rest, "new\nline", ""},
		{"", "", "no name"},
		{"1 )(" + rest, "", "no name"},
		{"1 (init) S 1", "", "too few fields"},
		{"1 (init)" + strings.ReplaceAll(rest, "1023", "-1"), "", "not a number"},
	} {
		name, cpu, err := parseStat(tt.line)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%.20q: %v; want an error about %q", tt.line, err, tt.err)
			}
			continue
		}
		if err != nil || name != tt.name || cpu != 1023 {
			t.Errorf("%.20q: %q, %d, %v; want %q, 1023", tt.line, name, cpu, err, tt.name)
		}
	}
}
