package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

// protocol is what clients of a framework speak. None of them sends anything twice, but what a server has said that it
// has not looked at (HTTP/2, gRPC).
type protocol struct {
	dial func(address string) (conn, error) // nil for HTTP/1.1, which strictclient speaks
	age  time.Duration                      // how long a connection is kept; 0: for as long as the server does
}

// conn is a connection of a client.
type conn interface {
	// ask sends a request and waits for the answer.
	ask(request string) error

	// gone reports whether the server has said that it takes no more requests.
	gone() bool

	Close() error
}

// load is what clients do: they ask for the same again and again.
type load struct {
	protocol
	address string
	clients int
	keep    bool // the connection, for the next request
	request string
	pause   time.Duration // between requests, on average
	once    bool          // each asks once
	sent    *atomic.Int64 // counts requests as they go
}

// timeout is how long an answer may take.
const timeout = 20 * time.Second

// run loads the server until ctx ends, then lets the requests that are under way finish.
func (l load) run(ctx context.Context) *strictclient.Result {
	if l.dial == nil {
		h := strictclient.Load{
			Network: "tcp", Address: l.address, Clients: l.clients, KeepAlive: l.keep, Pause: l.pause, Path: "/" + l.request,
			Timeout: timeout, Sent: l.sent,
		}
		if l.once {
			h.PerClient = 1
		}
		return h.Run(ctx)
	}
	total := &strictclient.Result{Failures: map[string]int{}}
	var mu sync.Mutex
	var clients sync.WaitGroup
	for range l.clients {
		clients.Go(func() {
			c := client{load: l}
			defer c.close()
			for ctx.Err() == nil {
				err := c.request()
				mu.Lock()
				if err != nil {
					total.Failures[kind(err)]++
				} else {
					total.Requests++
				}
				mu.Unlock()
				if l.once {
					break
				}
				time.Sleep(l.pause)
			}
			mu.Lock()
			defer mu.Unlock()
			total.Conns += c.opened
		})
	}
	clients.Wait()
	return total
}

// kind is an error without the addresses that make each one different.
func kind(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

type client struct {
	load
	conn
	opened int
	since  time.Time
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

func (c *client) request() error {
	if c.conn != nil && (c.conn.gone() || c.age > 0 && time.Since(c.since) > c.age) {
		c.close()
	}
	if c.conn == nil {
		conn, err := c.dial(c.address)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		c.conn, c.since = conn, time.Now()
		c.opened++
	}
	c.sent.Add(1)
	err := c.ask(c.load.request)
	if err != nil || !c.keep {
		c.close()
	}
	return err
}

var speakHTTP = protocol{}

// kept is for how long clients keep a connection by whose protocol a server cannot say that it is about to close.
const kept = 2 * time.Second

var speakRedis = protocol{age: kept, dial: func(address string) (conn, error) {
	c, err := net.Dial("tcp", address)
	return redisConn{c}, err
}}

type redisConn struct{ net.Conn }

func (c redisConn) gone() bool { return false }

func (c redisConn) ask(request string) error {
	c.SetDeadline(time.Now().Add(timeout))
	if _, err := fmt.Fprintf(c, "*1\r\n$%d\r\n%s\r\n", len(request), request); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && line != "+hello\r\n" {
		err = fmt.Errorf("the answer is %q", line)
	}
	return err
}

var speakDNS = protocol{age: kept, dial: func(address string) (conn, error) {
	c, err := dns.DialTimeout("tcp", address, timeout)
	return dnsConn{c}, err
}}

type dnsConn struct{ *dns.Conn }

func (c dnsConn) gone() bool { return false }

func (c dnsConn) ask(request string) error {
	c.SetDeadline(time.Now().Add(timeout))
	question := new(dns.Msg).SetQuestion(request+".", dns.TypeA)
	if err := c.WriteMsg(question); err != nil {
		return err
	}
	reply, err := c.ReadMsg()
	if err == nil && reply.Id != question.Id {
		err = errors.New("the answer is another's")
	}
	return err
}

var speakSSH = protocol{age: kept, dial: func(address string) (conn, error) {
	config := &gossh.ClientConfig{User: "x", HostKeyCallback: gossh.InsecureIgnoreHostKey(), Timeout: timeout}
	c, err := gossh.Dial("tcp", address, config)
	return sshConn{c}, err
}}

type sshConn struct{ *gossh.Client }

func (c sshConn) gone() bool { return false }

func (c sshConn) ask(request string) error {
	s, err := c.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	output, err := s.Output(request)
	if err == nil && string(output) != "hello" {
		err = fmt.Errorf("the output is %q", output)
	}
	return err
}

var speakH2C = protocol{dial: func(address string) (conn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	h2, err := (&http2.Transport{AllowHTTP: true}).NewClientConn(c)
	return h2Conn{h2, address}, err
}}

type h2Conn struct {
	*http2.ClientConn
	address string
}

func (c h2Conn) gone() bool { return !c.CanTakeNewRequest() }

func (c h2Conn) ask(request string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+c.address+"/"+request, nil)
	if err != nil {
		return err
	}
	resp, err := c.RoundTrip(r)
	if err != nil && strings.Contains(err.Error(), "graceful shutdown GOAWAY") { // and it has not looked at this
		again, err := speakH2C.dial(c.address)
		if err != nil {
			return err
		}
		defer again.Close()
		return again.ask(request)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != "hello" {
		err = fmt.Errorf("status %d, %q", resp.StatusCode, body)
	}
	return err
}

var speakGRPC = protocol{dial: func(address string) (conn, error) {
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	return grpcConn{c}, err
}}

type grpcConn struct{ *grpc.ClientConn }

func (c grpcConn) gone() bool { return false } // it connects anew by itself

func (c grpcConn) ask(request string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_, err := health.NewHealthClient(c).Check(ctx, &health.HealthCheckRequest{Service: request})
	return err
}
