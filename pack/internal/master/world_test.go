package master

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gopherpack/gopherpack/affinity"
	"github.com/gopherpack/gopherpack/internal/proc"
	"github.com/gopherpack/gopherpack/internal/scoreboard"
	"github.com/gopherpack/gopherpack/pack/internal/handoff"
	"github.com/gopherpack/gopherpack/pack/internal/health"
	"github.com/gopherpack/gopherpack/pack/internal/plan"
	"github.com/gopherpack/gopherpack/pack/internal/roster"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
	"github.com/gopherpack/gopherpack/pack/internal/wire"
	"github.com/gopherpack/gopherpack/procgroup"
)

// world stands in for the hands, the workers and the clock of a core. Workers do as ours do, unless they are told
// otherwise.
type world struct {
	core      *core
	now       time.Time
	out       strings.Builder
	todo      []event // in order
	groups    map[int]*fakeGroup
	processes map[roster.Ref]*fakeProcess
	waiting   map[sockets.Ref]bool // sockets on which connections wait
	held      map[string]bool      // what hands do not do, or how workers and they behave
	answers   map[string][]event   // of hands, that are held
	replies   map[string]chan error
	frozen    bool
	state     *handoff.State // what was passed on
	ended     bool
	parcels   int
	lost      []sockets.Renewed              // files of Unix sockets
	defers    map[wire.Endpoint]bool         // as the sockets are
	endpoints int                            // that workers serve
	packets   bool                           // it serves packetsOf instead
	observe   func(e event, d time.Duration) // is told how long the core took, by clock; may be nil
	clock     func() time.Duration
}

type fakeGroup struct {
	size     int
	held     bool
	proven   bool
	stopping bool
	attempts []int
	again    map[int]bool
	over     map[int]bool
}

type fakeProcess struct {
	ref      roster.Ref
	pid      int
	mute     bool // it neither hears nor says anything
	idle     bool // it takes no connections
	broken   bool // it ends instead of getting ready
	stays    bool // it does not end when it is told to drain
	serves   map[sockets.Ref]bool
	accepted uint64
	kept     int // connections that it could hand over
	hogged   bool
	served   uint64
	ill      string // what its probe says
	unheard  []send
	listed   int
	reason   error // why it ends, as its group was told
}

func newWorld(s Settings) *world {
	w := &world{
		now: time.Unix(1e9, 0), groups: map[int]*fakeGroup{}, processes: map[roster.Ref]*fakeProcess{},
		waiting: map[sockets.Ref]bool{}, held: map[string]bool{}, endpoints: 1,
		answers: map[string][]event{}, replies: map[string]chan error{}, defers: map[wire.Endpoint]bool{},
	}
	s.PID, s.CanUpgrade = 1, true
	w.core = newCore(s, w.now)
	return w
}

func settings() Settings {
	return Settings{
		ShutdownTimeout: 30 * time.Second, ReadyTimeout: 60 * time.Second, MinReady: time.Second, HangTimeout: 30 * time.Second,
		BeatEvery: time.Second, MaxGenerations: 4, Placement: affinity.PerCPU,
	}
}

func sharesOf(workers int) plan.Plan {
	p := plan.Plan{}
	for i := range workers {
		p.Shares = append(p.Shares, affinity.Of(i))
	}
	return p
}

var endpointsOf = []wire.Endpoint{
	{Network: "tcp", Address: ":80"}, {Network: "tcp", Address: ":443"}, {Network: "tcp", Address: ":1"}, {Network: "tcp", Address: ":2"},
	{Network: "tcp", Address: ":3"}, {Network: "tcp", Address: ":4"}, {Network: "tcp", Address: ":5"}, {Network: "tcp", Address: ":6"},
}

// packetsOf are endpoints of packets.
var packetsOf = []wire.Endpoint{{Network: "udp", Address: ":53"}, {Network: "udp", Address: ":443", QUIC: true}}

// otherSpelling is the first of endpointsOf, written otherwise.
var otherSpelling = wire.Endpoint{Network: "tcp", Address: "*:80"}

// post has the core told of an event, and of what follows from it.
func (w *world) post(e event) {
	w.todo = append(w.todo, e)
	for len(w.todo) > 0 && !w.ended {
		e := w.todo[0]
		w.todo = w.todo[1:]
		var begun time.Duration
		if w.observe != nil {
			begun = w.clock()
		}
		effects := w.core.handle(e, w.now)
		if w.observe != nil {
			w.observe(e, w.clock()-begun)
		}
		for _, f := range effects {
			w.perform(f)
		}
	}
}

