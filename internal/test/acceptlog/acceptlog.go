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

// Writer returns a hook for an http.Server that writes a line, at once, for each connection that was accepted, and for
// each that it has to do with no more, to a file that is there already.
func Writer(name string) (func(net.Conn, http.ConnState), error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return func(c net.Conn, state http.ConnState) {
		if state == http.StateNew || state == http.StateClosed {
			fmt.Fprintf(f, "%d %s %d %v\n", os.Getpid(), c.RemoteAddr(), time.Now().UnixNano(), state)
		}
	}, nil
}

// Log is who accepted the connections of each client address, and let go of them, and when.
type Log map[string][]entry

type entry struct {
	pid   int
	when  time.Time
	letGo bool
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
		var client, state string
		var nanoseconds int64
		if _, err := fmt.Fscan(f, &e.pid, &client, &nanoseconds, &state); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		e.when, e.letGo = time.Unix(0, nanoseconds), state == http.StateClosed.String()
		all[client] = append(all[client], e)
	}
}

// By returns the processes that accepted the connection of a failed request: nobody if it is empty. It has more than
// one only if a port was used again within that time.
func (l Log) By(f strictclient.Failure) (pids []int) {
	for _, e := range l[f.Local] {
		if !e.letGo && !e.when.Before(f.Opened) && !e.when.After(f.Ended) {
			pids = append(pids, e.pid)
		}
	}
	return pids
}

// LetGo reports whether a process had let go of the connection of a failed request a while before that failed, and
// nobody had accepted it since: it was on its way to another.
func (l Log) LetGo(f strictclient.Failure) (is bool) {
	const while = 50 * time.Millisecond
	for _, e := range l[f.Local] {
		if !e.when.Before(f.Opened) && !e.when.After(f.Ended) {
			is = e.letGo && e.when.Before(f.Ended.Add(-while))
		}
	}
	return is
}
