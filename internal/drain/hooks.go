package drain

import (
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"unsafe"
)

// callHooks calls what was registered by RegisterOnShutdown, as Shutdown would: each in a goroutine of its own.
func callHooks(srv *http.Server) {
	for _, f := range takeHooks(srv) {
		go f()
	}
}

// takeHooks takes from a server what was registered by RegisterOnShutdown, so that Shutdown does not call it, and
// returns it. What HTTP/2 has registered stays: that sends a GOAWAY, for which it is too early while the server still
// accepts, since connections that come later would never get one.
//
// net/http keeps the functions to itself and calls them only in Shutdown, after which it answers no request that
// arrives on an open connection. Nor can Shutdown be called on another server, of the same functions, since they cannot
// be copied, nor can a copy serve in the place of this one: its user would call Close, Shutdown and
// SetKeepAlivesEnabled in vain, and what package x/net/http2 has registered would come too early. So this looks into
// the server. If a release of Go keeps them elsewhere, there is nothing to take, and Shutdown calls them, at the end of
// a drain.
func takeHooks(srv *http.Server) (taken []func()) {
	mu, known := field[sync.Mutex](srv, "mu")
	hooks, alsoKnown := field[[]func()](srv, "onShutdown")
	if !known || !alsoKnown {
		return nil
	}
	mu.Lock()
	defer mu.Unlock()
	var left []func()
	for _, f := range *hooks {
		if ofHTTP2(f) {
			left = append(left, f)
		} else {
			taken = append(taken, f)
		}
	}
	*hooks = left
	return taken
}

// field returns a field of a server that is not exported, if there is one of that type.
func field[T any](srv *http.Server, name string) (*T, bool) {
	f := reflect.ValueOf(srv).Elem().FieldByName(name)
	if !f.IsValid() || f.Type() != reflect.TypeFor[T]() {
		return nil, false
	}
	return (*T)(unsafe.Pointer(f.UnsafeAddr())), true
}

// ofHTTP2 reports whether a function is of net/http's HTTP/2, or of package golang.org/x/net/http2, also of a copy.
func ofHTTP2(f func()) bool {
	name := runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name()
	return strings.HasPrefix(name, "net/http") && strings.Contains(strings.ToLower(name), "http2") ||
		strings.Contains(name, "golang.org/x/net/http2.")
}
