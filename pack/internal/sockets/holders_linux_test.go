package sockets

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

// TestHolders reads a /proc in which some listen on port 8080 (1F90).
func TestHolders(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	link := func(to string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink | 0o777}
	}
	row := func(address, state, inode string) string {
		return "   0: " + address + " 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000     0        0 " +
			inode + " 1 0000000000000000 100 0 0 10 0\n"
	}
	const wildcard6, other6 = "00000000000000000000000000000000", "B80D0120000000000000000001000000"
	proc := fstest.MapFS{
		"self/net/tcp": file("  sl  local_address rem_address   st ...\n" +
			row("0100007F:1F90", "0A", "11") + row("0200007F:1F90", "0A", "13") + row("0100007F:1F90", "01", "12")),
		"self/net/tcp6": file("  sl  local_address ...\n" + row(wildcard6+":1F91", "0A", "14") + row(other6+":1F90", "0A", "15")),
		"self/net/unix": file("header\n" +
			"0000000000000000: 00000002 00000000 00010000 0001 01 21 /run/x.sock\n" +
			"0000000000000000: 00000003 00000000 00000000 0001 03 22 /run/x.sock\n" +
			"0000000000000000: 00000002 00000000 00010000 0001 01 23 @x\n" +
			"0000000000000000: 00000002 00000000 00010000 0001 01 25 /run/a b.sock\n" +
			"0000000000000000: 00000003 00000000 00000000 0001 03 24\n"),
		"100/fd/3": link("socket:[11]"), "100/comm": file("server\n"), "100/stat": file("100 (ser ver)) S 1 100"),
		"100/environ": file("A=B\x00PROCGROUP_LIFELINE=3,99\x00"),
		"101/fd/3":    link("socket:[11]"), "101/comm": file("server\n"), "101/stat": file("101 (server) S 99 100"),
		"101/environ": file("PROCGROUP_LIFELINE=3,99"),
		"102/fd/9":    link("socket:[13]"), "102/comm": file("nginx\n"), "102/stat": file("102 (nginx) S 1 102"),
		"103/fd/4": link("socket:[15]"), "103/fd/5": link("socket:[14]"), "104/fd/1": link("/dev/null"),
		"105/fd/6": link("socket:[12]"), "105/fd/7": link("socket:[22]"),
		"106/fd/6": link("socket:[21]"), "106/fd/7": link("socket:[23]"), "107/fd/3": link("socket:[25]"),
	}
	at := func(network, address string) (wire.Endpoint, error) {
		a, err := net.ResolveTCPAddr(network, address)
		if err != nil {
			t.Fatal(err)
		}
		return wire.Endpoint{Network: network, Address: address}, &net.OpError{Net: network, Addr: a, Err: syscall.EADDRINUSE}
	}
	unix := func(address string) (wire.Endpoint, error) { return local(address), &takenError{} }
	for _, tt := range []struct {
		e    func() (wire.Endpoint, error)
		want string
	}{
		{func() (wire.Endpoint, error) { return at("tcp", "127.0.0.1:8080") }, "100 orphan server, 101 server"},
		{func() (wire.Endpoint, error) { return at("tcp4", ":8080") }, "100 orphan server, 101 server, 102 nginx"},
		{func() (wire.Endpoint, error) { return at("tcp", ":8080") }, "100 orphan server, 101 server, 102 nginx, 103 "},
		{func() (wire.Endpoint, error) { return at("tcp", "[2001:db8::1]:8080") }, "103 "},
		{func() (wire.Endpoint, error) { return at("tcp", "[2001:db8::1%eth0]:8080") }, "103 "},
		{func() (wire.Endpoint, error) { return at("tcp", "127.0.0.9:8081") }, "103 "},
		{func() (wire.Endpoint, error) { return at("tcp", "127.0.0.1:8082") }, ""},
		{func() (wire.Endpoint, error) { return unix("/run/x.sock") }, "106 "},
		{func() (wire.Endpoint, error) { return unix("\x00x") }, "106 "},
		{func() (wire.Endpoint, error) { return unix("/run/a b.sock") }, "107 "},
		{func() (wire.Endpoint, error) { return unix("/run/y.sock") }, ""},
	} {
		e, err := tt.e()
		var got []string
		for _, h := range holdersIn(proc, e, err) {
			got = append(got, fmt.Sprintf("%d%s %s", h.pid, map[bool]string{true: " orphan"}[h.orphan], h.name))
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: %q, want %q", e, got, tt.want)
		}
	}
	_, inUse := at("tcp", "127.0.0.1:8080")
	if all := connectedIn(proc, inUse); len(all) != 1 || all[0].pid != 105 {
		t.Errorf("whose connection has the address: %+v, want 105", all)
	}
	if all := holdersIn(fstest.MapFS{}, tcp(":8080"), syscall.EADDRINUSE); all != nil {
		t.Errorf("without /proc: %v", all)
	}
}

// FuzzHolders reads tables that may be anything.
func FuzzHolders(f *testing.F) {
	f.Add([]byte("h\n 0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 11 1\n"))
	f.Add([]byte("h\n0: 00000002 00000000 00010000 0001 01 21 /run/x.sock\n"))
	f.Fuzz(func(t *testing.T, table []byte) {
		file := &fstest.MapFile{Data: table}
		proc := fstest.MapFS{
			"self/net/tcp": file, "self/net/tcp6": file, "self/net/unix": file, "1/stat": file, "1/environ": file, "1/comm": file,
			"1/fd/3": {Data: []byte("socket:[11]"), Mode: fs.ModeSymlink},
		}
		op := &net.OpError{Net: "tcp", Addr: &net.TCPAddr{Port: 8080}, Err: syscall.EADDRINUSE}
		holdersIn(proc, tcp(":8080"), op)
		holdersIn(proc, local("/run/x.sock"), op)
	})
}

// TestConnectionHasTheAddress tells whose connection has the port.
func TestConnectionHasTheAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = keeper(t).Open(t.Context(), tcp(c.LocalAddr().String()), 1)
	want := fmt.Sprintf("(a connection of process %d (", os.Getpid())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %q", err, want)
	}
}
