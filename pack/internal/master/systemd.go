package master

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gopherpack/gopherpack/internal/systemd"
	"github.com/gopherpack/gopherpack/pack/internal/sockets"
)

// managerHand tells systemd what it is to be told, and has it keep sockets, in order. Nothing waits for it but the end.
type managerHand struct {
	service systemd.Service
	work    *serial
	log     *logHand

	// Of the functions that work runs.
	failed  bool            // the log has told of it
	full    bool            // likewise, that there are too many sockets
	kept    map[string]bool // what systemd keeps, by name
	settled bool            // all addresses are known, so what nobody wants is not kept on
}

func newManagerHand(s systemd.Service, log *logHand) *managerHand {
	return &managerHand{service: s, work: newSerial(), log: log, kept: map[string]bool{}}
}

func (h *managerHand) notify(m systemd.Message) {
	h.work.do(func() { h.report(h.service.Notify(m)) })
}

// report has the log tell once that systemd is not reached.
func (h *managerHand) report(err error) {
	if err != nil && !h.failed {
		h.failed = true
		h.warn("systemd does not hear of this pack", "error", err)
	}
}

func (h *managerHand) warn(text string, args ...any) { h.log.put(logLine{slog.LevelWarn, text, args}) }

// begin has the log tell what is wrong with the unit that has started this program, and takes what systemd has passed.
func (h *managerHand) begin(watchdog time.Duration, k *sockets.Keeper) {
	for _, text := range h.service.Warnings {
		h.warn(text)
	}
	if watchdog > 0 && watchdog < shortest {
		h.warn(fmt.Sprintf("WatchdogSec= of the unit is short: workers give a sign of life once a second, and a busy "+
			"machine is late: want at least %v", shortest), "watchdog", watchdog)
	}
	for _, err := range k.TakePassed(h.service.Passed) {
		h.warn(err.Error())
	}
	for _, d := range h.service.Passed {
		if sockets.IsKept(d.Name) {
			h.kept[d.Name] = true
		}
	}
}

// NobodyServes is what a log says of a socket that systemd has passed and that is of no use.
const NobodyServes = "systemd has passed a socket that nobody serves: call Handle for its address, or take it out of the unit"

// settle tells of sockets that systemd has passed and nobody serves. From then on what it keeps is what is open.
func (h *managerHand) settle(k *sockets.Keeper) {
	for _, name := range k.Left() {
		h.warn(NobodyServes, "socket", name)
	}
	h.work.do(func() { h.settled = true })
}

// keep has systemd keep the sockets that are open, and no others.
func (h *managerHand) keep(k *sockets.Keeper) {
	if h.service.Store == 0 {
		return
	}
	h.work.do(func() {
		open := k.ToKeep()
		for name := range h.kept {
			if _, is := open[name]; !is && h.settled {
				h.report(h.service.Drop(name))
				delete(h.kept, name)
			}
		}
		if len(open) > h.service.Store && !h.full {
			h.full = true
			h.warn("systemd keeps not all of the sockets, should this process be killed: FileDescriptorStoreMax= of the unit "+
				"wants to be at least as many as there are", "sockets", len(open), "max", h.service.Store)
		}
		for name, socket := range open {
			if h.kept[name] || len(h.kept) >= h.service.Store {
				continue
			}
			rc, err := socket.SyscallConn()
			if err == nil {
				cerr := rc.Control(func(fd uintptr) { err = h.service.Keep(name, int(fd)) })
				err = errors.Join(err, cerr)
			}
			h.report(err)
			h.kept[name] = err == nil
		}
	})
}

// lastWord is how long the end waits until systemd has been told of it.
const lastWord = time.Second

func (h *managerHand) flush() {
	done := make(chan struct{})
	timer := time.AfterFunc(lastWord, func() { close(done) })
	defer timer.Stop()
	h.work.flush(done)
}