func (w *world) then(e ...event) { w.todo = append(w.todo, e...) }

// answer reports what a hand has done, or keeps that if it is held.
func (w *world) answer(hand string, e event) {
	if w.held[hand] {
		w.answers[hand] = append(w.answers[hand], e)
		return
	}
	w.then(e)
}

func (w *world) printf(format string, args ...any) { fmt.Fprintf(&w.out, "  "+format+"\n", args...) }

// pass has time go on, in which workers beat, connections are accepted, and the queues are looked at.
func (w *world) pass(d time.Duration) {
	const look = health.Look
	for end := w.now.Add(d); w.now.Before(end) && !w.ended; {
		w.now = w.now.Add(min(look, end.Sub(w.now)))
		w.accept()
		if at := w.core.next(); !at.IsZero() && !at.After(w.now) {
			w.post(tick{})
		}
		if w.now.UnixMilli()%1000 < look.Milliseconds() {
			for _, ref := range w.refs() {
				w.beat(w.processes[ref])
			}
		}
		w.post(queues{w.queued(), w.tallies()})
	}
}

// tallies returns what workers report.
func (w *world) tallies() map[roster.Ref]scoreboard.Report {
	all := map[roster.Ref]scoreboard.Report{}
	for ref, p := range w.processes {
		if !w.held["tally"] {
			all[ref] = scoreboard.Report{
				Beat: 1, Accepted: uint32(p.accepted), Movable: uint32(p.kept), Hogged: p.hogged,
			}
		}
	}
	return all
}

// queued returns the sockets on which connections wait, in order.
func (w *world) queued() []sockets.Ref {
	return slices.SortedFunc(maps.Keys(w.waiting), func(a, b sockets.Ref) int {
		return cmp.Or(a.Socket-b.Socket, strings.Compare(a.Endpoint.Name(), b.Endpoint.Name()))
	})
}

func (w *world) refs() []roster.Ref {
	return slices.SortedFunc(maps.Keys(w.processes), roster.Ref.Compare)
}

// accept has connections accepted by who serves the sockets on which they wait.
func (w *world) accept() {
	for _, ref := range w.refs() {
		p := w.processes[ref]
		for _, s := range w.queued() {
			if !p.mute && !p.idle && p.serves[s] {
				delete(w.waiting, s)
				p.accepted++
				w.printf("%v accepts from socket %d", ref, s.Socket)
			}
		}
	}
}

func (w *world) beat(p *fakeProcess) {
	if c := w.core.workers[p.ref]; !p.mute && !w.frozen && c != nil && c.state >= wire.Starting {
		w.says(p, wire.Message{Type: wire.Beat, Vitals: &wire.Vitals{Accepted: p.accepted, Served: p.served, Probe: p.ill}})
	}
}

// says has a worker say something, as the master's reader would pass it on.
func (w *world) says(p *fakeProcess, m wire.Message) { w.then(message{ref: p.ref, msg: m}) }

func (w *world) start(generation, id int) {
	g := w.groups[generation]
	g.attempts[id]++
	ref := roster.Ref{Generation: generation, ID: id, Attempt: g.attempts[id]}
	p := &fakeProcess{ref: ref, pid: 100*generation + 10*id + ref.Attempt, serves: map[sockets.Ref]bool{}}
	p.broken = w.held[fmt.Sprintf("ready %d.%d", generation, id)]
	w.processes[ref] = p
	if w.core.Rolling && len(w.processes) > max(g.size, len(w.core.current.members))+1 {
		w.printf("%d processes at once", len(w.processes))
	}
	w.then(process{ref: ref, kind: procgroup.Started, pid: p.pid}, connected{ref: ref, pid: p.pid, started: w.now, share: 1})
	w.says(p, wire.Message{Type: wire.Hello, Version: wire.Version})
	w.listenNext(p)
}

