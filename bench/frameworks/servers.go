package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	_ "embed"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	hertz "github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/network/standard"
	"github.com/gin-gonic/gin"
	"github.com/gliderlabs/ssh"
	kratos "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/gofiber/fiber/v3"
	"github.com/miekg/dns"
	"github.com/soheilhy/cmux"
	"github.com/tidwall/redcon"
	"github.com/valyala/fasthttp"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"google.golang.org/grpc"
	health "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gopherpack/gopherpack/pack"
)

// framework is a server that this program can be, and what its clients speak.
type framework struct {
	name  string
	make  any // a func that returns what is passed to Handle; its name is looked up in this file
	speak protocol
}

var frameworks = []framework{
	{"net/http", makeNetHTTP, speakHTTP},
	{"fiber v3", makeFiber, speakHTTP},
	{"fasthttp", makeFasthttp, speakHTTP},
	{"hertz", makeHertz, speakHTTP},
	{"gin", makeGin, speakHTTP},
	{"kratos", makeKratos, speakHTTP},
	{"cmux", makeCmux, speakHTTP},
	{"x/net h2c", makeH2C, speakH2C},
	{"gRPC", makeGRPC, speakGRPC},
	{"redcon", makeRedcon, speakRedis},
	{"gliderlabs/ssh", makeSSH, speakSSH},
	{"miekg/dns, TCP", makeDNS, speakDNS},
}

// answer takes as long as the request asks for by its name.
func answer(request string) string {
	switch {
	case strings.Contains(request, "slow"):
		time.Sleep(*slow)
	case strings.Contains(request, "hang"):
		time.Sleep(time.Hour)
	}
	return "hello"
}

func handler(w http.ResponseWriter, r *http.Request) { io.WriteString(w, answer(r.URL.Path)) }

func makeNetHTTP() *http.Server {
	return &http.Server{Handler: http.HandlerFunc(handler)}
}

func makeFiber() pack.Server {
	app := fiber.New()
	app.Get("/*", func(c fiber.Ctx) error { return c.SendString(answer(c.Path())) })
	serve := func(l net.Listener) error {
		return app.Listener(l, fiber.ListenConfig{DisableStartupMessage: true})
	}
	return pack.Func(serve, app.ShutdownWithContext)
}

func makeFasthttp() pack.Server {
	srv := &fasthttp.Server{Handler: func(c *fasthttp.RequestCtx) { c.WriteString(answer(string(c.Path()))) }}
	return pack.Func(srv.Serve, srv.ShutdownWithContext)
}

func makeHertz() pack.Server {
	hlog.SetOutput(io.Discard)
	var h *hertz.Hertz
	serve := func(l net.Listener) error {
		h = hertz.New(hertz.WithListener(l), hertz.WithTransport(standard.NewTransporter))
		h.GET("/*path", func(_ context.Context, c *app.RequestContext) { c.WriteString(answer(string(c.Path()))) })
		return h.Run()
	}
	return pack.Func(serve, func(ctx context.Context) error { return h.Shutdown(ctx) })
}

func makeGin() pack.Server {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.GET("/*path", func(c *gin.Context) { c.String(http.StatusOK, answer(c.Request.URL.Path)) })
	return pack.Func(engine.RunListener, nil)
}

func makeKratos() pack.Server {
	srv := kratos.NewServer()
	srv.HandlePrefix("/", http.HandlerFunc(handler))
	return srv
}

func makeCmux() pack.Server {
	srv := &http.Server{Handler: http.HandlerFunc(handler)}
	serve := func(l net.Listener) error {
		m := cmux.New(l)
		go srv.Serve(m.Match(cmux.HTTP1Fast()))
		return m.Serve()
	}
	return pack.Func(serve, srv.Shutdown)
}

func makeH2C() *http.Server {
	h2 := &http2.Server{}
	srv := &http.Server{Handler: h2c.NewHandler(http.HandlerFunc(handler), h2)}
	if err := http2.ConfigureServer(srv, h2); err != nil { // so that clients get a GOAWAY when srv is shut down
		log.Fatal(err)
	}
	return srv
}

func makeGRPC() pack.Server {
	srv := grpc.NewServer()
	health.RegisterHealthServer(srv, checker{})
	return pack.GRPC(srv)
}

type checker struct {
	health.UnimplementedHealthServer
}

func (checker) Check(_ context.Context, r *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	answer(r.Service)
	return &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING}, nil
}

func makeRedcon() pack.Server {
	srv := redcon.NewServer("", func(c redcon.Conn, cmd redcon.Command) {
		c.WriteString(answer(string(cmd.Args[0])))
	}, nil, nil)
	return pack.Func(srv.Serve, nil)
}

func makeSSH() pack.Server {
	srv := &ssh.Server{Handler: func(s ssh.Session) { io.WriteString(s, answer(s.RawCommand())) }}
	key, err := gossh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		log.Fatal(err)
	}
	srv.AddHostKey(key)
	return srv
}

func makeDNS() pack.Server {
	srv := &dns.Server{MaxTCPQueries: -1, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		answer(r.Question[0].Name)
		w.WriteMsg(new(dns.Msg).SetReply(r))
	})}
	serve := func(l net.Listener) error {
		srv.Listener = l
		return srv.ActivateAndServe()
	}
	return pack.Func(serve, srv.ShutdownContext)
}

// serve is the program as a pack.
func serve(name, address string, timeout time.Duration) error {
	p := pack.New(pack.Config{
		MinReady: 100 * time.Millisecond, MaxGenerations: 100, ShutdownTimeout: timeout,
	})
	for _, f := range frameworks {
		if f.name != name {
			continue
		}
		switch build := f.make.(type) {
		case func() *http.Server:
			p.Handle("tcp", address, build())
		case func() pack.Server:
			p.Handle("tcp", address, build())
		}
		return p.Run(context.Background())
	}
	return fmt.Errorf("there is no framework %q", name)
}

//go:embed servers.go
var source string

// handed returns how each framework is handed to a pack: what its function in this file returns.
func handed() (map[string]string, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "servers.go", source, 0)
	if err != nil {
		return nil, err
	}
	lines := map[string]string{}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(f.Name.Name, "make") {
			continue
		}
		last, ok := f.Body.List[len(f.Body.List)-1].(*ast.ReturnStmt)
		if !ok || len(last.Results) != 1 {
			return nil, errors.New(f.Name.Name + " does not end by returning what it makes")
		}
		var line bytes.Buffer
		if err := printer.Fprint(&line, files, last.Results[0]); err != nil {
			return nil, err
		}
		lines[f.Name.Name] = line.String()
	}
	return lines, nil
}
