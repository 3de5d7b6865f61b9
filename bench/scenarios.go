//go:build linux

package main

import (
	"github.com/gopherpack/gopherpack/bench/internal/load"
	"github.com/gopherpack/gopherpack/bench/internal/report"
)

// values are what one measurement gave, by the names of figures.
type values map[string]float64

// scenario is what servers are put to. docs/benchmarks.md tells what each figure means.
type scenario struct {
	report.Scenario
	servers []*server
	change  string // how what serves is replaced
	measure func(*cell) (values, error)
}

// The servers that a scenario is about. In steady state tableflip is net/http, and fiber is fasthttp, so not each
// scenario has them.
var (
	goHTTP   = []*server{netHTTP, httpGroup, plainPack, steeredPack, fast}
	all      = []*server{netHTTP, httpGroup, plainPack, steeredPack, packOf2, fast, fiber, flip, gnet, nginx, haproxy}
	fixed    = []*server{netHTTP, httpGroup, plainPack, steeredPack, fast, gnet, nginx, haproxy}
	megabyte = []*server{netHTTP, httpGroup, plainPack, steeredPack, fast, nginx}
	secure   = []*server{netHTTP, httpGroup, plainPack, steeredPack, fast, nginx, haproxy}
	http2    = []*server{netHTTP, httpGroup, plainPack, steeredPack, nginx, haproxy}
	hogged   = []*server{netHTTP, httpGroup, plainPack, steeredPack, packOf2, fast}
	several  = []*server{httpGroup, plainPack, steeredPack, fast, nginx}
	balanced = []*server{httpGroup, plainPack, packOf4, steeredPack, fast, nginx}
)

// speeds are the figures of a load, with what a pack should reach of processor time, requests and p99.
func speeds(cpu, rate, p99 float64, more ...report.Figure) []report.Figure {
	return append([]report.Figure{
		{Name: "cpu", Title: "CPU per request, µs", Digits: 1, Ratio: true, Goal: ratioGoal(cpu)},
		{Name: "rate", Title: "requests/s", More: true, Ratio: true, Goal: ratioGoal(rate)},
		{Name: "p50", Title: "p50, ms", Digits: 2},
		{Name: "p99", Title: "p99, ms", Digits: 2, Ratio: true, Goal: ratioGoal(p99)},
		{Name: "p999", Title: "p99.9, ms", Digits: 2},
	}, more...)
}

// ratioGoal is none if the limit is 0.
func ratioGoal(limit float64) report.Goal { return report.Goal{Limit: limit, Ratio: limit != 0} }

// none is the goal that nothing is lost.
var none = report.Goal{Must: true}

