package pack

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// KeyPair is where a certificate and its key are: files in PEM, which may be one and the same. After the certificate
// follow those that lead to a root.
type KeyPair struct{ Certificate, Key string }

// Certificates returns a function for [tls.Config.GetCertificate] that serves certificates from files:
//
//	pair := pack.KeyPair{Certificate: "/etc/site/site.pem", Key: "/etc/site/site.key"}
//	srv.TLSConfig = &tls.Config{GetCertificate: p.Certificates(pair)}
//
// Of several pairs a client gets the first that it can use, by the name that it asks for, and by what it can verify, or
// else the first, as of [tls.Config.Certificates]. It is called before Run or in OnWorkerStart.
//
// Each worker reads the files when OnWorkerStart has returned, and looks once a second whether they have changed. A new
// pair is served from the next handshake on, in all workers within two seconds, without a reload; sessions are resumed
// as before. A pair that cannot be read or parsed, whose key is that of another certificate, or that is expired or not
// valid yet, is not used: the worker goes on with what it has, and the log says so once, when the files have been that
// way for a second, so that a pair may be written one file after the other. In a reload or an upgrade new workers read
// the files; one that cannot be read then has them fail, and the old ones go on. A pair that is expired at the start of
// a worker is served, and the log warns: an old certificate is better than none when a worker has crashed.
//
// Workers read the files, not the master. So with Config.User that user must be able to, as a member of a group for
// instance. The function is safe for concurrent use; before Run it returns an error.
func (p *Pack) Certificates(pairs ...KeyPair) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if p.sealed.Load() {
		panic("pack: Certificates comes too late: call it before Run or in OnWorkerStart")
	}
	if len(pairs) == 0 {
		panic("pack: Certificates needs a pair of files")
	}
	var all certificates
	for _, pair := range pairs {
		c := new(certificate)
		all = append(all, c)
		p.watched = append(p.watched, &watchedFiles{
			what: "certificate", paths: []string{pair.Certificate, pair.Key}, take: c.take, about: c.about, doubt: c.doubt,
		})
	}
	return all.get
}

type certificates []*certificate

var errNotRead = errors.New("pack: certificates are read when the pack runs")

// get chooses as package tls does.
func (all certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	first := all[0].current.Load()
	if first == nil {
		return nil, errNotRead
	}
	if len(all) == 1 {
		return first, nil
	}
	for _, c := range all {
		if is := c.current.Load(); is != nil && hello.SupportsCertificate(is) == nil {
			return is, nil
		}
	}
	return first, nil
}

// certificate is one that is served.
type certificate struct {
	current atomic.Pointer[tls.Certificate]
}

func (c *certificate) take(contents [][]byte) error {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return fmt.Errorf("%w: write the certificate and its key anew", err)
	}
	if err := validNow(pair.Leaf); err != nil && c.current.Load() != nil {
		return err
	}
	c.current.Store(&pair)
	return nil
}

func (c *certificate) doubt() error { return validNow(c.current.Load().Leaf) }

func (c *certificate) about() []any {
	leaf := c.current.Load().Leaf
	return []any{"names", leaf.DNSNames, "until", leaf.NotAfter}
}

// validNow reports why clients would refuse a certificate today.
func validNow(c *x509.Certificate) error {
	switch now := time.Now(); {
	case now.After(c.NotAfter):
		return fmt.Errorf("expired at %s: renew it", c.NotAfter.Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Errorf("not valid before %s: look at this machine's clock", c.NotBefore.Format(time.RFC3339))
	}
	return nil
}
