// Package upgrade replaces a running program by the executable that is on disk now, without closing its sockets: they,
// and files and a state, are handed to the successor.
//
// [Upgrader] does all of it for a server, in one of two ways. By default the successor is a new process, which runs
// beside the old one until it is ready; if it does not become ready nothing has happened. With [Config.InPlace] the
// program becomes the new one in the same process, by execve(2), once it has finished what it was doing: the process ID
// stays, for a container whose first process this is, a terminal, or a service manager. If the new one then says that
// it cannot serve ([Upgrader.HandBack]), it becomes the old one again; if it exits or crashes before Ready, there is no
// server any more, so what can be checked without the sockets is better checked before New, in the trial.
//
//	u, err := upgrade.New(nil)
//	l, err := u.Listen(ctx, "tcp", ":8080")
//	go srv.Serve(l)
//	err = u.Ready()                // the predecessor may go
//	go func() {
//		for range hangups {
//			log.Print(u.Upgrade(ctx)) // why it did not work; nil if it did
//		}
//	}()
//	<-u.Done()                     // a successor has taken over, or Close was called
//	srv.Shutdown(ctx)              // finish what is there
//	err = u.Finish()               // in place, this does not return
//
// The sockets stay open from the first process to the last: connections that nobody accepts for a moment wait in their
// queues. What is lost is lost by the server that stops: a connection on which a request arrives while
// [net/http.Server.Shutdown] runs is closed without an answer. Package pack does better.
//
// Where something follows the process by a file, [Config.PIDFile] has the ID of the one that serves. Connections, pipes,
// and sockets that another opened are handed on by [Upgrader.AddFile].
//
// Users of cloudflare/tableflip find what they know, and what is different, in docs/from-tableflip.md.
//
// What Upgrader stands on is there for programs that need it in another order: [Preflight] tries an executable out,
// [Become] runs it in this process and passes on what [Inherited] finds, [Estate.HandBack] goes back. [Image] is an
// executable that cannot be swapped between one and the other. [Args], [Environ], [Dir] and [Path] are how this program
// was started, as its successor should be.
//
// A new process works on Linux, macOS, the BSDs and Solaris, in place works on Linux only; elsewhere the error matches
// [errors.ErrUnsupported].
package upgrade
