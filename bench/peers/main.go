// Command peers compares what reloads and upgrades cost clients that retry nothing, for several kinds of servers, under
// the same loads in one run, and prints a table. It wants nginx to be installed; a server that is not there is left
// out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/prefork"

	"github.com/gopherpack/gopherpack/internal/strictclient"
	"github.com/gopherpack/gopherpack/pack"
	"github.com/gopherpack/gopherpack/upgrade"
)

// servers are the servers that this program can be, by the flag -serve.
var servers = map[string]func(address string) error{
	"pack":     servePack,
	"net/http": serveNetHTTP,
	"fasthttp": serveFasthttp,
}

func main() {
	log.SetFlags(0)
	serve := flag.String("serve", "", "be one of the servers")
	address := flag.String("addr", "127.0.0.1:18080", "address to listen on; nothing else may")
	changes := flag.Int("changes", 10, "reloads or upgrades of each server, under each load")
	clients := flag.Int("clients", 32, "clients of each load")
	flag.Parse()
	if *serve != "" {
		if err := servers[*serve](*address); err != nil {
			log.Fatal(err)
		}
		return
	}
	fmt.Printf("requests lost in %d changes, and connections opened, by %d clients that retry nothing\n\n",
		*changes, *clients)
	fmt.Printf("%-46s", "")
	for _, l := range loads {
		fmt.Printf(" %26s", l.name)
	}
	fmt.Println()
	for _, c := range contenders {
		fmt.Printf("%-46s", c.name)
		for _, l := range loads {
			result, err := c.measure(*address, l.Load, *clients, *changes)
			if err != nil {
				log.Fatalf("\n%s: %v", c.name, err)
			}
			fmt.Printf(" %26s", result)
		}
		fmt.Println()
	}
}

var loads = []struct {
	name string
	strictclient.Load
}{
	{"new connections", strictclient.Load{}},
	{"kept alive", strictclient.Load{KeepAlive: true}},
	{"kept alive, pausing 20 ms", strictclient.Load{KeepAlive: true, Pause: 20 * time.Millisecond}},
}

// contender is a server that can be changed while it runs.
type contender struct {
	name   string
	start  func(address, dir string) (*exec.Cmd, error)
	change func(running *exec.Cmd, address, dir string) (*exec.Cmd, error) // returns what runs afterwards
}

var contenders = []contender{
	{"pack, upgrade (USR2)", ourselves("pack"), signaling(syscall.SIGUSR2)},
	{"pack, reload (HUP)", ourselves("pack"), signaling(syscall.SIGHUP)},
	{"net/http, Shutdown, passed descriptor", ourselves("net/http"), signaling(syscall.SIGHUP)},
	{"fasthttp prefork, second instance, then TERM", ourselves("fasthttp"), restarting("fasthttp")},
	{"nginx, reload (HUP)", startNginx, signaling(syscall.SIGHUP)},
}

// measure returns what a load loses in a number of changes. In the end the server has ended.
func (c contender) measure(address string, l strictclient.Load, clients, changes int) (result string, err error) {
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	running, err := c.start(address, dir)
	if err != nil {
		return "not there", nil
	}
	defer func() { err = errors.Join(err, end(running, address)) }()
	if err := await(address); err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l.Network, l.Address, l.Clients = "tcp", address, clients
	l.Timeout = 10 * time.Second
	results := make(chan *strictclient.Result, 1)
	go func() { results <- l.Run(ctx) }()
	for range changes {
		time.Sleep(300 * time.Millisecond)
		if running, err = c.change(running, address, dir); err != nil {
			return "", err
		}
		time.Sleep(1500 * time.Millisecond)
	}
	cancel()
	r := <-results
	return fmt.Sprintf("%d of %d, %d conns", r.Failed(), r.Requests+r.Failed(), r.Conns), nil
}

