package notify_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/notify"
)

// smtpServer speaks SMTP (RFC 5321) with STARTTLS and AUTH PLAIN.
type smtpServer struct {
	listener net.Listener
	tls      *tls.Config // nil: no STARTTLS
	roots    *x509.CertPool
	refuse   string // an answer to RCPT instead of 250
	running  sync.WaitGroup

	mu    sync.Mutex
	mails []sentMail
	auth  string
}

type sentMail struct {
	from, to string
	data     string
	secure   bool
}

func newSMTP(t *testing.T, secure bool) *smtpServer {
	t.Helper()
	s := &smtpServer{}
	web := httptest.NewTLSServer(nil) // for its certificate of 127.0.0.1
	web.Close()
	s.roots = x509.NewCertPool()
	s.roots.AddCert(web.Certificate())
	if secure {
		s.tls = &tls.Config{Certificates: web.TLS.Certificates}
	}
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.running.Go(func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.running.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() { s.listener.Close(); s.running.Wait() })
	return s
}

func (s *smtpServer) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

func (s *smtpServer) serve(conn net.Conn) {
	defer func() { conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	r, m, secure := bufio.NewReader(conn), sentMail{}, false
	say := func(text string) { fmt.Fprintf(conn, "%s\r\n", text) }
	say("220 test ESMTP")
	for {
		text, err := r.ReadString('\n')
		if err != nil {
			return
		}
		text = strings.TrimRight(text, "\r\n")
		verb, rest, _ := strings.Cut(text, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-test")
			if s.tls != nil && !secure {
				say("250-STARTTLS")
			}
			if secure {
				say("250-AUTH PLAIN")
			}
			say("250 8BITMIME")
		case "STARTTLS":
			say("220 go on")
			c := tls.Server(conn, s.tls)
			if c.Handshake() != nil {
				return
			}
			conn, r, secure = c, bufio.NewReader(c), true
		case "AUTH":
			plain, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			s.mu.Lock()
			s.auth = string(plain)
			s.mu.Unlock()
			say("235 welcome")
		case "MAIL":
			m = sentMail{from: rest, secure: secure}
			say("250 ok")
		case "RCPT":
			if s.refuse != "" {
				say(s.refuse)
				continue
			}
			m.to = rest
			say("250 ok")
		case "DATA":
			say("354 go on")
			var data strings.Builder
			for {
				part, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if part == ".\r\n" {
					break
				}
				data.WriteString(strings.TrimPrefix(part, "."))
			}
			m.data = data.String()
			s.mu.Lock()
			s.mails = append(s.mails, m)
			s.mu.Unlock()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (s *smtpServer) sent() []sentMail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]sentMail(nil), s.mails...)
}

// signedIn is what the last client signed in with.
func (s *smtpServer) signedIn() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.auth
}

// to is the first mail to an address.
func (s *smtpServer) to(address string) (sentMail, bool) {
	for _, m := range s.sent() {
		if strings.Contains(m.to, "<"+address+">") {
			return m, true
		}
	}
	return sentMail{}, false
}

func (s *smtpServer) option(change func(*notify.Mail)) option {
	return func(c *notify.Config) {
		c.Slack = nil
		c.Mail = &notify.Mail{Host: "127.0.0.1", Port: s.port(), From: "sallyport@example.com", TLS: &tls.Config{RootCAs: s.roots}}
		if change != nil {
			change(c.Mail)
		}
	}
}

// parts are the texts of a mail, by type.
func parts(t *testing.T, m *mail.Message) map[string]string {
	t.Helper()
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		out[kind] = string(body)
	}
}

// Who decides gets a mail, over TLS, in which nothing that people wrote acts.
func TestMail(t *testing.T) {
	smtp := newSMTP(t, true)
	w := newWorld(t, smtp.option(func(m *notify.Mail) { m.Username, m.Password = "sally", "open sesame" }))
	reason := "<script>alert(1)</script> & so on"
	r := w.asked("frontend", reason)
	var m sentMail
	eventually(t, "bob's mail", func() (found bool) { m, found = smtp.to("bob@example.com"); return found })
	if auth := smtp.signedIn(); !m.secure || auth != "\x00sally\x00open sesame" {
		t.Errorf("over TLS: %v, as %q", m.secure, auth)
	}
	msg, err := mail.ReadMessage(strings.NewReader(m.data))
	w.must(err)
	subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
	w.must(err)
	if want := "[" + r.ID + "] carol asks for Front end: Pending"; subject != want {
		t.Errorf("subject: got %q, want %q", subject, want)
	}
	if msg.Header.Get("Auto-Submitted") != "auto-generated" || !strings.HasSuffix(msg.Header.Get("Message-Id"), "@example.com>") {
		t.Errorf("headers are %v", msg.Header)
	}
	texts := parts(t, msg)
	if html := texts["text/html"]; strings.Contains(html, "<script>") || !strings.Contains(html, "&lt;script&gt;") {
		t.Errorf("the reason went into the page: %s", html)
	}
	for kind, text := range texts {
		if !strings.Contains(text, "https://gate.example.com/requests/"+r.ID) || !strings.Contains(text, r.Hash) {
			t.Errorf("%s lacks link or hash: %s", kind, text)
		}
	}
	_, err = w.engine.Decide(t.Context(), grant.Actor{Principal: w.principal("bob"), Channel: "cli"}, r.ID, r.Hash, true, "")
	w.must(err)
	eventually(t, "carol's mail", func() bool {
		m, found := smtp.to("carol@example.com")
		return found && strings.Contains(m.data, "granted by bob")
	})
}

