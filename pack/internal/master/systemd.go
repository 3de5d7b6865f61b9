package master

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/gopherpack/gopherpack/internal/systemd"
)

// managerHand tells the service manager what it is to be told, in order. Nothing waits for it but the end.
type managerHand struct {
	service systemd.Service
	work    *serial
	log     *logHand
	failed  bool
}

func (h *managerHand) notify(m systemd.Message) {
	h.work.do(func() {
		if err := h.service.Notify(m); err != nil && !h.failed {
			h.failed = true // the log tells it once
			h.log.put(logLine{slog.LevelWarn, "systemd does not hear of this pack", []any{"error", err}})
		}
	})
}

// warn has the log tell what is wrong with the unit that has started this program.
func (h *managerHand) warn(watchdog time.Duration) {
	for _, text := range h.service.Warnings {
		h.log.put(logLine{slog.LevelWarn, text, nil})
	}
	if watchdog > 0 && watchdog < shortest {
		text := fmt.Sprintf("WatchdogSec= of the unit is short: workers give a sign of life once a second, and a busy "+
			"machine is late: want at least %v", shortest)
		h.log.put(logLine{slog.LevelWarn, text, []any{"watchdog", watchdog}})
	}
}

// lastWord is how long the end waits until the manager has been told of it.
const lastWord = time.Second

func (h *managerHand) flush() {
	done := make(chan struct{})
	timer := time.AfterFunc(lastWord, func() { close(done) })
	defer timer.Stop()
	h.work.flush(done)
}
