// Package acceptlog tells which worker had accepted the connection on which a request was lost.
package acceptlog

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gopherpack/gopherpack/internal/strictclient"
)

// Writer returns a hook for an http.Server that writes a line, at once, for each connection that was accepted, to a
// file that is there already.
func Writer(name string) (func(net.Conn, http.ConnState), error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			fmt.Fprintf(f, "%d %s %d\n", os.Getpid(), c.RemoteAddr(), time.Now().UnixNano())
		}
	}, nil
}

// Log is who accepted the connections of each client address, and when.
type Log map[string][]entry

type entry struct {
	pid  int
	when time.Time
}

// Read reads what was written to a file.
func Read(name string) (Log, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all := Log{}
	for {
		var e entry
		var client string
		var nanoseconds int64
		if _, err := fmt.Fscan(f, &e.pid, &client, &nanoseconds); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		e.when = time.Unix(0, nanoseconds)
		all[client] = append(all[client], e)
	}
}

// By returns the processes that accepted the connection of a failed request: nobody if it is empty. It has more than
// one only if a port was used again within that time.
func (l Log) By(f strictclient.Failure) (pids []int) {
	for _, e := range l[f.Local] {
		if !e.when.Before(f.Opened) && !e.when.After(f.Ended) {
			pids = append(pids, e.pid)
		}
	}
	return pids
}
