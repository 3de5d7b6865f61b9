//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gopherpack/gopherpack/bench/internal/answers"
)

// server is one of those that are compared.
type server struct {
	name    string // in the report, and for -only
	program string // of the folder servers; none: it is not ours
	args    []string
	own     bool   // it is a pack
	workers bool   // a process for each CPU serves, below one that does not
	needs   string // it ends at once where it has not this
	group   bool   // TERM does not end it well: its whole process group is killed

	command func(s *server, r *running) (*exec.Cmd, error) // of a server that is not ours
	reload  syscall.Signal                                 // to the first process; none: 0
	upgrade syscall.Signal
	second  bool // it is upgraded by a second instance beside it, and TERM to the first
}

var (
	netHTTP   = &server{name: "net/http", program: "nethttp"}
	httpGroup = &server{name: "net/http-group", program: "group", workers: true}
	plainPack = &server{name: "pack", program: "pack", own: true, workers: true, reload: syscall.SIGHUP,
		upgrade: syscall.SIGUSR2}
	steeredPack = &server{name: "pack-steered", program: "packsteered", own: true, workers: true, reload: syscall.SIGHUP,
		upgrade: syscall.SIGUSR2, needs: "CAP_BPF"}
	packOf2 = &server{name: "pack-2procs", program: "pack", args: []string{"-procs", "2"}, own: true, workers: true}
	packOf4 = &server{name: "pack-4workers", program: "pack", args: []string{"-workers", "4"}, own: true, workers: true}
	fast    = &server{name: "fasthttp", program: "fasthttp", workers: true, group: true, second: true}
	fiber   = &server{name: "fiber", program: "fiber", workers: true, group: true}
	flip    = &server{name: "tableflip", program: "tableflip", upgrade: syscall.SIGHUP}
	gnet    = &server{name: "gnet", program: "gnet"}
	nginx   = &server{name: "nginx", command: nginxCommand, workers: true, reload: syscall.SIGHUP}
	haproxy = &server{name: "haproxy", command: haproxyCommand, reload: syscall.SIGUSR2}
	grpcGo  = &server{name: "grpc-go", program: "grpcgo"}
	// In the scenario of gRPC this is the pack.
	grpcPack = &server{name: "pack", program: "packgrpc", own: true, workers: true}
)

// errAbsent is the error of a server that cannot run here.
var errAbsent = errors.New("cannot run here")

// start returns the command that starts a server.
func (s *server) start(r *running) (*exec.Cmd, error) {
	if s.command != nil {
		return s.command(s, r)
	}
	args := append([]string{"-addr", r.address}, s.args...)
	if r.secure {
		args = append(args, "-tls", r.bench.dir)
	}
	return exec.Command(filepath.Join(r.bench.programs, s.program), append(args, r.args...)...), nil
}

const nginxConf = `
daemon off;
master_process on;
worker_processes {{CPUs}};
worker_cpu_affinity auto;
worker_rlimit_nofile 10000;
pid {{dir}}/pid;
error_log stderr crit;
events { worker_connections 5000; }
http {
	access_log off;
	default_type "text/plain; charset=utf-8";
	keepalive_requests 1000000000;
	sendfile on;
	client_body_temp_path {{dir}}/body;
	proxy_temp_path {{dir}}/proxy;
	fastcgi_temp_path {{dir}}/fastcgi;
	uwsgi_temp_path {{dir}}/uwsgi;
	scgi_temp_path {{dir}}/scgi;
	server {
		listen {{address}} reuseport backlog=4096{{tls}};
		{{certificate}}
		location = /hello { return 200 "hello\n"; }
		location = /1k { return 200 "{{kilobyte}}"; }
		location = /1m { root {{dir}}; }
		location = /pid { return 200 "$pid\n"; }
	}
}
`

func nginxCommand(_ *server, r *running) (*exec.Cmd, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return nil, fmt.Errorf("nginx %w: %w", errAbsent, err)
	}
	tls, certificate := "", ""
	if r.secure {
		tls = " ssl http2"
		certificate = fmt.Sprintf("ssl_certificate %[1]s/cert.pem; ssl_certificate_key %[1]s/key.pem; ssl_protocols TLSv1.3;",
			r.bench.dir)
	}
	conf := strings.NewReplacer("{{CPUs}}", fmt.Sprint(r.cpus.Len()), "{{dir}}", r.dir, "{{address}}", r.address,
		"{{tls}}", tls, "{{certificate}}", certificate, "{{kilobyte}}", string(answers.Kilobyte)).Replace(nginxConf)
	err = errors.Join(
		os.WriteFile(filepath.Join(r.dir, "nginx.conf"), []byte(conf), 0o644),
		os.WriteFile(filepath.Join(r.dir, "1m"), answers.Megabyte(), 0o644))
	return exec.Command(path, "-p", r.dir, "-c", filepath.Join(r.dir, "nginx.conf")), err
}

const haproxyConf = `
global
	maxconn 5000
defaults
	mode http
	timeout client 60s
	timeout connect 60s
	timeout server 60s
	timeout http-keep-alive 60s
frontend bench
	bind {{address}} backlog 4096{{tls}}
	http-request return status 200 content-type "text/plain" file {{dir}}/hello if { path /hello }
	http-request return status 200 content-type "text/plain" file {{dir}}/1k if { path /1k }
	http-request return status 200 content-type "text/plain" lf-string "%pid" if { path /pid }
`

func haproxyCommand(_ *server, r *running) (*exec.Cmd, error) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, fmt.Errorf("haproxy %w: %w", errAbsent, err)
	}
	tls := ""
	if r.secure {
		tls = fmt.Sprintf(" ssl crt %s/both.pem alpn h2,http/1.1 ssl-min-ver TLSv1.3", r.bench.dir)
	}
	conf := strings.NewReplacer("{{dir}}", r.dir, "{{address}}", r.address, "{{tls}}", tls).Replace(haproxyConf)
	file := filepath.Join(r.dir, "haproxy.cfg")
	err = errors.Join(os.WriteFile(file, []byte(conf), 0o644),
		os.WriteFile(filepath.Join(r.dir, "hello"), answers.Hello, 0o644),
		os.WriteFile(filepath.Join(r.dir, "1k"), answers.Kilobyte, 0o644))
	return exec.Command(path, "-W", "-db", "-f", file), err
}