var scenarios = []scenario{
	loads("hello-kept", "HTTP/1.1, kept alive", "6 bytes, on connections that are kept", all,
		speeds(1, 1.1, 0.5), loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/hello", Keep: true}}),
	loads("hello-new", "HTTP/1.1, new connections", "6 bytes, each on a connection of its own", fixed,
		speeds(0.85, 1, 1), loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/hello"}}),
	loads("json-kept", "JSON, kept alive", "2 KB are decoded and encoded, which allocates", goHTTP,
		speeds(1, 0, 0), loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/json", Keep: true}}),
	loads("json-new", "JSON, new connections", "the same, each on a connection of its own", goHTTP,
		speeds(1, 0, 0), loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/json"}}),
	loads("1k-kept", "1 KB, kept alive", "bodies of 1 KB", fixed,
		speeds(1, 0, 0), loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/1k", Keep: true}}),
	loads("1m-kept", "1 MB, kept alive", "bodies of 1 MB; nginx sends a file", megabyte,
		speeds(1, 0, 0), loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/1m", Keep: true}}),
	loads("tls-new", "TLS 1.3, new connections", "a full handshake (X25519, ECDSA P-256), and one request", secure,
		speeds(1, 0, 0), loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/hello", Secure: true}}),
	loads("tls-resumed", "TLS 1.3, resumed", "the same by clients that have a ticket of their last connection", secure,
		speeds(1, 0, 0, resumed), loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/hello", Secure: true, Resume: true}}),
	loads("h2", "HTTP/2", "over TLS, 4 requests under way on each connection", http2,
		speeds(1, 0, 0),
		loading{Spec: load.Spec{Protocol: load.HTTP2, Path: "/hello", Secure: true, Keep: true, Streams: 4}}),
	{
		Scenario: report.Scenario{Name: "grpc", Title: "gRPC", Base: grpcGo.name, Figures: speeds(1, 0, 0),
			About: "unary calls, 4 under way on each connection, without TLS"},
		servers: []*server{grpcGo, grpcPack},
		measure: loading{Spec: load.Spec{Protocol: load.GRPC, Keep: true, Streams: 4}}.measure,
	},
	loads("hog", "Others beside a request that computes", "as hello-kept, while one more request computes all the time",
		hogged, hogFigures, loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/hello", Keep: true}, disturb: hog}),
	loads("slow", "Others beside clients that read slowly",
		"as hello-kept, while 16 more clients per CPU read 1 MB at 100 KB/s",
		megabyte, speeds(0, 0, 0), loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/hello", Keep: true, Slow: 16}}),
	{
		Scenario: report.Scenario{Name: "stopped", Title: "One worker stopped", Figures: stoppedFigures,
			About: "as hello-new, for twice as long, while one process that serves is stopped by SIGSTOP"},
		servers: several,
		measure: loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/hello", Tolerant: true}, length: 2, settle: 0.01,
			disturb: stopOne, values: whileStopped}.measure,
	},
	{
		Scenario: report.Scenario{Name: "stopped-often", Title: "One worker stopped again and again",
			Figures: stoppedFigures, About: "the same, but for 150, 300 and 500 ms in turn, and 200 ms in between"},
		servers: several,
		measure: loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/hello", Tolerant: true}, length: 2, settle: 0.01,
			disturb: stopOften, values: whileStopped}.measure,
	},
	{
		Scenario: report.Scenario{Name: "balance", Title: "Balance", Figures: balanceFigures,
			About: "16 kept connections per CPU, all busy, counted after twice the time of a measurement"},
		servers: balanced,
		measure: loading{Spec: load.Spec{Protocol: load.HTTP1, Path: "/pid", Keep: true}, settle: 2, values: balance}.measure,
	},
	{
		Scenario: report.Scenario{Name: "memory", Title: "Memory (PSS)", Base: netHTTP.name, Figures: memoryFigures,
			About: "after 100 requests, and with 1,000 idle connections after a request on each"},
		servers: all,
		measure: memory,
	},
	{
		Scenario: report.Scenario{Name: "start", Title: "Start", Base: netHTTP.name, About: "until the first answer",
			Figures: []report.Figure{{Name: "first", Title: "until the first answer, ms", Digits: 1}}},
		servers: all,
		measure: startUp,
	},
	{
		Scenario: report.Scenario{Name: "crash", Title: "A worker killed", Figures: crashFigures,
			About: "KILL to the process that answered last, then 32 clients at once"},
		servers: []*server{plainPack, steeredPack, fast, fiber, nginx},
		measure: crash,
	},
	changes("reload", "Reload", byReload, replaceFigures, replace, plainPack, steeredPack, nginx, haproxy),
	changes("upgrade", "Upgrade", byUpgrade, replaceFigures, replace, plainPack, steeredPack, flip),
	changes("lost-reload", "Lost in a reload", byReload, lostFigures, lost, plainPack, steeredPack, nginx, haproxy),
	changes("lost-upgrade", "Lost in an upgrade", byUpgrade, lostFigures, lost, plainPack, steeredPack, flip, fast),
}

// loads returns a scenario of HTTP whose base is net/http.
func loads(name, title, about string, servers []*server, figures []report.Figure, l loading) scenario {
	s := report.Scenario{Name: name, Title: title, About: about, Base: netHTTP.name, Figures: figures}
	return scenario{Scenario: s, servers: servers, measure: l.measure}
}

func changes(name, title, way string, figures []report.Figure, measure func(*cell) (values, error),
	servers ...*server) scenario {
	about := map[string]string{
		byReload: "HUP (haproxy: USR2)", byUpgrade: "USR2 (tableflip: HUP; fasthttp: a second instance, then TERM)",
	}[way]
	return scenario{Scenario: report.Scenario{Name: name, Title: title, About: about, Figures: figures}, servers: servers,
		change: way, measure: measure}
}

var (
	resumed = report.Figure{Name: "resumed", Title: "handshakes resumed, %", Digits: 1, More: true,
		Goal: report.Goal{Limit: 100, Must: true}}
	hogFigures = []report.Figure{
		{Name: "p99", Title: "p99, ms", Digits: 2, Ratio: true, Goal: ratioGoal(1.5)},
		{Name: "rate", Title: "requests/s", More: true, Ratio: true},
		{Name: "p50", Title: "p50, ms", Digits: 2},
		{Name: "p999", Title: "p99.9, ms", Digits: 2},
	}
	stoppedFigures = []report.Figure{
		{Name: "rate", Title: "requests/s", More: true},
		{Name: "p99", Title: "p99, ms", Digits: 1},
		{Name: "p999", Title: "p99.9, ms", Digits: 1},
		{Name: "waiting", Title: "requests under way at the end"},
		{Name: "failed", Title: "failed"},
	}
	balanceFigures = []report.Figure{
		{Name: "requests", Title: "requests, most to mean", Digits: 2, Goal: report.Goal{Limit: 1.1}},
		{Name: "connections", Title: "connections, most to mean", Digits: 2},
		{Name: "apart", Title: "connections, most less least", Goal: report.Goal{Limit: 1}},
		{Name: "opened", Title: "connections opened anew", Sum: true, Goal: none},
		{Name: "rate", Title: "requests/s", More: true},
	}
	memoryFigures = []report.Figure{
		{Name: "total", Title: "all, MB", Digits: 1, Ratio: true},
		{Name: "master", Title: "master, MB", Digits: 1, Goal: report.Goal{Limit: 6}},
		{Name: "worker", Title: "a process that serves, MB", Digits: 1},
		{Name: "private", Title: "of that not shared, MB", Digits: 1},
		{Name: "connection", Title: "idle connection, KB", Digits: 1, Ratio: true},
	}
	crashFigures = []report.Figure{
		{Name: "served", Title: "until all clients are answered, ms", Digits: 1},
		{Name: "again", Title: "tries that failed", Sum: true},
		{Name: "replaced", Title: "until a new process answers, ms", Digits: 1},
		{Name: "ended", Title: "the server ended", Sum: true},
	}
	replaceFigures = []report.Figure{
		{Name: "first", Title: "until the new version answers, ms", Digits: 1},
		{Name: "last", Title: "until the old one does no more, ms", Digits: 1},
	}
	lostFigures = []report.Figure{
		{Name: "lost kept", Title: "lost, kept alive", Sum: true, Goal: none},
		{Name: "again kept", Title: "connected anew", Sum: true, Goal: none},
		{Name: "lost pausing", Title: "lost, pausing 20 ms", Sum: true, Goal: none},
		{Name: "again pausing", Title: "connected anew", Sum: true, Goal: none},
		{Name: "lost new", Title: "lost, new connections", Sum: true, Goal: none},
		{Name: "requests", Title: "answered", Sum: true},
	}
)
