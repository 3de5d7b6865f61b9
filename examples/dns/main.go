// Command dns answers DNS queries by UDP and TCP on one address, on one pinned worker per CPU: each has sockets of its
// own, and none is closed in a reload (HUP) or an upgrade (USR2).
//
//	dig @localhost -p 5353 +short anything.example TXT
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"github.com/miekg/dns"

	"github.com/gopherpack/gopherpack/pack"
)

func main() {
	addr := flag.String("addr", "localhost:5353", "address to listen on")
	flag.Parse()

	p := pack.New(pack.Config{ShutdownTimeout: 10 * time.Second})
	byUDP, byTCP := newServer(), newServer()
	p.HandlePacket("udp", *addr, pack.PacketFunc(func(conn net.PacketConn) error {
		byUDP.PacketConn = conn
		return byUDP.ActivateAndServe()
	}, byUDP.ShutdownContext))
	p.Handle("tcp", *addr, pack.Func(func(l net.Listener) error {
		byTCP.Listener = l
		return byTCP.ActivateAndServe()
	}, byTCP.ShutdownContext))
	if err := p.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// newServer returns a server that answers each question of type TXT with who it is.
func newServer() *dns.Server {
	worker, _ := pack.WorkerID()
	who := fmt.Sprintf("worker %d, process %d", worker, os.Getpid())
	return &dns.Server{Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		answer := new(dns.Msg).SetReply(query)
		for _, q := range query.Question {
			if q.Qtype == dns.TypeTXT {
				answer.Answer = append(answer.Answer, &dns.TXT{
					Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET},
					Txt: []string{who},
				})
			}
		}
		if err := w.WriteMsg(answer); err != nil {
			log.Print(err)
		}
	})}
}
