package drain

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestFraming follows exchanges that come in every possible pair of parts.
func TestFraming(t *testing.T) {
	const (
		get     = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
		head    = "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
		post    = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
		chunked = "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n"
		ok      = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		stream  = "HTTP/1.1 200 OK\r\ntransfer-encoding:  Chunked\r\nConnection: keep-alive\r\n\r\n2\r\nok\r\n0\r\n\r\n"
		none    = "HTTP/1.1 204 No Content\r\n\r\n"
		same    = "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"
		goOn    = "HTTP/1.1 100 Continue\r\n\r\n"
	)
	for _, tt := range []struct{ requests, responses string }{
		{get, ok}, {get, stream}, {get, none}, {get, same}, {post, ok}, {chunked, stream}, {post, goOn + ok},
		{head, same}, {head, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"},
		{head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{get + post + head + chunked, stream + ok + none + ok},
	} {
		for i := 1; i < len(tt.requests); i++ {
			for j := 1; j < len(tt.responses); j++ {
				var f framing
				for _, part := range []string{tt.requests[:i], tt.requests[i:]} {
					if f.between() {
						t.Fatalf("between after %q", tt.requests[:i])
					}
					f.request([]byte(part))
				}
				for _, part := range []string{tt.responses[:j], tt.responses[j:]} {
					if f.between() {
						t.Fatalf("between after %q, %q", tt.requests, tt.responses[:j])
					}
					f.response([]byte(part))
				}
				if !f.between() {
					t.Fatalf("not between after %q, %q in parts of %d and %d: %+v", tt.requests, tt.responses, i, j, f)
				}
			}
		}
	}
}

// TestFramingGivesUp has requests and responses that are not plain.
func TestFramingGivesUp(t *testing.T) {
	const get, ok = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, request := range []string{
		"\r\n" + get,
		"GET / HTTP/1.0\r\n\r\n",
		"GET /\r\n\r\n",
		"GET / x HTTP/1.1\r\n\r\n",
		"GET /a\nX: HTTP/1.1\r\n\r\n",
		"CONNECT x:1 HTTP/1.1\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: 2\r\n\r\nok",
		"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
		"POST / HTTP/1.1\r\nContent-Length: +2\r\n\r\nok",
		"POST / HTTP/1.1\r\nContent-Length: 2, 2\r\n\r\nok",
		"POST / HTTP/1.1\r\nContent-Length:\r\n\r\nok",
		"POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
		"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0;a=b\r\n\r\n",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nX : y\r\n\r\n",
		"GET / HTTP/1.1\r\nX: y\r\n z\r\n\r\n",
		"GET / HTTP/1.1\r\nX: y\nContent-Length: 2\r\n\r\n",
		"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
		"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		strings.Repeat("y", maxHead+1),
		"\x16\x03\x01\x00\xa5\x01\x00",
		"*1\r\n$4\r\nPING\r\n\r\n\r\n",
		"SSH-2.0-Go\r\n\r\n",
		"\x00\x1d",
		"VERSION-CONTROLLED-BY-SOMEBODY-ELSE / HTTP/1.1\r\n\r\n",
	} {
		var f framing
		f.request([]byte(request))
		f.response([]byte(ok))
		if f.between() {
			t.Errorf("followed %.80q", request)
		}
		f.request([]byte(get))
		f.response([]byte(ok))
		if f.between() {
			t.Errorf("followed a request after %.80q", request)
		}
	}
	for _, response := range []string{
		ok + ok,
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
		"HTTP/1.1\r\nContent-Length: 2\r\n\r\nok",
	} {
		var f framing
		f.request([]byte(get))
		f.response([]byte(response))
		if f.between() {
			t.Errorf("followed %q", response)
		}
	}
}

// TestFramingOfUnseenBody has a response's body written by sendfile(2).
func TestFramingOfUnseenBody(t *testing.T) {
	for _, tt := range []struct {
		length string
		sizes  []int64
		want   bool
	}{
		{"10", []int64{4, 0, 6}, true}, {"10", []int64{4}, false}, {"10", []int64{4, 7}, false},
	} {
		var f framing
		f.request([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		f.response([]byte("HTTP/1.1 200 OK\r\nContent-Length: " + tt.length + "\r\n\r\n"))
		for _, n := range tt.sizes {
			f.responseBody(n)
		}
		if f.between() != tt.want {
			t.Errorf("%v: between is %t", tt.sizes, f.between())
		}
	}
}

func BenchmarkFraming(b *testing.B) {
	request := []byte("GET /hello HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n")
	response := []byte("HTTP/1.1 200 OK\r\nServer: x\r\nDate: Fri, 27 Nov 2026 21:29:48 GMT\r\n" +
		"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")
	var f framing
	b.ReportAllocs()
	for b.Loop() {
		f.request(request)
		f.response(response)
	}
	if !f.between() {
		b.Fatal("lost")
	}
}

// FuzzFraming wants net/http to find the same requests, and nothing behind them, wherever one says that it is between
// requests.
func FuzzFraming(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\nHEAD / HTTP/1.1\r\nHost: x\r\n\r\n"), uint(3))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"), uint(50))
	f.Add([]byte("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), uint(60))
	f.Fuzz(func(t *testing.T, b []byte, at uint) {
		var f framing
		at = min(at, uint(len(b)))
		f.request(b[:at])
		f.request(b[at:])
		if f.lost || f.requests.within || !f.known {
			return
		}
		r := bufio.NewReader(bytes.NewReader(b))
		for range f.asked {
			request, err := http.ReadRequest(r)
			if err != nil {
				return // net/http refuses it, and answers by closing the connection
			}
			if _, err := io.Copy(io.Discard, request.Body); err != nil {
				return
			}
		}
		if rest, _ := io.ReadAll(r); len(rest) > 0 {
			t.Errorf("net/http finds %q behind %d requests in %q", rest, len(f.asked), b)
		}
	})
}