// listenNext has a worker ask for its next socket, or say that it is ready.
func (w *world) listenNext(p *fakeProcess) {
	endpoints := endpointsOf[:w.endpoints]
	if w.packets {
		endpoints = packetsOf
	}
	if p.ref.Generation > 1 && w.held["other addresses"] {
		endpoints = endpointsOf[1:2]
	}
	if w.held["other spelling"] && p.ref.Generation%2 == 0 {
		endpoints = []wire.Endpoint{otherSpelling}
	}
	switch {
	case p.listed < len(endpoints):
		defers := w.held[fmt.Sprintf("defers%d", p.ref.Generation)]
		w.says(p, wire.Message{Type: wire.Listen, Endpoint: &endpoints[p.listed], Defer: defers})
		p.listed++
	case p.broken:
		w.ends(p.ref, errors.New("exit status 1"))
	case !w.held[fmt.Sprintf("slow %d.%d", p.ref.Generation, p.ref.ID)]:
		w.says(p, wire.Message{Type: wire.Ready})
	}
}

// ends has a process end, with an error if it was not asked to.
func (w *world) ends(ref roster.Ref, err error) {
	p, g := w.processes[ref], w.groups[ref.Generation]
	if p == nil {
		return
	}
	delete(w.processes, ref)
	if err != nil {
		err = cmp.Or(p.reason, err)
	}
	w.then(gone{ref})
	kind, retry := procgroup.Failed, time.Duration(0)
	if err == nil {
		kind = procgroup.Stopped
	}
	over := g.stopping || g.over[ref.ID] || err == nil && !g.again[ref.ID]
	if over || !g.proven {
		retry = -1
	}
	w.then(process{ref: ref, kind: kind, pid: p.pid, err: err, failures: 1, retry: retry, uptime: time.Second})
	switch {
	case !g.proven && err != nil:
		w.then(groupEnded{ref.Generation, &procgroup.StartError{Err: err}})
	case over:
		g.over[ref.ID] = true
		if len(g.over) == g.size {
			w.then(groupEnded{ref.Generation, nil})
		}
	default:
		delete(g.again, ref.ID)
		w.start(ref.Generation, ref.ID)
	}
}

// process returns the process of a worker of the youngest generation, or of "ID.GENERATION".
func (w *world) process(name string) *fakeProcess {
	var id, generation int
	if n, _ := fmt.Sscanf(name, "%d.%d", &id, &generation); n < 2 {
		generation = w.core.current.number
	}
	for _, ref := range slices.Backward(w.refs()) {
		if ref.ID == id && ref.Generation == generation {
			return w.processes[ref]
		}
	}
	panic("there is no worker " + name)
}

// hears has a worker do what it is told.
func (w *world) hears(p *fakeProcess, s send) {
	if p.mute {
		p.unheard = append(p.unheard, s)
		return
	}
	m := s.msg
	switch m.Type {
	case wire.Socket, wire.Cover, wire.DrainSocket:
		if s.socket != nil {
			p.serves[*s.socket] = true
		}
		if m.Type == wire.Socket {
			w.listenNext(p)
		} else if m.Type == wire.DrainSocket && !w.held["drained"] {
			delete(p.serves, *s.socket)
			w.says(p, wire.Message{Type: wire.Drained, Endpoint: m.Endpoint, Socket: m.Socket})
		}
	case wire.Refused:
		w.says(p, wire.Message{Type: wire.Failed, Error: m.Error})
		w.ends(p.ref, errors.New(m.Error))
	case wire.Uncover:
		delete(p.serves, sockets.Ref{Endpoint: *m.Endpoint, Socket: m.Socket})
	case wire.Ping:
		w.beat(p)
	case wire.Shed:
		for range min(m.Conns, p.kept) {
			p.kept--
			w.parcels++
			w.then(message{ref: p.ref, msg: wire.Message{Type: wire.Handover, Endpoint: &endpointsOf[0]}, parcel: w.parcels})
		}
	case wire.EndHandover:
		w.says(p, wire.Message{Type: wire.HandoverEnded})
	case wire.Drain:
		if m.Final || len(m.Unserved) > 0 {
			w.says(p, wire.Message{Type: wire.Quiesce})
		}
		clear(p.serves)
		w.says(p, wire.Message{Type: wire.Closed})
		if !p.stays {
			w.says(p, wire.Message{Type: wire.End})
			w.ends(p.ref, nil)
		}
	}
}

