package wire

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestRules(t *testing.T) {
	e := &Endpoint{Network: "tcp", Address: ":80"}
	for _, tt := range []struct {
		m     Message
		size  int
		files int
		lost  bool
		want  string // of the error; "" if there is none
	}{
		{m: Message{Type: Hello, Version: 2}, size: 30},
		{m: Message{Type: Hello}, size: 257, want: "257 bytes: at most 256"},
		{m: Message{Type: Hello}, files: 1, want: "1 descriptors: there must be 0"},
		{m: Message{Type: Hello}, lost: true, want: "there must be 0"},
		{m: Message{Type: Handover, Endpoint: e}, files: 1},
		{m: Message{Type: Handover, Endpoint: e}, lost: true},
		{m: Message{Type: Handover, Endpoint: e}, want: "0 descriptors: there must be 1"},
		{m: Message{Type: Handover, Endpoint: e}, files: 2, want: "2 descriptors"},
		{m: Message{Type: Handover}, files: 1, want: "without an endpoint"},
		{m: Message{Type: Listen, Endpoint: &Endpoint{Address: strings.Repeat("x", 513)}}, want: "cannot be"},
		{m: Message{Type: Listen, Endpoint: &Endpoint{Index: -1}}, want: "cannot be"},
		{m: Message{Type: Beat}, want: "vitals that cannot be"},
		{m: Message{Type: Beat, Vitals: &Vitals{Conns: -1}}, want: "vitals that cannot be"},
		{m: Message{Type: Beat, Vitals: &Vitals{Probe: strings.Repeat("x", MaxText)}}, size: 5000},
		{m: Message{Type: Beat, Vitals: &Vitals{Probe: strings.Repeat("x", MaxText+1)}}, want: "vitals that cannot be"},
		{m: Message{Type: Failed, Error: strings.Repeat("x", MaxText+1)}, want: "a text of 4097 bytes"},
		{m: Message{Type: End, Cut: -1}, want: "a number that cannot be"},
		{m: Message{Type: Drained, Endpoint: e, Socket: 1 << 20}, want: "a number that cannot be"},
		{m: Message{Type: Socket}, want: "which no worker sends"},
		{m: Message{Type: "invented"}, want: "which no worker sends"},
	} {
		err := tt.m.CheckFromWorker(tt.size, tt.files, tt.lost)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60v of %d bytes, %d files: %v; want %q", tt.m, tt.size, tt.files, err, tt.want)
		}
	}
}

// TestMaySend has a worker come as far as its end, in the way that ours do.
func TestMaySend(t *testing.T) {
	said := map[Type]bool{}
	for _, step := range []struct {
		state State
		say   []Type
		not   []Type
	}{
		{Joining, []Type{Hello}, []Type{Listen, Ready, Beat, End, Handover, Quiesce, Stopping, Failed}},
		{Starting, []Type{Listen, Listen, Beat, Ready}, []Type{Hello, Quiesce, Closed, Handover, End, Drained}},
		{Serving, []Type{Beat, Beat, Covered, Drained, Handover, Stopping, HandoverEnded}, []Type{Listen, Ready, Quiesce, Closed, End}},
		{Draining, []Type{Beat, Listen, Quiesce, Handover, HandoverEnded, Closed}, []Type{Hello, Ready, Stopping, Quiesce}},
		{Closing, []Type{Handover, Beat, Drained, End}, []Type{Listen, Quiesce, Closed, Failed, End}},
	} {
		for _, m := range step.say {
			if err := MaySend(m, step.state, said); err != nil {
				t.Errorf("%v", err)
			}
			said[m] = true
		}
		for _, m := range step.not {
			if MaySend(m, step.state, said) == nil {
				t.Errorf("%s may be sent while %v, after %v", m, step.state, said)
			}
		}
	}
}

func TestMeter(t *testing.T) {
	var m Meter
	now := time.Unix(0, 0)
	for i := range burst {
		if err := m.Count(Beat, Serving, now); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if m.Count(Beat, Serving, now) == nil {
		t.Error("there is no end to a burst")
	}
	if m.Count(Handover, Draining, now) != nil {
		t.Error("connections are counted that are handed over in a drain")
	}
	if m.Count(Handover, Serving, now) == nil {
		t.Error("there is no end to connections that are handed over without need")
	}
	now = now.Add(time.Second)
	for i := range perSecond {
		if err := m.Count(Beat, Serving, now); err != nil {
			t.Fatalf("a second later, message %d: %v", i, err)
		}
	}
	if m.Count(Beat, Serving, now) == nil {
		t.Error("there is no end")
	}
}

func TestClip(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("x", MaxText), strings.Repeat("x", 70000), strings.Repeat("ü", 5000)} {
		if got := Clip(text); len(got) > MaxText || !utf8.ValidString(got) || len(text) <= MaxText && got != text {
			t.Errorf("of %d bytes %d are left", len(text), len(got))
		}
	}
	// However it is escaped, a text that was clipped fits into a message.
	for _, char := range []string{"\x00", "\"", "<", "\u2028", "\xff", "\xffx"} {
		m := Message{Type: Beat, Vitals: &Vitals{Probe: Clip(strings.Repeat(char, 70000))}}
		body, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(body)
		if err == nil {
			err = back.CheckFromWorker(len(body), 0, false)
		}
		if err != nil {
			t.Errorf("%q: %v", char, err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"type":"hello","version":2}`), 0)
	f.Add([]byte(`{"type":"listen","endpoint":{"network":"tcp","address":":80","index":1}}`), 0)
	f.Add([]byte(`{"type":"handover","endpoint":{"network":"tcp","address":":80"}}`), 1)
	f.Add([]byte(`{"type":"beat","vitals":{"served":1,"probe":"x"}}`), 0)
	f.Fuzz(func(t *testing.T, body []byte, files int) {
		m, err := Parse(body)
		if err != nil || m.CheckFromWorker(len(body), files, false) != nil {
			return
		}
		r, ok := rules[m.Type]
		if !ok || files != r.files || len(body) > r.size || len(m.Error) > MaxText {
			t.Errorf("%q with %d descriptors passes", body, files)
		}
		if m.Type == Listen && (m.Endpoint == nil || len(m.Endpoint.Address) > maxAddress) {
			t.Errorf("%q passes", body)
		}
	})
}
