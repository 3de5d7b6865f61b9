//go:build linux

package pack_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopherpack/gopherpack/internal/test/program"
	"github.com/gopherpack/gopherpack/pack"
)

func init() { programs["certificates"] = certificatesProgram }

// certificatesProgram serves TLS on a Unix socket with the pairs of files in -in, by the names given, and with the
// keys of tickets in a file.
func certificatesProgram() error {
	c, address := configFlags()
	dir := flag.String("in", "", "")
	names := flag.String("names", "site", "")
	flag.StringVar(&c.TicketKeys, "ticketkeys", "", "")
	flag.Parse()
	p := pack.New(*c)
	var pairs []pack.KeyPair
	for name := range strings.SplitSeq(*names, ",") {
		pairs = append(pairs, pack.KeyPair{Certificate: *dir + "/" + name + ".pem", Key: *dir + "/" + name + ".key"})
	}
	config := &tls.Config{GetCertificate: p.Certificates(pairs...)}
	network, addr, _ := strings.Cut(*address, " ")
	p.Handle(network, addr, &http.Server{Handler: handler(), TLSConfig: config})
	return p.Run(context.Background())
}

// writePair writes a certificate for a name, and its key, one after the other, and returns its serial number.
func writePair(t *testing.T, dir, file, name string, until time.Time) string {
	t.Helper()
	cert, key, serial := makePair(t, name, until)
	put(t, dir+"/"+file+".pem", cert)
	put(t, dir+"/"+file+".key", key)
	return serial
}

func makePair(t *testing.T, name string, until time.Time) (cert, key []byte, serial string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	number, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: number, DNSNames: []string{name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs}), number.String()
}

// put writes a file in place.
func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// putAside writes a file beside, and renames it.
func putAside(t *testing.T, path string, content []byte) {
	t.Helper()
	put(t, path+".new", content)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// later is when certificates of tests expire.
func later() time.Time { return time.Now().Add(time.Hour) }

// visitTLS makes one request, and returns the serial number of the server's certificate, and whether a session was
// resumed.
func visitTLS(t *testing.T, p *running, c *tls.Config) (serial string, resumed bool) {
	t.Helper()
	network, address := p.Listening("pack is up")
	return visitAt(t, network, address, c)
}

func visitAt(t *testing.T, network, address string, c *tls.Config) (serial string, resumed bool) {
	t.Helper()
	raw, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, c)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
	state := conn.ConnectionState()
	return state.PeerCertificates[0].SerialNumber.String(), state.DidResume
}

// stranger is a client that has been nowhere.
func stranger(name string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: name, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
}

// shows waits until all workers serve a certificate, which takes each of them a look: as many connections as are
// enough for each of two to be met have it.
func shows(t *testing.T, p *running, name, serial string) {
	t.Helper()
	p.Until("serves the new certificate", inTime, func() bool {
		for range 20 {
			if got, _ := visitTLS(t, p, stranger(name)); got != serial {
				return false
			}
		}
		return true
	})
}

// remains is how often it was said at INFO or above.
func remains(p *running, msg string) (n int) {
	for _, r := range p.Records() {
		if r.Msg() == msg && r["level"] != "DEBUG" {
			n++
		}
	}
	return n
}

// complains reports whether it was said with an error like that.
func complains(p *running, msg, text string) bool {
	return slices.ContainsFunc(p.Records(), func(r program.Record) bool {
		err, _ := r["error"].(string)
		return r.Msg() == msg && strings.Contains(err, text)
	})
}

const (
	used    = "changed files are used"
	notUsed = "changed files cannot be used, the old content goes on"
)

// TestCertificates replaces a pair of files in the ways in which programs do, with what is right and what is not.
func TestCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := writePair(t, dir, "site", "site.example", later())
	p := start(t, "certificates", nil, "-workers=2", "-in="+dir)
	shows(t, p, "site.example", first)
	pids := p.Workers()

	guest := stranger("site.example")
	visitTLS(t, p, guest)
	now := writePair(t, dir, "site", "site.example", later()) // in place, one after the other
	shows(t, p, "site.example", now)
	p.Logged(1, used)
	if _, resumed := visitTLS(t, p, guest); !resumed {
		t.Error("a changed certificate ends sessions")
	}

	cert, key, serial := makePair(t, "site.example", later()) // as certbot does
	putAside(t, dir+"/site.pem", cert)
	putAside(t, dir+"/site.key", key)
	shows(t, p, "site.example", serial)
	p.Logged(2, used)

	other, otherKey, _ := makePair(t, "site.example", later())
	expired, expiredKey, _ := makePair(t, "site.example", time.Now().Add(-time.Hour))
	for _, bad := range []struct {
		what, says string
		cert, key  []byte
	}{
		{"another's key", "private key does not match", cert, otherKey},
		{"half a certificate", "failed to find", other[:len(other)/2], otherKey},
		{"expired", "expired at", expired, expiredKey},
	} {
		put(t, dir+"/site.pem", bad.cert)
		put(t, dir+"/site.key", bad.key)
		p.Until("says what is wrong: "+bad.what, inTime, func() bool { return complains(p, notUsed, bad.says) })
		shows(t, p, "site.example", serial)
	}
	os.Remove(dir + "/site.key")
	p.Until("says that a file is gone", inTime, func() bool { return complains(p, notUsed, "no such file") })
	now = writePair(t, dir, "site", "site.example", later())
	shows(t, p, "site.example", now)
	p.Logged(3, used)
	if n := remains(p, used); n != 3 {
		t.Errorf("%d lines of what is used: %s", n, p.Text())
	}
	if !slices.Equal(p.Workers(), pids) {
		t.Error("there are other workers")
	}
	p.Stop()
}