// perform does what the core wants done, and prints what matters of it.
func (w *world) perform(e effect) {
	switch e := e.(type) {
	case logLine:
		if e.level > slog.LevelDebug {
			w.printf("%v %s%s", e.level, e.msg, attributes(e.args))
		}
	case launch:
		w.launch(e)
	case startMember:
		g := w.groups[e.generation]
		g.proven = true
		delete(g.over, e.id)
		w.start(e.generation, e.id)
	case stopMember:
		w.groups[e.generation].over[e.id] = true
		if p := w.find(e.generation, e.id); p != nil {
			w.answer("stopMember", terminate{p.ref})
		}
		w.answer("stopMember", memberStopped(e))
	case restart:
		w.groups[e.ref.Generation].again[e.ref.ID] = true
		w.then(terminate(e))
	case stopGeneration:
		w.stop(e.generation)
	case killGeneration:
		w.printf("kill generation %d", e.generation)
		w.groups[e.generation].stopping = true
		for _, ref := range w.refs() {
			if ref.Generation == e.generation && !w.held["kill"] {
				w.ends(ref, errors.New("killed"))
			}
		}
	case proven:
		if g := w.groups[e.ref.Generation]; !g.proven {
			g.proven = true
			for id := 1; id < g.size; id++ {
				w.start(e.ref.Generation, id)
			}
		}
	case fail:
		if p := w.processes[e.ref]; p != nil && p.reason == nil {
			p.reason = e.why
		}
	case kill:
		w.printf("kill %v: %v", e.ref, e.why)
		if p := w.processes[e.ref]; p != nil {
			w.then(process{ref: e.ref, kind: procgroup.Killed, pid: p.pid, err: e.why})
		}
		w.ends(e.ref, fmt.Errorf("killed: %w", e.why))
	case killWithStacks:
		w.printf("kill %v with stacks: %v", e.ref, e.why)
		w.ends(e.ref, e.why)
	case send:
		w.printSend(e)
		if p := w.processes[e.ref]; p != nil {
			w.hears(p, e)
		}
	case forward:
		written := map[bool]string{true: " for " + e.writes.String()}[e.writes != e.endpoint]
		w.printf("connection %v of %v to %v%s", e.parcel, e.from, e.to, written)
		if p := w.processes[e.to]; p != nil {
			p.kept++
		}
	case drop:
		w.printf("connection %v is closed", e.parcel)
	case openSockets:
		if w.held["open"] {
			return
		}
		if e.endpoint == otherSpelling && slices.Contains(e.leaving, endpointsOf[0]) {
			w.then(opened{endpoint: e.endpoint, info: sockets.Info{Endpoint: endpointsOf[0]}})
			return
		}
		n := e.workers
		var beside []wire.Endpoint
		if w.held["overlap"] {
			beside = e.leaving
		}
		info := sockets.Info{Endpoint: e.endpoint, Sockets: n, Address: e.endpoint.Address}
		if w.held["given"] {
			info.Given = "web"
		}
		w.then(opened{beside: beside, endpoint: e.endpoint, info: info})
	case growSockets:
		lost := w.lost
		w.lost = nil
		w.answer("grow", grown{change: e.change, workers: e.workers, renewed: lost})
	case checkFiles:
		if w.lost != nil {
			w.then(filesLost{})
		}
	case directPackets:
		w.printf("packets to the sockets of %d workers but %v", e.workers, e.absent)
	case directQUIC:
		w.printf("new connections of QUIC to the places %v of %v", e.fresh, e.known)
	case directSockets:
		w.printf("direct to %d sockets", e.workers)
		w.then(directed{})
	case quiesceSockets:
		if e.endpoints != nil {
			w.printf("keep new connections out of %v", e.endpoints)
		} else {
			w.printf("keep new connections out of sockets %v", e.ids)
		}
		w.then(quiesced{ref: e.ref})
	case readTallies:
		w.then(tallied{w.tallies()})
	case examine:
		w.then(examined{ref: e.ref, times: proc.Times{Runnable: w.held["CPU"]}, why: e.why})
	case runHook:
		if !w.held[string(e.name)] {
			w.then(hooked{name: e.name, change: e.change})
		}
	case makePlan:
		w.answer("plan", planned{change: e.change, plan: sharesOf(max(e.workers, 1))})
	case addTicketKey:
		w.then(newTicketKey{[]byte("key")})
	case openImage:
		w.answer("image", imageOpened{change: e.change, name: "server"})
	case preflight:
		w.printf("try out the image of change %d", e.change)
		s := spec{plan: sharesOf(w.core.current.plan.Workers()), image: e.change}
		w.answer("preflight", preflown{change: e.change, spec: s})
	case release:
		w.frozen = true
		w.then(released{})
	case execute:
		w.state = e.state
		w.printf("become the %s program", map[bool]string{false: "next", true: "previous"}[e.back])
		if w.held["exec"] {
			w.frozen = false
			w.then(execFailed{err: errors.New("no memory")})
		}
	case startSteering:
		w.then(steeringStarted{})
	case attachSteering:
		w.then(attached{endpoint: e.endpoint, mode: "eBPF"})
	case joinSteering:
		slot := e.ref.ID
		if w.held["board"] {
			slot = slotNone
		}
		w.then(steeringJoined{e.ref, slot})
	case steer:
		w.printf("steer %d %v", e.worker, e.to.State)
	case closeSockets:
		w.printf("close all sockets")
	case shrinkSockets:
		w.printf("close sockets from %d on", e.workers)
	case keepSockets:
		w.printf("keep sockets of %v", e.used)
	case quiesceEndpoint:
		w.printf("keep new connections out of %s", e.endpoint.Name())
	case deferSockets:
		if w.defers[e.endpoint] != e.on {
			w.printf("let clients of %v in when they have spoken: %v", e.endpoint, e.on)
		}
		w.defers[e.endpoint] = e.on
	case notify:
		w.printf("systemd: %s", strings.ReplaceAll(e.Text(w.now.Sub(time.Unix(1e9, 0))), "\n", " "))
	case dropImage:
		w.printf("%s", describe(e))
	case done:
		w.printf("the end: %v", e.err)
		w.ended = true
	}
}

