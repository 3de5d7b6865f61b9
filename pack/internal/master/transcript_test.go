package master

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts anew")

// TestTranscripts plays the scenarios of testdata: a line that is not indented is what happens, see world.do; those
// that follow, indented, are what the core has done about it. A change of behavior shows as a change of a transcript.
func TestTranscripts(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(500 << 20)) // a core knows nothing of this machine but what it is told
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("it went otherwise than in %s (-rewrite writes it anew):\n%s", file, firstDifference(string(text), got))
			}
		})
	}
}

// firstDifference returns the lines around the first that differs.
func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	i := 0
	for i < len(w) && i < len(g) && w[i] == g[i] {
		i++
	}
	from := max(0, i-5)
	return fmt.Sprintf("line %d\nwant\n%s\ngot\n%s", i+1,
		strings.Join(w[from:min(len(w), i+5)], "\n"), strings.Join(g[from:min(len(g), i+5)], "\n"))
}

// play returns a transcript with what the core has done.
func play(t *testing.T, text string) string {
	var all strings.Builder
	var w *world
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, " "):
			continue
		case strings.HasPrefix(line, "#"), strings.TrimSpace(line) == "":
			all.WriteString(line)
			continue
		}
		words := strings.Fields(line)
		if words[0] == "begin" {
			w = beginWorld(words[1:])
		} else if err := w.tryTo(words[0], words[1:]); err != nil {
			t.Fatalf("%s: %v", strings.TrimSpace(line), err)
		}
		all.WriteString(line)
		all.WriteString(w.out.String())
		w.out.Reset()
	}
	return all.String()
}

// beginWorld starts a pack: "workers=3", "steered", "rolling", "report", "hold=X" for what hands do not do, and so on.
func beginWorld(words []string) *world {
	s, workers, packets := settings(), 2, false
	var holds []string
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "workers":
			fmt.Sscan(value, &workers)
		case "steered":
			s.Steered = true
		case "stay":
			s.NoRebalance = true
		case "rolling":
			s.Rolling = true
		case "report":
			s.Hang = ReportHung
		case "managed":
			s.Managed = true
		case "watchdog":
			s.Watchdog, _ = time.ParseDuration(value)
		case "packets":
			packets = true
		case "hook":
			s.OnStart = true
		case "memory":
			s.Recycle.Memory = 1 << 20
		case "requests":
			fmt.Sscan(value, &s.Recycle.Requests)
		case "hold":
			holds = append(holds, value)
		default:
			panic("unknown word " + word)
		}
	}
	w := newWorld(s)
	for _, h := range holds {
		w.held[h] = true
	}
	endpoints := endpointsOf[:1]
	if w.packets = packets; packets {
		endpoints = packetsOf
	}
	w.post(begin{endpoints: endpoints, spec: spec{plan: sharesOf(workers)}})
	return w
}

// tryTo is do, for a transcript that may speak of a worker that is not there.
func (w *world) tryTo(what string, args []string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			if text, ok := v.(string); !ok || !strings.HasPrefix(text, "there is no worker") {
				panic(v)
			}
			err = fmt.Errorf("%v", v)
		}
	}()
	return w.do(what, args)
}

