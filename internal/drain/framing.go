package drain

import (
	"bytes"
	"strconv"
	"strings"
)

// framing follows the requests and responses of an HTTP/1.1 connection by what is read from it and written to it, to
// tell when it is between them. It is strict: at whatever several servers could understand in several ways, and at
// whatever ends the exchange of requests on the connection, it gives up for good. Its zero value is that of a
// connection of which nothing is known.
type framing struct {
	requests, responses stream
	asked               []bool // a request that is not answered: whether it is a HEAD
	after               int    // the bytes that came with, and after, the head of the only response that is owed; else -1
	known               bool   // it has been such a connection
	lost                bool   // it cannot be followed
}

// stream is one direction of it.
type stream struct {
	part    []byte // a head, or a line of a chunked body, that has not come as a whole
	after   int    // how many bytes came with, and after, the last head
	left    int64  // of a body or a chunk
	within  bool   // a message has begun, and not ended
	chunked bool
	last    bool // the last chunk has come
}

// maxHead is how large a head may be that is followed.
const maxHead = 64 << 10

// between reports whether nothing of a request was read that is not answered as a whole.
func (f *framing) between() bool {
	return f.known && !f.lost && len(f.asked) == 0 && !f.requests.within && !f.responses.within
}

// lose gives up.
func (f *framing) lose() { *f = framing{lost: true} }

// request follows what was read.
func (f *framing) request(b []byte) {
	if f.lost || len(b) == 0 {
		return
	}
	if !f.requests.within && !beginsRequest(b) || !f.requests.follow(b, f.beginRequest, func() {}) {
		f.lose()
	}
}

// beginsRequest reports whether b can be the beginning of a request, so that nothing is kept of what is none.
func beginsRequest(b []byte) bool {
	method, _, _ := bytes.Cut(b, []byte(" "))
	return isToken(method) && len(method) < maxMethod
}

// maxMethod is how long the name of a method may be in a request that is followed.
const maxMethod = 32

// response follows what is written. It returns where in b another field fits into the head of the response to the last
// request that was read, or 0.
func (f *framing) response(b []byte) (field int) {
	if f.lost || len(b) == 0 {
		return 0
	}
	f.after = -1
	unasked := len(f.asked) == 0 && !f.responses.within
	if unasked || !f.responses.follow(b, f.beginResponse, f.answered) {
		f.lose()
		return 0
	}
	if f.after < 0 {
		return 0
	}
	return max(0, len(b)-f.after-len("\r\n")) // if the end of the head came in two parts, in none
}

// responseBody follows bytes that were written, and that nobody has seen.
func (f *framing) responseBody(n int64) {
	switch s := &f.responses; {
	case f.lost || n == 0:
	case s.chunked || n > s.left:
		f.lose()
	default:
		if s.left -= n; s.left == 0 {
			s.within = false
			f.answered()
		}
	}
}

func (f *framing) answered() {
	if len(f.asked) > 0 {
		f.asked = append(f.asked[:0], f.asked[1:]...)
	}
}

// maxAsked is how many requests may wait for their answers on a connection that is followed.
const maxAsked = 100

// beginRequest returns how long a request's body is, -1 if it is chunked.
func (f *framing) beginRequest(first []byte, h head) (length int64, ok bool) {
	method, rest, _ := bytes.Cut(first, []byte(" "))
	target, version, _ := bytes.Cut(rest, []byte(" "))
	if string(version) != "HTTP/1.1" || len(target) == 0 || bytes.ContainsAny(target, "\r\n\t\x00") ||
		!isToken(method) || string(method) == "CONNECT" || len(f.asked) == maxAsked {
		return 0, false
	}
	length = max(h.length, 0)
	if h.chunked {
		length = -1
	}
	switch string(method) {
	case "GET", "HEAD", "DELETE", "OPTIONS", "TRACE":
		if length != 0 {
			return 0, false // which not every server reads
		}
	}
	f.known = true
	f.asked = append(f.asked, string(method) == "HEAD")
	return length, true
}

