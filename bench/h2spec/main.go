//go:build linux

// Command h2spec runs the cases of h2spec, which try how a server keeps to HTTP/2 and HPACK, on a pack and on plain
// net/http beside it: over TLS, and without in both ways that Go knows. It prints how many fail, and exits with status
// 1 if a pack fails a case that net/http passes.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/pack"
)

// patience is how long something may take that should be done at once, on a machine that does much else.
const patience = 30 * time.Second

// ways are those in which a server can be asked to serve HTTP/2.
var ways = []struct {
	name   string
	secure bool
	server func() (*http.Server, error)
}{
	{"over TLS", true, func() (*http.Server, error) {
		certificate, err := test.NewCertificate()
		config := &tls.Config{Certificates: []tls.Certificate{certificate}}
		return &http.Server{Handler: http.HandlerFunc(answer), TLSConfig: config}, err
	}},
	{"without TLS, by Protocols", false, func() (*http.Server, error) {
		srv := &http.Server{Handler: http.HandlerFunc(answer), Protocols: new(http.Protocols)}
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetUnencryptedHTTP2(true)
		return srv, nil
	}},
	{"without TLS, by h2c.NewHandler", false, func() (*http.Server, error) {
		//lint:ignore SA1019 users have it
		return &http.Server{Handler: h2c.NewHandler(http.HandlerFunc(answer), new(http2.Server))}, nil
	}},
}

// answer reads the request, and writes more than the least that some cases want.
func answer(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	io.WriteString(w, strings.Repeat("hello ", 100))
}

func main() {
	log.SetFlags(0)
	serve := flag.Int("pack", -1, "be a pack that serves in the way of this number")
	flag.Parse()
	run := compare
	if *serve >= 0 {
		run = func() error { return servePack(*serve) }
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// servePack serves in one of the ways, as a pack of two workers.
func servePack(way int) error {
	srv, err := ways[way].server()
	if err != nil {
		return err
	}
	srv.ErrorLog = log.New(io.Discard, "", 0) // the cases are mistakes of clients
	p := pack.New(pack.Config{Workers: 2, Logger: slog.New(slog.NewJSONHandler(os.Stderr, nil))})
	p.Handle("tcp", "127.0.0.1:0", srv)
	return p.Run(context.Background())
}

// compare tries both servers in all ways, all at once, since most of the time they wait.
func compare() error {
	var running sync.WaitGroup
	results := make([][2]*result, len(ways))
	for i, w := range ways {
		plain, end, err := startPlain(w.server)
		if err != nil {
			return err
		}
		defer end()
		packs, end, err := startPack(i)
		if err != nil {
			return err
		}
		defer end()
		for j, address := range []string{plain, packs} {
			results[i][j] = newResult(address, w.secure)
			running.Go(results[i][j].run)
		}
	}
	running.Wait()
	worse := 0
	for i, w := range ways {
		plain, packs := results[i][0], results[i][1]
		fmt.Printf("%s: of %d cases net/http fails %d, a pack %d\n", w.name, len(plain.cases), plain.failed(), packs.failed())
		for i, c := range packs.cases {
			if c.err == nil || plain.cases[i].err != nil {
				continue
			}
			// What comes of some cases is a matter of chance, or of time on a machine that is busy.
			err, passed := packs.again(c)
			if _, plainPassed := plain.again(c); passed == 0 && plainPassed == tries {
				worse++
				fmt.Printf("  only the pack fails %s: %v\n", c.name, err)
			} else {
				fmt.Printf("  of %d more tries of %s net/http passes %d, the pack %d\n", tries, c.name, plainPassed, passed)
			}
		}
	}
	if worse > 0 {
		return fmt.Errorf("a pack fails %d cases that net/http passes", worse)
	}
	return nil
}

// startPlain serves by net/http in this process, and returns the address.
func startPlain(server func() (*http.Server, error)) (address string, end func(), err error) {
	srv, err := server()
	if err != nil {
		return "", nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv.ErrorLog = log.New(io.Discard, "", 0)
	if srv.TLSConfig != nil {
		go srv.ServeTLS(l, "", "")
	} else {
		go srv.Serve(l)
	}
	return l.Addr().String(), func() { srv.Close() }, nil
}

// startPack has this program run again, as a pack that serves in one of the ways, and returns its address.
func startPack(way int) (address string, end func(), err error) {
	exe, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	p, err := program.Start(exec.Command(exe, "-pack", strconv.Itoa(way)))
	if err != nil {
		return "", nil, err
	}
	end = func() {
		p.Cmd.Process.Signal(syscall.SIGTERM)
		p.Await(patience, p.Ended)
		p.Kill()
	}
	p.Await(patience, func() bool { return p.Ended() || p.Nth(1, "pack is up") != nil })
	listening, _ := p.Nth(1, "pack is up")["listening"].([]any)
	if len(listening) != 1 {
		end()
		return "", nil, fmt.Errorf("the pack did not come up:\n%s", p.Text())
	}
	return strings.TrimPrefix(fmt.Sprint(listening[0]), "tcp "), end, nil
}

// hostPort splits the address of a listener.
func hostPort(address string) (host string, port int) {
	host, service, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(service)
	}
	if err != nil {
		panic(err)
	}
	return host, port
}
