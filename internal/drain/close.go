package drain

import (
	"net/http"
	"reflect"
	"unsafe"
)

// tellToClose has the response to a request ask the client to close.
func tellToClose(w http.ResponseWriter, r *http.Request) {
	// To HTTP/1.0 net/http would still say keep-alive.
	if r.ProtoMajor == 1 && r.ProtoAtLeast(1, 1) && closeAfterReply(w) {
		return
	}
	w.Header().Set("Connection", "close") // on HTTP/2 net/http makes a GOAWAY of it
}

// closeAfterReply has net/http end the connection with the response, and say so in its head, and reports whether it
// will: not if the head is written, or the response is not one of its HTTP/1.
//
// Setting the header does not do: handlers of event streams, and proxies that copy what they get, set it to
// "keep-alive", and then the client stays, and writes to a connection that is just being closed; one that switches
// protocols has to say "Upgrade", and clients take no "close" beside that. net/http knows all that, and does it right
// by itself while it shuts down, but then it answers no further request. A ResponseWriter of ours in between would be
// in the way of http.MaxBytesReader, which looks for net/http's own. So this looks into that. If a release of Go has
// the fields elsewhere, the header is set.
//
// It must be called by the goroutine of the handler.
func closeAfterReply(w http.ResponseWriter) bool {
	v := reflect.ValueOf(w)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return false
	}
	closing, written := v.Elem().FieldByName("closeAfterReply"), reflect.Value{}
	if head := v.Elem().FieldByName("cw"); head.Kind() == reflect.Struct {
		written = head.FieldByName("wroteHeader")
	}
	if closing.Kind() != reflect.Bool || written.Kind() != reflect.Bool || written.Bool() {
		return false
	}
	*(*bool)(unsafe.Pointer(closing.UnsafeAddr())) = true
	return true
}