func (w *world) launch(e launch) {
	if e.adopt {
		w.frozen = false
		for _, ref := range w.refs() {
			if ref.Generation == e.generation {
				w.then(connected{ref: ref, pid: w.processes[ref].pid, started: w.now})
			}
		}
		return
	}
	n := e.spec.plan.Workers()
	w.groups[e.generation] = &fakeGroup{size: n, held: e.held, attempts: make([]int, n), again: map[int]bool{}, over: map[int]bool{}}
	if !e.held {
		w.start(e.generation, 0)
	}
}

func (w *world) find(generation, id int) *fakeProcess {
	for ref, p := range w.processes {
		if ref.Generation == generation && ref.ID == id {
			return p
		}
	}
	return nil
}

func (w *world) stop(generation int) {
	g := w.groups[generation]
	g.stopping = true
	for id := range g.size {
		if p := w.find(generation, id); p != nil {
			w.then(terminate{p.ref})
		} else {
			g.over[id] = true
		}
	}
	if len(g.over) == g.size {
		w.then(groupEnded{generation, nil})
	}
}

func (w *world) printSend(s send) {
	switch m := s.msg; m.Type {
	case wire.Tickets, wire.Socket, wire.Board, wire.Tally, wire.Ping, wire.Quiesced, wire.Reopen:
	case wire.Drain:
		w.printf("%v drain%s", s.ref, map[bool]string{true: ", final"}[m.Final])
		if w.packets && len(m.Unserved) > 0 {
			w.printf("  it alone has its socket of %v", m.Unserved)
		}
	case wire.Cover, wire.Uncover, wire.DrainSocket:
		w.printf("%v %s socket %d of %v", s.ref, m.Type, m.Socket, m.Endpoint)
	case wire.Shed:
		w.printf("%v sheds %d", s.ref, m.Conns)
	default:
		w.printf("%v %s %s", s.ref, m.Type, m.Error)
	}
}

func attributes(args []any) string {
	var b strings.Builder
	for i := 0; i+1 < len(args); i += 2 {
		fmt.Fprintf(&b, " %v=%v", args[i], args[i+1])
	}
	return b.String()
}

// groupState is what a group tells of itself when it lets go.
func (w *world) groupState(generation int) *procgroup.State {
	g := w.groups[generation]
	s := &procgroup.State{Members: make([]procgroup.MemberState, g.size)}
	for id := range g.size {
		s.Members[id].Attempts = g.attempts[id]
		if p := w.find(generation, id); p != nil {
			s.Members[id].PID = p.pid
		}
	}
	return s
}