// TestCertificatesOfKubernetes turns a symbolic link to the directory of both files, as a kubelet does with a Secret.
func TestCertificatesOfKubernetes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	turn := func(to string) string {
		if err := os.Mkdir(dir+"/"+to, 0o700); err != nil {
			t.Fatal(err)
		}
		serial := writePair(t, dir+"/"+to, "site", "site.example", later())
		if err := os.Symlink(to, dir+"/..data_tmp"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+"/..data_tmp", dir+"/..data"); err != nil {
			t.Fatal(err)
		}
		return serial
	}
	first := turn("..1")
	for _, file := range []string{"site.pem", "site.key"} {
		if err := os.Symlink("..data/"+file, dir+"/"+file); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, "certificates", nil, "-workers=2", "-in="+dir)
	shows(t, p, "site.example", first)
	shows(t, p, "site.example", turn("..2"))
	if n := p.Count(notUsed); n != 0 {
		t.Errorf("it was said %d times that files are not used", n)
	}
	p.Stop()
}

// TestCertificatesInLine has a pack without workers do the same.
func TestCertificatesInLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := writePair(t, dir, "site", "site.example", later())
	p := start(t, "certificates", func(c *exec.Cmd) { c.Env = append(c.Env, "GOPHERPACK_INLINE=1") },
		"-in="+dir, "-address=unix "+dir+"/socket")
	p.Logged(1, "pack serves in line, in one process")
	shown := func(want string) bool {
		got, _ := visitAt(t, "unix", dir+"/socket", stranger("site.example"))
		return got == want
	}
	if !shown(first) {
		t.Error("another certificate")
	}
	now := writePair(t, dir, "site", "site.example", later())
	p.Until("serves the new certificate", inTime, func() bool { return shown(now) })
	p.Logged(1, used)
	p.Stop()
}

// TestCertificatesByName has several pairs, of which each client gets that of the name it asks for, or the first.
func TestCertificatesByName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := writePair(t, dir, "a", "a.example", later())
	b := writePair(t, dir, "b", "*.b.example", later())
	p := start(t, "certificates", nil, "-workers=1", "-in="+dir, "-names=a,b")
	for name, want := range map[string]string{"a.example": a, "x.b.example": b, "other.example": a, "": a} {
		if got, _ := visitTLS(t, p, stranger(name)); got != want {
			t.Errorf("%q: another certificate", name)
		}
	}
	shows(t, p, "x.b.example", writePair(t, dir, "b", "*.b.example", later()))
	p.Stop()
}

// TestCertificatesAtStart has a pack that cannot read its files end with why, and a reload that cannot, fail; in line
// it is the same. One that is expired is served.
func TestCertificatesAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, env := range []string{"A=1", "GOPHERPACK_INLINE=1"} {
		p := start(t, "certificates", func(c *exec.Cmd) { c.Env = append(c.Env, env) }, "-workers=2", "-in="+dir)
		if !p.Said("certificate in " + dir + "/site.pem") {
			t.Error("it does not say which file cannot be read")
		}
		if p.Wait(inTime) == 0 {
			t.Error("it ended as if all were well")
		}
	}
	put(t, dir+"/site.pem", []byte("?"))
	expired := writePair(t, dir, "site", "site.example", time.Now().Add(-time.Hour))
	p := start(t, "certificates", nil, "-workers=2", "-in="+dir)
	shows(t, p, "site.example", expired)
	if n := remains(p, "clients may refuse what is served"); n != 1 {
		t.Errorf("%d warnings: %s", n, p.Text())
	}
	good := writePair(t, dir, "site", "site.example", later())
	shows(t, p, "site.example", good)
	put(t, dir+"/site.key", []byte("?"))
	for sig, said := range map[syscall.Signal]string{syscall.SIGHUP: "reload", syscall.SIGUSR2: "upgrade"} {
		p.Signal(sig)
		why := p.Logged(1, said+" failed, the old workers go on")["error"]
		if !strings.Contains(why.(string), "site.key") {
			t.Error(why)
		}
		shows(t, p, "site.example", good)
	}
	p.Stop()
}

// TestCertificatesOfUsers has workers of another user read files that only root, or that their group, can read.
func TestCertificatesOfUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can run workers as another user")
	}
	t.Parallel()
	dir := dirForAll(t)
	first := writePair(t, dir, "site", "site.example", later())
	if err := os.Chmod(dir+"/site.pem", 0o644); err != nil {
		t.Fatal(err)
	}
	p := start(t, "certificates", nil, "-workers=1", "-in="+dir, "-user=65534:65534")
	if !p.Said("permission denied: workers read it, as user 65534") {
		t.Error("it does not say who cannot read the key")
	}
	p.Wait(inTime)
	if err := os.Chown(dir+"/site.key", 0, 65534); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/site.key", 0o640); err != nil {
		t.Fatal(err)
	}
	p = start(t, "certificates", nil, "-workers=1", "-in="+dir, "-user=65534:65534")
	shows(t, p, "site.example", first)
	p.Stop()
}
