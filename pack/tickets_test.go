//go:build linux

package pack_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"

	"github.com/gopherpack/gopherpack/internal/test"
	"github.com/gopherpack/gopherpack/pack"
)

func init() { programs["services"] = servicesProgram }

// servicesProgram serves a few services that demand a client's certificate, on Unix sockets in the directory -in: "any"
// takes each, "pinned" the one whose hash is in the file "pin", and so do "chosen", by GetConfigForClient, and
// "embedded", of a framework; "func" does its TLS itself.
func servicesProgram() error {
	c, _ := configFlags()
	dir := flag.String("in", "", "")
	flag.Parse()
	p := pack.New(*c)
	certificate, err := test.NewCertificate()
	if err != nil {
		return err
	}
	base := &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAnyClientCert}
	pinned := base.Clone()
	pin, err := os.ReadFile(*dir + "/pin")
	if err != nil {
		return err
	}
	pinned.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error {
		if hash := sha256.Sum256(raw[0]); !bytes.Equal(hash[:], pin) {
			return errors.New("not the certificate that is wanted")
		}
		return nil
	}
	add := func(name string, config *tls.Config) {
		p.Handle("unix", *dir+"/"+name, &http.Server{Handler: handler(), TLSConfig: config})
	}
	add("any", base)
	add("pinned", pinned)
	add("chosen", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return pinned, nil }})
	p.Handle("unix", *dir+"/embedded", &framework{"of others", &http.Server{Handler: handler(), TLSConfig: pinned}})
	other := &http.Server{Handler: handler(), TLSConfig: pack.ShareTickets("func", base)}
	serveTLS := func(l net.Listener) error { return other.ServeTLS(l, "", "") }
	p.Handle("unix", *dir+"/func", pack.Func(serveTLS, other.Shutdown))
	return p.Run(context.Background())
}

// framework is a server of a framework.
type framework struct {
	name string
	*http.Server
}

// TestTicketsOfServices has a client come back to each service, at any worker and over a reload, and bring the ticket of
// one to another, and to one that demands something else now.
func TestTicketsOfServices(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	wanted, another := test.SelfSigned(t), test.SelfSigned(t)
	pinTo := func(c tls.Certificate) {
		hash := sha256.Sum256(c.Certificate[0])
		if err := os.WriteFile(dir+"/pin", hash[:], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pinTo(wanted)
	p := start(t, "services", nil, "-workers=4", "-in="+dir)
	p.Logged(1, "pack is up")
	visit := func(name string, c *tls.Config) (resumed bool, err error) {
		raw, err := net.Dial("unix", dir+"/"+name)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		conn := tls.Client(raw, c)
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if _, err := io.ReadAll(conn); err != nil {
			return false, err
		}
		return conn.ConnectionState().DidResume, nil
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := func(certificate tls.Certificate) *tls.Config {
			return &tls.Config{
				InsecureSkipVerify: true, ServerName: "x", MaxVersion: version, Certificates: []tls.Certificate{certificate},
				ClientSessionCache: tls.NewLRUClientSessionCache(1),
			}
		}
		comesBack := func(name string, c *tls.Config, times int) {
			t.Helper()
			for range times {
				if resumed, err := visit(name, c); !resumed || err != nil {
					t.Errorf("%s, %s: resumed %v, %v", name, tls.VersionName(version), resumed, err)
				}
			}
		}
		clients := map[string]*tls.Config{}
		for _, name := range []string{"any", "pinned", "chosen", "embedded", "func"} {
			c := client(wanted)
			clients[name] = c
			if resumed, err := visit(name, c); resumed || err != nil {
				t.Errorf("%s, the first time: resumed %v, %v", name, resumed, err)
			}
			comesBack(name, c, 20)
		}
		stranger := client(another)
		if _, err := visit("any", stranger); err != nil {
			t.Error(err)
		}
		comesBack("any", stranger, 5)
		for _, name := range []string{"pinned", "chosen", "embedded"} {
			if resumed, err := visit(name, stranger); err == nil {
				t.Errorf("%s: a ticket of another service opens it: resumed %v", name, resumed)
			}
			visit("any", stranger) // for a new ticket
		}

		n := p.Count("generation has drained")
		pinTo(another)
		p.Signal(syscall.SIGHUP)
		p.Logged(n+1, "generation has drained")
		comesBack("any", clients["any"], 10)
		comesBack("func", clients["func"], 10)
		for _, name := range []string{"pinned", "chosen", "embedded"} {
			if resumed, err := visit(name, clients[name]); err == nil {
				t.Errorf("%s: a ticket opens it that the certificate does not any more: resumed %v", name, resumed)
			}
		}
		pinTo(wanted)
		p.Signal(syscall.SIGHUP)
		p.Logged(n+2, "generation has drained")
	}
	p.Stop()
}