// do has something happen.
func (w *world) do(what string, args []string) error {
	arg := strings.Join(args, " ")
	switch what {
	case "pass": // time
		d, err := time.ParseDuration(arg)
		if err != nil {
			return err
		}
		w.pass(d)
	case "mute": // a worker is stopped
		w.process(arg).mute = true
	case "goon": // it goes on
		p := w.process(arg)
		p.mute = false
		heard := p.unheard
		p.unheard = nil
		for _, s := range heard {
			w.hears(p, s)
		}
		w.beat(p)
		w.post(tick{})
	case "kept": // a worker has so many connections that it could hand over
		fmt.Sscan(args[1], &w.process(args[0]).kept)
	case "hogged", "calm":
		w.process(arg).hogged = what == "hogged"
	case "idle", "busy": // a worker takes no connections, or does again
		w.process(arg).idle = what == "idle"
		w.accept()
	case "stays": // a worker does not come to an end when it drains
		w.process(arg).stays = true
	case "end":
		w.ends(w.process(arg).ref, nil)
		w.post(tick{})
	case "silent": // its control socket ends
		w.post(gone{w.process(args[0]).ref})
	case "die":
		w.ends(w.process(arg).ref, errors.New("signal: killed"))
		w.post(tick{})
	case "connect": // connections come to sockets
		for _, n := range args {
			var i int
			fmt.Sscan(n, &i)
			w.waiting[sockets.Ref{Endpoint: endpointsOf[0], Socket: i}] = true
		}
		w.accept()
	case "TERM", "TERM-worker":
		if what == "TERM" {
			w.post(stop{errors.New("signal: terminated")})
		} else {
			w.says(w.process(arg), wire.Message{Type: wire.Stopping})
			w.post(tick{})
		}
	case "TERM-again":
		w.post(force{})
	case "HUP":
		w.post(reload{})
	case "USR1":
		w.post(reopen{})
	case "USR2":
		w.post(upgradeTo{})
	case "TTIN":
		w.post(scale{by: 1})
	case "TTOU":
		w.post(scale{by: -1})
	case "Reload":
		w.call(what, func(r reply) event { return reload{r} })
	case "Upgrade":
		w.call(what, func(r reply) event { return upgradeTo{r} })
	case "SetWorkers":
		var n int
		fmt.Sscan(arg, &n)
		w.call(what, func(r reply) event { return scale{to: n, reply: r} })
	case "abandon": // a call, whose context has ended
		w.post(abandon{w.replies[arg], errors.New("context canceled")})
		w.returned(arg)
	case "say": // a worker says a message, as JSON
		return w.say(args[0], strings.Join(args[1:], " "))
	case "handover":
		w.parcels++
		w.post(message{ref: w.process(arg).ref, msg: wire.Message{Type: wire.Handover, Endpoint: &endpointsOf[0]}, parcel: w.parcels})
	case "hold":
		w.held[arg] = true
	case "unhold":
		delete(w.held, arg)
	case "hook": // returns
		name, text, failed := strings.Cut(arg, " ")
		e := hooked{name: hook(name)}
		if failed {
			e.err = errors.New(text)
		}
		w.post(e)
	case "opened", "refused": // sockets are open at last, or cannot be
		e := opened{endpoint: endpointsOf[0], info: sockets.Info{Endpoint: endpointsOf[0], Sockets: 2, Address: ":80"}}
		if what == "refused" {
			e.err = errors.New(arg)
		}
		w.post(e)
	case "answer": // a hand that was held answers what it was asked first; with words more, that it has failed
		name, text, failed := strings.Cut(arg, " ")
		if len(w.answers[name]) == 0 {
			return fmt.Errorf("%s was not asked", name)
		}
		e := w.answers[name][0]
		w.answers[name] = w.answers[name][1:]
		if failed {
			e = failure(e, errors.New(text))
		}
		w.post(e)
	case "steering-hung":
		var id int
		fmt.Sscan(args[0], &id)
		w.post(steeringHung{id, args[1] == "yes"})
	case "succeed": // the next program takes over
		w.succeed()
	case "ill": // a worker's probe fails
		w.process(args[0]).ill = strings.Join(args[1:], " ")
	case "lose": // the file of a Unix socket
		r := sockets.Renewed{Endpoint: endpointsOf[0], Before: endpointsOf[0]}
		r.Before.Index = -1
		r.Info = sockets.Info{Endpoint: r.Endpoint, Sockets: 1, Shared: true, Address: r.Endpoint.Address}
		if arg != "" {
			r.Err = errors.New(arg)
		}
		w.lost = []sockets.Renewed{r}
	case "served": // so many requests, by a worker
		fmt.Sscan(args[1], &w.process(args[0]).served)
	default:
		return errors.New("nothing of that name happens")
	}
	return nil
}

// TestManyAddresses has a worker ask for ever more addresses that take long to open.
func TestManyAddresses(t *testing.T) {
	w := newWorld(settings())
	w.held["open"], w.held["slow 1.0"] = true, true
	w.post(begin{spec: spec{plan: sharesOf(1)}})
	for i := range maxEndpoints + 1 {
		if n := len(w.core.endpoints); n != i+1 { // with its own
			t.Fatalf("%d addresses after %d", n, i)
		}
		e := wire.Endpoint{Network: "tcp", Address: fmt.Sprintf("host-%d:80", i)}
		w.out.Reset()
		w.post(message{ref: w.process("0.1").ref, msg: wire.Message{Type: wire.Listen, Endpoint: &e}})
		if refused := strings.Contains(w.out.String(), "more than 256 addresses"); refused {
			if i+1 != maxEndpoints {
				t.Errorf("refused after %d", i+1)
			}
			return
		}
	}
	t.Error("none was refused")
}

// call calls a method of Pack that asks for a change.
func (w *world) call(method string, e func(reply) event) {
	r := make(chan error, 1)
	w.replies[method] = r
	w.post(e(r))
	w.returned(method)
}

// returned tells what a call has returned, if it has.
func (w *world) returned(method string) {
	select {
	case err := <-w.replies[method]:
		w.printf("%s returns: %v", method, err)
	default:
	}
}

// failure returns the answer of a hand that has failed.
func failure(e event, err error) event {
	switch e := e.(type) {
	case preflown:
		return preflown{change: e.change, err: err}
	case imageOpened:
		return imageOpened{change: e.change, err: err}
	case grown:
		return grown{change: e.change, workers: e.workers, err: err}
	case planned:
		return planned{change: e.change, err: err}
	}
	panic(fmt.Sprintf("%T cannot fail", e))
}

// say has a worker say what only a hostile one would.
func (w *world) say(who, text string) error {
	p := w.process(who)
	m, err := wire.Parse([]byte(text))
	if err == nil {
		err = m.CheckFromWorker(len(text), 0, false)
	}
	if err != nil {
		w.post(broken{p.ref, err})
		return nil
	}
	w.post(message{ref: p.ref, msg: m})
	return nil
}

// succeed goes on as the program that the core has passed its state on to.
func (w *world) succeed() {
	s := w.state
	for i := range s.Generations {
		s.Generations[i].Group = w.groupState(s.Generations[i].Number)
	}
	for _, a := range s.Addresses {
		s.Sockets = append(s.Sockets, sockets.State{Endpoint: a.Endpoint, Listeners: make([]int, w.core.sockets())})
	}
	before := w.core
	w.core = newCore(before.Settings, w.now)
	w.frozen = false
	w.post(begin{spec: spec{plan: before.current.plan}, state: s})
}