// beginResponse returns how long a response's body is, -1 if it is chunked.
func (f *framing) beginResponse(first []byte, h head) (length int64, ok bool) {
	const status = "HTTP/1.1 "
	if len(f.asked) == 0 || !bytes.HasPrefix(first, []byte(status)) || len(first) < len(status)+3 {
		return 0, false
	}
	code, err := strconv.Atoi(string(first[len(status) : len(status)+3]))
	switch {
	case err != nil || code < 100 || code == 101:
		return 0, false
	case code < 200: // another follows
		f.asked = append([]bool{f.asked[0]}, f.asked...)
		return 0, true
	}
	if len(f.asked) == 1 {
		f.after = f.responses.after
	}
	switch {
	case f.asked[0] || code == 204 || code == 304:
		return 0, true
	case h.chunked:
		return -1, true
	}
	return h.length, h.length >= 0 // else it ends with the connection
}

// follow follows bytes. begin is called with each message's first line and head, and end at its end. It returns false
// if they cannot be followed.
func (s *stream) follow(b []byte, begin func([]byte, head) (int64, bool), end func()) bool {
	for len(b) > 0 {
		switch {
		case s.left > 0:
			n := min(s.left, int64(len(b)))
			s.left -= n
			b = b[n:]
		case s.within && s.chunked:
			line, whole := s.until("\r\n", &b)
			if whole && !s.chunk(line) || len(s.part) > maxHead {
				return false
			}
			if !whole || !s.last || len(line) > 0 {
				continue
			}
			s.chunked, s.last = false, false
		default:
			s.within = true
			text, whole := s.until("\r\n\r\n", &b)
			if !whole {
				return len(s.part) <= maxHead
			}
			s.after = len(b)
			first, fields, _ := bytes.Cut(text, []byte("\r\n"))
			h, ok := parseHead(fields)
			if !ok {
				return false
			}
			length, ok := begin(first, h)
			if !ok {
				return false
			}
			s.left, s.chunked = max(length, 0), length < 0
		}
		if s.left == 0 && !s.chunked {
			s.within = false
			end()
		}
	}
	return true
}

// until returns what comes before a delimiter, from b and what has come of it before, and takes it from b.
func (s *stream) until(delimiter string, b *[]byte) (text []byte, whole bool) {
	if len(s.part) == 0 {
		if i := bytes.Index(*b, []byte(delimiter)); i >= 0 {
			text, *b = (*b)[:i], (*b)[i+len(delimiter):]
			return text, true
		}
		s.part = append(s.part, *b...)
		*b = nil
		return nil, false
	}
	had := len(s.part)
	s.part = append(s.part, *b...)
	i := bytes.Index(s.part[max(0, had-len(delimiter)):], []byte(delimiter))
	if i < 0 {
		*b = nil
		return nil, false
	}
	i += max(0, had-len(delimiter))
	*b = (*b)[i+len(delimiter)-had:]
	text, s.part = s.part[:i], nil
	return text, true
}

// chunk follows a line of a chunked body: the size of a chunk, or the empty line after the last. One with extensions or
// trailers is not followed.
func (s *stream) chunk(line []byte) bool {
	if s.last {
		return len(line) == 0
	}
	size, err := strconv.ParseUint(string(line), 16, 62)
	if err != nil || line[0] == '+' {
		return false
	}
	if s.last = size == 0; !s.last {
		s.left = int64(size) + int64(len("\r\n"))
	}
	return true
}

// head is what the fields of a head say of the message.
type head struct {
	length  int64 // -1 if it says nothing
	chunked bool
}

// parseHead returns false if what the fields say is not plain, or the connection is not to go on as it is.
func parseHead(fields []byte) (h head, ok bool) {
	h.length = -1
	for len(fields) > 0 {
		var line []byte
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found || !isToken(name) || bytes.ContainsAny(value, "\r\n\x00") {
			return h, false
		}
		switch value = bytes.Trim(value, " \t"); {
		case is(name, "Content-Length"):
			n, err := strconv.ParseUint(string(value), 10, 62)
			if err != nil || value[0] == '+' || h.length >= 0 {
				return h, false
			}
			h.length = int64(n)
		case is(name, "Transfer-Encoding"):
			if h.chunked || !is(value, "chunked") {
				return h, false
			}
			h.chunked = true
		case is(name, "Connection"):
			if !is(value, "keep-alive") {
				return h, false
			}
		case is(name, "Upgrade"), is(name, "Trailer"):
			return h, false
		}
	}
	return h, !h.chunked || h.length < 0
}

func is(b []byte, s string) bool { return len(b) == len(s) && bytes.EqualFold(b, []byte(s)) }

// isToken reports whether b is a name of a method or a field, by RFC 9110, section 5.6.2.
func isToken(b []byte) bool {
	for _, c := range b {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return len(b) > 0
}