// A label with line breaks begins no header, and an address with more than an address
// gets nothing.
func TestHostileMail(t *testing.T) {
	smtp := newSMTP(t, true)
	w := newWorld(t, smtp.option(nil))
	w.must(w.store.UpdateUser(t.Context(), "dave", func(u *identity.User) error {
		u.Tags = identity.Tags{"Email": "dave@example.com>\r\nRCPT TO:<eve@example.com"}
		return nil
	}))
	files := map[string][]byte{"x.sallyport.hcl": []byte(strings.Replace(testFlows, `"Front end"`, `"Front\r\nBcc: eve@example.com\r\n\r\nend"`, 1))}
	_, digest, err := w.store.Flows(t.Context())
	w.must(err)
	if _, err := w.engine.PutFlows(t.Context(), grant.Actor{Principal: w.principal("bob"), Channel: "api"}, files, digest); err != nil {
		t.Skipf("such a label is refused: %v", err)
	}
	w.asked("frontend", "x")
	var m sentMail
	eventually(t, "bob's mail", func() (found bool) { m, found = smtp.to("bob@example.com"); return found })
	msg, err := mail.ReadMessage(strings.NewReader(m.data))
	w.must(err)
	if msg.Header.Get("Bcc") != "" {
		t.Errorf("the label became a header: %v", msg.Header)
	}
	for _, m := range smtp.sent() {
		if strings.Contains(m.to, "eve@") {
			t.Errorf("eve got a mail: %s", m.to)
		}
	}
}

// A password goes over TLS or nowhere, and only to a server that is trusted.
func TestMailDemandsTLS(t *testing.T) {
	for name, smtp := range map[string]*smtpServer{"no TLS": newSMTP(t, false), "not trusted": newSMTP(t, true)} {
		t.Run(name, func(t *testing.T) {
			smtp.roots = x509.NewCertPool()
			w := newWorld(t, smtp.option(func(m *notify.Mail) { m.Username, m.Password = "sally", "open sesame" }))
			r := w.asked("frontend", "x")
			eventually(t, "the delivery to be given up", func() bool { return w.delivered(r.ID, "mail", notify.DeliveryFailed) > 0 })
			if auth := smtp.signedIn(); len(smtp.sent()) > 0 || auth != "" {
				t.Errorf("got %v, auth %q", smtp.sent(), auth)
			}
		})
	}
}

// A mail server that refuses everybody for good is asked once for each of them.
func TestMailRefused(t *testing.T) {
	smtp := newSMTP(t, true)
	smtp.refuse = "550 no such user"
	w := newWorld(t, smtp.option(nil))
	r := w.asked("frontend", "x")
	eventually(t, "bob's and dave's to be given up", func() bool { return w.delivered(r.ID, "mail", notify.DeliveryFailed) == 2 })
	time.Sleep(100 * time.Millisecond)
	all, err := w.store.Deliveries(t.Context(), r.ID)
	w.must(err)
	if len(all) != 3 { // the step, and what it told
		t.Errorf("%d deliveries, want 3: %+v", len(all), all)
	}
	for _, d := range all {
		if d.Lane == "mail" && d.Step != notify.LastStep {
			t.Errorf("told %s in step %d, want %d", d.To, d.Step, notify.LastStep)
		}
	}
}

// delivered counts the deliveries of a request in a lane that are in a state.
func (w *world) delivered(id, lane string, s notify.DeliveryState) (n int) {
	w.t.Helper()
	all, err := w.store.Deliveries(w.t.Context(), id)
	w.must(err)
	for _, d := range all {
		if d.Lane == lane && d.State == s {
			n++
		}
	}
	return n
}
