package pack

// The queue of a worker that is gone waits for its replacement, which may have to wait itself; that of one that hangs may
// wait for ever. So another worker covers for it: it accepts from the same socket, until the worker is back.

// serving acts on a change of who serves which socket. It is called with mu locked.
func (m *masterState) serving() {
	m.steer()
	m.coverAll()
}

// coverAll has every socket served by somebody. It is called with mu locked.
func (m *masterState) coverAll() {
	if m.current == nil || !m.current.isUp() || m.stopping || m.adopting {
		return
	}
	n := m.current.plan.workers()
	serves := make([]*workerLink, n)
	for p, l := range m.links {
		if p.ID < n && m.takesOver(l) && !(l.generation == m.current && m.hung[p.ID]) {
			serves[p.ID] = l
		}
	}
	for id := range n {
		cover := m.covers[id]
		switch {
		case cover != nil && (serves[id] != nil || m.links[cover.process] == nil || !cover.stands()):
			m.uncover(id)
		case cover != nil:
			continue
		}
		if serves[id] == nil {
			m.cover(id, serves)
		}
	}
}

// cover has the next of the workers that serve accept from another's sockets, too.
func (m *masterState) cover(id int, serves []*workerLink) {
	for i := range serves {
		l := serves[(id+i)%len(serves)]
		if l == nil {
			continue
		}
		for what, socket := range m.sockets.of(id) {
			if err := l.send(message{Type: msgLend, Endpoint: &what.endpoint, Socket: what.socket, Cover: true}, socket); err != nil {
				m.log.Debug("a worker cannot be covered for", "worker", id, "by", l.process.ID, "error", err)
			}
		}
		m.covers[id] = l
		m.log.Debug("another worker serves the queue", "worker", id, "by", l.process.ID)
		return
	}
}

// uncover has whoever covers for a worker stop that.
func (m *masterState) uncover(id int) {
	l := m.covers[id]
	delete(m.covers, id)
	if m.links[l.process] == nil {
		return // it is gone
	}
	for what := range m.sockets.of(id) {
		l.send(message{Type: msgTake, Endpoint: &what.endpoint, Socket: what.socket})
	}
}

// uncoverAll ends all covering: the next master begins anew.
func (m *masterState) uncoverAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.covers {
		m.uncover(id)
	}
}

// hangs notes that a worker hangs, or not any more.
func (m *masterState) hangs(worker int, hung bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hung[worker] = hung
	if hung {
		m.log.Warn("worker hangs, others serve its queue", "worker", worker)
	} else {
		m.log.Info("worker goes on", "worker", worker)
	}
	m.coverAll()
}
