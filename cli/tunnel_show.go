package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"sallyport.dev/client"
)

// Events of a tunnel, as "tunnel --json" names them.
const (
	eventListening = "listening" // connections are accepted
	eventUp        = "up"        // a session has started
	eventLost      = "lost"      // the session is gone; another will be started
	eventFailed    = "failed"    // no other could be started yet; it is tried again
	eventOpened    = "opened"    // a connection
	eventClosed    = "closed"    // that connection
	eventRefused   = "refused"   // the target was not reached, or may not be
	eventNotice    = "notice"    // something that a person should know
	eventEnded     = "ended"
)

// tunnelEvent is the contract of "tunnel --json": one of these on each line.
type tunnelEvent struct {
	Time       time.Time `json:"time"`
	Event      string    `json:"event"`
	Listen     string    `json:"listen,omitempty"`
	Target     string    `json:"target,omitempty"` // "port N" of the node, or HOST:PORT
	Session    string    `json:"session,omitempty"`
	Connection uint64    `json:"connection,omitempty"`
	Sent       int64     `json:"sent,omitempty"` // bytes to the target so far
	Received   int64     `json:"received,omitempty"`
	Text       string    `json:"text,omitempty"`
	Error      string    `json:"error,omitempty"`
}

const (
	liveEvery = 500 * time.Millisecond
	// maxLive bounds the live lines, by number.
	maxLive = 8
	// sameAgain is how long the same words are not said again: a program that tries
	// in a loop would fill the screen.
	sameAgain = 5 * time.Second
)

// tunnelShow tells a person, or a program, what a tunnel does.
type tunnelShow struct {
	p      *program
	t      *tunnel
	events io.Writer // of JSON
	live   bool      // lines at the bottom of the terminal are kept current
	width  int
	now    func() time.Time

	mu      sync.Mutex
	drawn   int // lines of the live part that are on the screen
	before  []reading
	said    string // the last words, and when
	saidAt  time.Time
	skipped int
	failed  map[string]string // by target, why there is no session, as was said last
}

// reading is what a door has carried at a time.
type reading struct {
	at             time.Time
	sent, received int64
}

func (p *program) newTunnelShow(t *tunnel, command bool) *tunnelShow {
	s := &tunnelShow{p: p, t: t, events: p.stdout, width: 80, now: time.Now, failed: map[string]string{}}
	if command { // standard output is its own
		s.events = p.stderr
	}
	f, ok := p.stderr.(*os.File)
	if !ok || command || p.flags.json || p.flags.debug || !term.IsTerminal(int(f.Fd())) {
		return s
	}
	s.live = true
	return s
}

// listening tells that a door is open.
func (s *tunnelShow) listening(d *door) {
	e := tunnelEvent{Event: eventListening, Listen: d.address()}
	if d.lane != nil {
		e.Target = d.lane.target.String()
	}
	s.tell(e)
}

// tell tells of an event: as JSON all of them, to a person those that matter.
func (s *tunnelShow) tell(e tunnelEvent) {
	e.Time = s.now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.p.flags.json {
		encodeJSON(s.events, e, "") // a reader that is gone is no reason to end
		return
	}
	if s.saidBefore(e) {
		return
	}
	if text := s.words(e); text != "" {
		s.sayLocked(text)
	}
}

// saidBefore reports whether e repeats why there is no session: that is said once, and
// again when there has been one in between.
func (s *tunnelShow) saidBefore(e tunnelEvent) bool {
	switch e.Event {
	case eventUp:
		delete(s.failed, e.Target)
	case eventFailed:
		if s.failed[e.Target] == e.Error {
			return true
		}
		s.failed[e.Target] = e.Error
	}
	return false
}

