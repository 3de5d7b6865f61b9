//go:build linux

package drain

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestArrivalDoesAll has connections do all that net/http can after they were handed over: deadlines of the user's own,
// both directions at once, and hijacking, with data that came along with the request. A Unix socket knows its peer
// still, and a hook sees a new connection.
func TestArrivalDoesAll(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for name, server := range map[string]func(*http.Server) Mover{"ours": ours, "theirs": theirs} {
			t.Run(network+", "+name, func(t *testing.T) {
				r := newRelayOf(t, network, everything(t), func(srv *http.Server) {
					srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
						return context.WithValue(ctx, connKey{}, peer(c))
					}
				}, server)
				c, err := net.Dial(network, r.socket.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				reader := bufio.NewReader(c)
				want := "0"
				if network == "unix" {
					want = fmt.Sprint(os.Getpid())
				}
				for range 2 {
					io.WriteString(c, "GET /peer HTTP/1.1\r\nHost: x\r\n\r\n")
					if got := bodyOf(t, reader); got != want {
						t.Errorf("its peer is %s, want %s", got, want)
					}
					r.launch()
				}
				io.WriteString(c, "POST /duplex HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
				resp, err := http.ReadResponse(reader, nil)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 3)
				if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != "abc" {
					t.Errorf("%q, %v", got, err)
				}
				io.WriteString(c, "def")
				if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "def" {
					t.Errorf("%q, %v", rest, err)
				}
				r.launch()
				io.WriteString(c, "GET /hijack HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
				if resp, err = http.ReadResponse(reader, nil); err != nil || resp.StatusCode != 101 {
					t.Fatalf("%v, %v", resp, err)
				}
				got = make([]byte, 10)
				io.WriteString(c, "world")
				if _, err := io.ReadFull(reader, got); err != nil || string(got) != "helloworld" {
					t.Errorf("%q, %v", got, err)
				}
				if n := r.moved.Load(); n != 3 {
					t.Errorf("it was handed over %d times, want 3", n)
				}
			})
		}
	}
}

func bodyOf(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}

// peer returns the process at the other end of a Unix socket; else 0.
func peer(c net.Conn) (pid int) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1
	}
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

func everything(t *testing.T) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/peer", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Context().Value(connKey{})) })
	mux.HandleFunc("/duplex", func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if err := control.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		control.SetReadDeadline(time.Now().Add(20 * time.Second))
		control.SetWriteDeadline(time.Now().Add(20 * time.Second))
		buf := make([]byte, 3)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			control.Flush()
			if err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		rw.Flush()
		io.CopyN(c, rw, 10)
	})
	return mux
}
