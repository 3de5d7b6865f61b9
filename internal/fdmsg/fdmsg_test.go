//go:build unix

package fdmsg

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// pair returns two connected sockets.
func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns[i] = c.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

// TestDeadline has a deadline pass before a message and within one, at each place where that can be.
func TestDeadline(t *testing.T) {
	a, b := pair(t)
	past := time.Unix(1, 0)
	body := []byte("hello")
	whole := append([]byte{0, 0, 0, byte(len(body))}, body...)
	for at := range whole {
		b.SetReadDeadline(past)
		if _, _, err := Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("without a message: %v", err)
		}
		b.SetReadDeadline(time.Time{})
		read := make(chan error)
		go func() {
			got, _, err := Read(b)
			if err == nil && !bytes.Equal(got, body) {
				err = fmt.Errorf("read %q", got)
			}
			read <- err
		}()
		if _, err := a.Write(whole[:at]); err != nil {
			t.Fatal(err)
		}
		if at > 0 {
			for queued(t, b) { // until it is read
				runtime.Gosched()
			}
			b.SetReadDeadline(past)
			if _, err := a.Write(whole[at:]); err != nil {
				t.Fatal(err)
			}
		} else if _, err := a.Write(whole); err != nil {
			t.Fatal(err)
		}
		if err := <-read; err != nil {
			t.Errorf("with a deadline after %d bytes: %v", at, err)
		}
	}
}

// TestDeadlineMovesOnce has a deadline pass within the header, and again within the body.
func TestDeadlineMovesOnce(t *testing.T) {
	err := readLate(t)
	for i := 0; i < 3 && err == nil; i++ { // it may not have looked at the first
		err = readLate(t)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("when a second deadline has passed: %v", err)
	}
}

func readLate(t *testing.T) error {
	t.Helper()
	a, b := pair(t)
	read := make(chan error)
	go func() {
		_, _, err := Read(b)
		read <- err
	}()
	for _, text := range []string{"\x00", "\x00\x00\x05"} {
		if _, err := a.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		for queued(t, b) { // until it is read
			runtime.Gosched()
		}
		b.SetReadDeadline(time.Unix(1, 0))
	}
	if _, err := a.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	return <-read
}

// queued reports whether something waits to be read.
func queued(t *testing.T, c *net.UnixConn) (some bool) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		some = n > 0 && err == nil
	})
	return some
}

func TestMessages(t *testing.T) {
	a, b := pair(t)
	bodies := [][]byte{nil, []byte("hello"), bytes.Repeat([]byte("x"), MaxBody)}
	go func() {
		for _, body := range bodies {
			if err := Write(a, body); err != nil {
				t.Error(err)
			}
		}
		a.Close()
	}()
	for _, want := range bodies {
		body, files, err := Read(b)
		if err != nil || !bytes.Equal(body, want) || files != nil {
			t.Errorf("%d bytes, %v, %v; want %d bytes", len(body), files, err, len(want))
		}
	}
	if _, _, err := Read(b); err != io.EOF {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
}

// TestDescriptors sends many messages with descriptors before any is read, and checks which arrives with which.
func TestDescriptors(t *testing.T) {
	a, b := pair(t)
	for i := range 20 {
		var files []syscall.Conn
		for j := range i % 4 {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(w, i, j)
			w.Close()
			defer r.Close()
			files = append(files, r)
		}
		if err := Write(a, fmt.Append(nil, i), files...); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		body, files, err := Read(b)
		if err != nil || string(body) != fmt.Sprint(i) || len(files) != i%4 {
			t.Fatalf("message %d: %q, %d files, %v", i, body, len(files), err)
		}
		for j, f := range files {
			if text, err := io.ReadAll(f); err != nil || string(text) != fmt.Sprint(i, j) {
				t.Errorf("file %d of message %d holds %q, %v", j, i, text, err)
			}
			flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("file %d of message %d is not close-on-exec", j, i)
			}
			f.Close()
		}
	}
}

func TestListenerStaysNonblocking(t *testing.T) {
	a, b := pair(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Write(a, nil, l.(syscall.Conn)); err != nil {
		t.Fatal(err)
	}
	_, files, err := Read(b)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	copied, err := net.FileListener(files[0])
	files[0].Close()
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	rc, _ := l.(syscall.Conn).SyscallConn()
	rc.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("the description that both share has become blocking: %#x, %v", flags, err)
		}
	})
}

func TestErrors(t *testing.T) {
	a, b := pair(t)
	if err := Write(a, make([]byte, MaxBody+1)); err == nil || !strings.Contains(err.Error(), "65537 bytes") {
		t.Errorf("too long a message: %v", err)
	}
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	l.Close()
	if err := Write(a, nil, l.(syscall.Conn)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed descriptor: %v", err)
	}
	a.Write([]byte{0, 0})
	a.Close()
	if _, _, err := Read(b); err != io.ErrUnexpectedEOF {
		t.Errorf("half a header: %v", err)
	}
	for header, want := range map[string]string{"\xff\xff\xff\xff": "4294967295 bytes", "\x00\x00\x00\x05abc": "unexpected EOF"} {
		a, b := pair(t)
		a.Write([]byte(header))
		a.Close()
		if _, _, err := Read(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error about %q", header, err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x05hello"))
	f.Add([]byte("\x00\x01\x00\x01"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, wire []byte) {
		if len(wire) > MaxBody {
			return // more than the socket's buffer might hold
		}
		a, b := pair(t)
		a.Write(wire)
		a.Close()
		for {
			body, files, err := Read(b)
			if err != nil {
				return
			}
			if len(files) != 0 || len(body) > len(wire) {
				t.Errorf("%q gave %d bytes and %d files", wire, len(body), len(files))
			}
		}
	})
}

// TestReadIsCheap holds that there is room for the descriptors of a message once, not for each part of it: a master
// receives several messages a second from each worker.
func TestReadIsCheap(t *testing.T) {
	a, b := pair(t)
	const runs = 50
	for range runs {
		if err := Write(a, []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		if _, _, err := Read(b); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := int(after.TotalAlloc-before.TotalAlloc) / runs; each > oobSpace*3/2 {
		t.Errorf("%d bytes are allocated for a message of 5, with room for descriptors of %d", each, oobSpace)
	}
}