// words are what a person is told of an event; nothing of most.
func (s *tunnelShow) words(e tunnelEvent) string {
	switch e.Event { // first what comes with every connection
	case eventUp, eventOpened, eventClosed:
		s.p.logger().Debug(e.Event, "target", e.Target, "session", e.Session, "connection", e.Connection,
			"sent", e.Sent, "received", e.Received, "error", e.Error)
		return ""
	}
	target := client.CleanLine(e.Target)
	node := client.CleanLine(orNodeName(s.t.node))
	switch e.Event {
	case eventListening:
		if e.Target == "" {
			return fmt.Sprintf("%s serves SOCKS5 through %s", e.Listen, node)
		}
		return fmt.Sprintf("%s leads to %s through %s", e.Listen, target, node)
	case eventLost:
		return fmt.Sprintf("%s: the session is lost (%s); starting another", target, e.Error)
	case eventFailed:
		return fmt.Sprintf("%s: no session yet (%s); trying again", target, e.Error)
	case eventRefused:
		return fmt.Sprintf("%s: %s", target, e.Error)
	case eventNotice:
		return fmt.Sprintf("%s: %s", target, client.CleanLine(e.Text))
	}
	return ""
}

func orNodeName(n client.Node) string {
	if n.Name != "" {
		return n.Name
	}
	return n.NodeID
}

// sayLocked writes a line above the live ones. The same line is not repeated at once.
func (s *tunnelShow) sayLocked(text string) {
	now := s.now()
	if text == s.said && now.Sub(s.saidAt) < sameAgain {
		s.skipped++
		return
	}
	s.clearLocked()
	if s.skipped > 0 {
		s.p.say("%s (%s more)", s.said, count(s.skipped, "time"))
	}
	s.said, s.saidAt, s.skipped = text, now, 0
	s.p.say("%s", text)
}

// run keeps the live lines current.
func (s *tunnelShow) run(ctx context.Context) {
	if !s.live {
		return
	}
	s.before = make([]reading, len(s.t.doors))
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for {
		s.draw()
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.clear()
			return
		}
	}
}

func (s *tunnelShow) draw() {
	if f, ok := s.p.stderr.(*os.File); ok {
		if cols, _, err := term.GetSize(int(f.Fd())); err == nil && cols > 10 {
			s.width = cols
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := s.lines()
	s.clearLocked()
	for _, line := range lines {
		io.WriteString(s.p.stderr, cut(line, s.width-1)+"\n")
	}
	s.drawn = len(lines)
}

// lines are one for each door: where from and to, state, connections, rates, totals.
func (s *tunnelShow) lines() []string {
	var lines []string
	for i, d := range s.t.doors {
		if len(lines) == maxLive {
			return append(lines, fmt.Sprintf("… and %d more", len(s.t.doors)-maxLive))
		}
		u := d.usage()
		now := reading{s.now(), u.sent, u.received}
		lines = append(lines, fmt.Sprintf("%s -> %s  %s  %s  out %s/s in %s/s  total out %s in %s",
			d.address(), client.CleanLine(d.leads()), u.state, count(u.conns, "connection"),
			size(rate(s.before[i], now, s.before[i].sent, now.sent)), size(rate(s.before[i], now, s.before[i].received, now.received)),
			size(now.sent), size(now.received)))
		s.before[i] = now
	}
	return lines
}

// rate is bytes per second between two readings.
func rate(a, b reading, from, to int64) int64 {
	seconds := b.at.Sub(a.at).Seconds()
	if a.at.IsZero() || seconds <= 0 {
		return 0
	}
	return int64(float64(to-from) / seconds)
}

// size is a number of bytes in words.
func size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	f, i := float64(n), 0
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	if i == 0 || f >= 100 {
		return fmt.Sprintf("%.0f %s", f, units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// clear takes the live lines off the screen.
func (s *tunnelShow) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clearLocked()
}

func (s *tunnelShow) clearLocked() {
	if s.drawn > 0 {
		fmt.Fprintf(s.p.stderr, "\r\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

// usage is what a door carries.
type usage struct {
	state          string
	conns          int
	sent, received int64
}

func (d *door) usage() usage {
	if d.socks != nil {
		return d.socks.usage()
	}
	u := usage{state: "up", conns: int(d.lane.conns.Load()), sent: d.lane.sent.Load(), received: d.lane.received.Load()}
	if !d.lane.up() {
		u.state = "reconnecting"
	}
	return u
}

func (d *door) leads() string {
	if d.socks != nil {
		return "SOCKS5"
	}
	return strings.TrimSpace(d.lane.target.String())
}