// await waits until something answers.
func await(address string) error {
	var err error
	for range 500 {
		var c net.Conn
		if c, err = net.Dial("tcp", address); err == nil {
			return c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// end ends a server and waits until nobody listens any more.
func end(running *exec.Cmd, address string) error {
	defer os.Remove(pidFile(running.Process.Pid))
	syscall.Kill(-running.Process.Pid, syscall.SIGTERM)
	gone := make(chan struct{})
	go func() { running.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
	}
	syscall.Kill(-running.Process.Pid, syscall.SIGKILL) // what it has started, too
	<-gone
	for range 500 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return nil
		}
		c.Close()
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("somebody still listens on %s", address)
}

// started starts a command in a process group of its own.
func started(cmd *exec.Cmd) (*exec.Cmd, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, cmd.Start()
}

func ourselves(server string) func(address, dir string) (*exec.Cmd, error) {
	return func(address, _ string) (*exec.Cmd, error) {
		exe, err := os.Executable()
		if err != nil {
			return nil, err
		}
		return started(exec.Command(exe, "-serve", server, "-addr", address))
	}
}

// signaling changes a server by a signal to the process that serves now.
func signaling(s syscall.Signal) func(*exec.Cmd, string, string) (*exec.Cmd, error) {
	return func(running *exec.Cmd, _, dir string) (*exec.Cmd, error) {
		return running, syscall.Kill(serving(running), s)
	}
}

// serving returns the process that serves. A server that is another process after a change writes that to a file.
func serving(running *exec.Cmd) int {
	if text, err := os.ReadFile(pidFile(running.Process.Pid)); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return pid
		}
	}
	return running.Process.Pid
}

func pidFile(group int) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("peers-%d.pid", group))
}

// restarting starts a second instance beside the first, and then stops that.
func restarting(server string) func(*exec.Cmd, string, string) (*exec.Cmd, error) {
	return func(running *exec.Cmd, address, dir string) (*exec.Cmd, error) {
		next, err := ourselves(server)(address, dir)
		if err != nil {
			return running, err
		}
		time.Sleep(time.Second) // it does not tell when its children listen
		if err := running.Process.Signal(syscall.SIGTERM); err != nil {
			return next, err
		}
		go running.Wait()
		return next, nil
	}
}

func hello(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") }

func servePack(address string) error {
	p := pack.New(pack.Config{MinReady: 100 * time.Millisecond, MaxGenerations: 100})
	p.Handle("tcp", address, &http.Server{Handler: http.HandlerFunc(hello)})
	return p.Run(context.Background())
}

// serveNetHTTP is what most do: the descriptor goes to a new process, and the old one calls Shutdown.
func serveNetHTTP(address string) error {
	group, err := syscall.Getpgid(0)
	if err != nil {
		return err
	}
	u, err := upgrade.New(nil)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := u.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			if err := u.Upgrade(ctx); err != nil {
				log.Print(err)
			}
		}
	}()
	srv := &http.Server{Handler: http.HandlerFunc(hello)}
	go srv.Serve(l)
	if err := os.WriteFile(pidFile(group), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	if err := u.Ready(); err != nil {
		return err
	}
	select {
	case <-u.Done():
	case <-ctx.Done():
	}
	return srv.Shutdown(context.Background())
}

func serveFasthttp(address string) error {
	srv := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) { ctx.WriteString("hello\n") }}
	p := prefork.New(srv)
	p.Reuseport = true
	p.OnMasterDeath = func() { os.Exit(1) } // as Fiber sets it; without it the children go on for ever
	return p.ListenAndServe(address)
}

const nginxConf = `
daemon off;
master_process on;
worker_processes 2;
pid %[1]s/pid;
error_log /dev/null;
events {}
http {
	access_log off;
	keepalive_requests 1000000;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s;
		location / { return 200 "hello\n"; }
	}
}
`

func startNginx(address, dir string) (*exec.Cmd, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, dir, address), 0o600); err != nil {
		return nil, err
	}
	return started(exec.Command(path, "-p", dir, "-c", conf))
}
