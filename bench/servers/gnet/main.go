// Command gnet is gnet with as much of HTTP/1.1 as the load needs: gnet has event loops, and no HTTP of its own. A
// request is all up to an empty line, and all that counts of it is its path.
package main

import (
	"bytes"
	"flag"
	"log"
	"strconv"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"

	"github.com/gopherpack/gopherpack/bench/internal/answers"
)

func main() {
	address := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	err := gnet.Run(&server{}, "tcp://"+*address,
		gnet.WithMulticore(true), gnet.WithReusePort(true), gnet.WithLogLevel(logging.ErrorLevel))
	if err != nil {
		log.Fatal("gnet: ", err)
	}
}

type server struct{ gnet.BuiltinEventEngine }

func (*server) OnTraffic(c gnet.Conn) gnet.Action {
	in, err := c.Peek(-1)
	if err != nil {
		return gnet.Close
	}
	var out []byte
	taken, action := 0, gnet.None
	for action == gnet.None {
		head, rest, whole := bytes.Cut(in, []byte("\r\n\r\n"))
		if !whole {
			break
		}
		taken += len(in) - len(rest)
		in = rest
		if bytes.Contains(head, []byte("\r\nConnection: close")) {
			action = gnet.Close
		}
		out = answer(out, head)
	}
	c.Discard(taken)
	if len(out) > 0 {
		if _, err := c.Write(out); err != nil {
			return gnet.Close
		}
	}
	return action
}

// answer appends the answer to a request.
func answer(out, head []byte) []byte {
	fields := bytes.SplitN(head, []byte(" "), 3)
	status := "200 OK"
	var body []byte
	ok := len(fields) == 3
	if ok {
		body, ok = answers.Body(string(fields[1]))
	}
	if !ok {
		status = "404 Not Found"
	}
	out = append(out, "HTTP/1.1 "...)
	out = append(out, status...)
	out = append(out, "\r\nContent-Type: "+answers.ContentType+"\r\nContent-Length: "...)
	out = strconv.AppendInt(out, int64(len(body)), 10)
	out = append(out, "\r\n\r\n"...)
	return append(out, body...)
}
