package forward

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/internal/loopback"
)

// Syslog sends messages of RFC 5424 over TCP or TLS, octet-counted (RFC 6587 3.4.1,
// RFC 5425 4.3). Syslog has no answers: a batch counts as taken once the receiver's
// system has acknowledged its bytes, and the last batch is sent again on the next
// connection when this one broke.
type Syslog struct {
	// Address is tcp+tls://HOST:PORT, or tcp://HOST:PORT on loopback addresses.
	Address string
	// StructuredID is the SD-ID of the records' fields, NAME@NUMBER; DefaultStructuredID
	// unless given.
	StructuredID string
	// Facility is from 0 to 23 (RFC 5424 6.2.1).
	Facility int
	TLS      *tls.Config // optional

	host  string
	plain bool
	conn  *syslogConn
	last  []byte // what was sent last on conn
}

// DefaultStructuredID is made of the enterprise number that RFC 5612 reserves for
// examples: an organisation that has its own puts that in.
const DefaultStructuredID = "sallyport@32473"

// FacilityLogAudit is the facility "log audit" (RFC 5424 6.2.1).
const FacilityLogAudit = 13

const dialTimeout = 10 * time.Second

// structuredID is that of RFC 5424 7: a name, and a number of IANA's.
var structuredID = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,20}@[0-9]{1,10}$`)

// NewSyslog returns a Sender.
func NewSyslog(s Syslog) (Sender, error) {
	u, err := url.Parse(s.Address)
	if err != nil || u.Port() == "" || u.Path != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("address: want tcp+tls://HOST:PORT and nothing else") // it may hold a secret
	}
	if s.StructuredID == "" {
		s.StructuredID = DefaultStructuredID
	}
	switch {
	case u.Scheme != "tcp+tls" && u.Scheme != "tcp":
		return nil, fmt.Errorf("address: %q: want tcp+tls://HOST:PORT", s.Address)
	case u.Scheme == "tcp" && !loopback.Is(u.Hostname()):
		return nil, fmt.Errorf("address: %q: plain TCP is for loopback addresses only: want tcp+tls://HOST:PORT", s.Address)
	case !structuredID.MatchString(s.StructuredID):
		return nil, fmt.Errorf("structured_data_id: %q: want NAME@NUMBER, the number an enterprise number of IANA's", s.StructuredID)
	case s.Facility < 0 || s.Facility > 23:
		return nil, fmt.Errorf("facility: %d: want 0 to 23", s.Facility)
	}
	s.host, s.plain = u.Host, u.Scheme == "tcp"
	if s.TLS == nil {
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	s.TLS = s.TLS.Clone()
	if s.TLS.ServerName == "" {
		s.TLS.ServerName = u.Hostname()
	}
	return &s, nil
}

// Send implements Sender.
func (s *Syslog) Send(ctx context.Context, b Batch) error {
	var text bytes.Buffer
	for i, r := range b.Records {
		m := s.message(r, b.Lines[i])
		text.WriteString(strconv.Itoa(len(m)) + " ")
		text.Write(m)
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.conn.write(ctx, text.Bytes()); err != nil {
		s.drop()
		return fmt.Errorf("sending to syslog: %w", err)
	}
	s.last = text.Bytes()
	return nil
}

// connect makes sure of a connection, and sends again what was sent last on one that
// broke since: the receiver may not have read it.
func (s *Syslog) connect(ctx context.Context) error {
	if s.conn != nil && !s.conn.broken() {
		return nil
	}
	s.drop()
	conn, err := s.dial(ctx)
	if err != nil {
		return fmt.Errorf("connecting to syslog: %w", err)
	}
	s.conn = conn
	if s.last == nil {
		return nil
	}
	if err := s.conn.write(ctx, s.last); err != nil {
		s.drop()
		return fmt.Errorf("sending to syslog again: %w", err)
	}
	return nil
}

func (s *Syslog) drop() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}

func (s *Syslog) dial(ctx context.Context) (*syslogConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.host)
	if err != nil {
		return nil, err
	}
	c := &syslogConn{tcp: raw.(*net.TCPConn), Conn: raw, ended: make(chan struct{})}
	if !s.plain {
		over := tls.Client(raw, s.TLS)
		if err := over.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		c.Conn = over
	}
	go c.watch()
	return c, nil
}

// Close implements Sender.
func (s *Syslog) Close() error {
	s.drop()
	return nil
}

// syslogConn is a connection that knows when the other side has gone: receivers send
// nothing, so that whatever is read is its end.
type syslogConn struct {
	net.Conn // TLS, or tcp
	tcp      *net.TCPConn
	gone     atomic.Bool
	ended    chan struct{}
}

func (c *syslogConn) watch() {
	defer close(c.ended)
	_, _ = io.Copy(io.Discard, c.Conn)
	c.gone.Store(true)
}

func (c *syslogConn) broken() bool { return c.gone.Load() }

func (c *syslogConn) close() {
	c.Conn.Close()
	<-c.ended
}

// ackWait is how often the system is asked whether all bytes were acknowledged.
const ackWait = 2 * time.Millisecond

// write sends bytes and waits until the other system has acknowledged them.
func (c *syslogConn) write(ctx context.Context, text []byte) error {
	stop := context.AfterFunc(ctx, func() { c.Conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.Conn.Write(text); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	for wait := ackWait; ; wait = min(2*wait, 100*time.Millisecond) {
		n, err := unacknowledged(c.tcp)
		switch {
		case err != nil:
			return err
		case c.broken():
			return errors.New("the receiver closed the connection")
		case n == 0:
			return nil
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

// Severities of RFC 5424 6.2.1.
const (
	severityWarning = 4
	severityNotice  = 5
	severityInfo    = 6
)

func severity(r audit.Record) int {
	switch {
	case r.Event == EventUnreadable:
		return severityWarning
	case r.Decision != "" && r.Decision != "Allowed" || r.Error != "":
		return severityNotice
	}
	return severityInfo
}

// message is a record as a SYSLOG-MSG of RFC 5424 6.
func (s *Syslog) message(r audit.Record, line []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<%d>1 %s %s sallyport - %s ", s.Facility*8+severity(r),
		r.Time.UTC().Format("2006-01-02T15:04:05.000000Z07:00"), printable(r.Member, 255), printable(r.Event, 32))
	b.WriteString("[" + s.StructuredID)
	for _, p := range []struct{ name, value string }{
		{"member", r.Member}, {"seq", strconv.FormatInt(r.Seq, 10)}, {"event", r.Event}, {"principal", r.Principal},
		{"action", r.Action}, {"decision", r.Decision}, {"error", r.Error}, {"source_ip", r.SourceIP},
		{"session", r.Session}, {"node", r.Node}, {"request_id", r.RequestID}, {"hash", r.Hash},
	} {
		if p.value != "" {
			b.WriteString(` ` + p.name + `="` + paramEscape.Replace(p.value) + `"`)
		}
	}
	b.WriteString("] \xef\xbb\xbf") // the mark that says UTF-8
	b.Write(line)
	return b.Bytes()
}

// paramEscape escapes what RFC 5424 6.3.3 demands, and what would break lines of
// receivers that keep each message on one.
var paramEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`, "\n", " ", "\r", " ")

// printable is a header field: printable ASCII without spaces, "-" for nothing.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), limit)]
}
