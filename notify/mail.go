package notify

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"net"
	"strings"

	"github.com/wneessen/go-mail"

	"sallyport.dev/internal/loopback"
)

// Mail is a server that takes mail by SMTP.
type Mail struct {
	Host string
	Port int    // 587 unless given; 465 is TLS from the beginning
	From string // a bare address
	// Username and Password are optional, and only sent over TLS.
	Username, Password string
	TLS                *tls.Config // optional: whom to trust
}

// mailer sends mail.
type mailer struct {
	*Service
	config Mail
	domain string // of ids
}

func newMailer(s *Service, c Mail) (*mailer, error) {
	if c.Port == 0 {
		c.Port = mail.DefaultPortTLS
	}
	switch {
	case c.Host == "":
		return nil, errors.New("smtp.host: missing")
	case c.Port < 1 || c.Port > 65535:
		return nil, fmt.Errorf("smtp.port: %d is not a port", c.Port)
	case !validAddress(c.From):
		return nil, fmt.Errorf("smtp.from: %q is not a mail address", c.From)
	case (c.Username == "") != (c.Password == ""):
		return nil, errors.New("smtp: username and password_file go together")
	}
	_, domain, _ := strings.Cut(c.From, "@")
	return &mailer{s, c, domain}, nil
}

// client connects for one message: requests are rare, and idle connections are closed by
// the other side anyway. The library leaves a connection open where STARTTLS or the login
// fails; hangUp closes it.
func (m *mailer) client() (c *mail.Client, hangUp func(), err error) {
	var conn net.Conn
	hangUp = func() {
		if conn != nil {
			conn.Close()
		}
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		var err error
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return conn, err
	}
	policy := mail.TLSMandatory
	if loopback.Is(m.config.Host) && m.config.Password == "" {
		policy = mail.TLSOpportunistic // what goes to this machine, nobody else reads
	}
	options := []mail.Option{mail.WithPort(m.config.Port), mail.WithTimeout(sendTime), mail.WithTLSPolicy(policy)}
	if m.config.TLS != nil {
		c := m.config.TLS.Clone()
		c.ServerName = m.config.Host
		options = append(options, mail.WithTLSConfig(c))
	}
	if m.config.Port == mail.DefaultPortSSL {
		options = append(options, mail.WithSSL()) // which dials by itself
	} else {
		options = append(options, mail.WithDialContextFunc(dial))
	}
	if m.config.Username != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthPlain), mail.WithUsername(m.config.Username), mail.WithPassword(m.config.Password))
	}
	c, err = mail.NewClient(m.config.Host, options...)
	return c, hangUp, err
}

// send implements sender.
func (m *mailer) send(ctx context.Context, d Delivery) error {
	if !validAddress(d.To) {
		return fmt.Errorf("%q is not a mail address: %w", d.To, errNever)
	}
	about, err := m.about(ctx, d)
	if err != nil {
		return err
	}
	msg, err := m.message(about, d)
	if err != nil {
		return errors.Join(err, errNever)
	}
	client, hangUp, err := m.client()
	if err != nil {
		return errors.Join(err, errNever)
	}
	defer hangUp()
	return mailError(client.DialAndSendWithContext(ctx, msg))
}

// mailError says of an error whether another try is worth it.
func mailError(err error) error {
	refused, network := (*mail.SendError)(nil), (net.Error)(nil)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &network):
	case errors.As(err, &refused) && !refused.IsTemp() && refused.ErrorCode() >= 500:
		return fmt.Errorf("%w: %w", err, errNever)
	}
	return err
}

// message renders a mail. Its id is that of the delivery, so that one which comes twice is
// one in most mailboxes, and all of a request make a thread.
func (m *mailer) message(about Message, d Delivery) (*mail.Msg, error) {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := msg.From(m.config.From); err != nil {
		return nil, err
	}
	if err := msg.To(d.To); err != nil {
		return nil, err
	}
	msg.Subject(mailSubject(about))
	msg.SetDateWithValue(m.Service.config.Now())
	msg.SetMessageIDWithValue(m.id(d.ID + " " + d.To))
	thread := "<" + m.id("thread "+d.Request) + ">"
	msg.SetGenHeader(mail.HeaderReferences, thread)
	msg.SetGenHeader(mail.HeaderInReplyTo, thread)
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetBodyString(mail.TypeTextPlain, mailText(about, d.What))
	var html strings.Builder
	if err := mailPage.Execute(&html, mailView{about, mailLead(about, d.What), facts(about)}); err != nil {
		return nil, err
	}
	msg.AddAlternativeString(mail.TypeTextHTML, html.String())
	return msg, nil
}

func (m *mailer) id(of string) string {
	sum := sha256.Sum256([]byte(of))
	return hex.EncodeToString(sum[:16]) + "@" + m.domain
}

// mailSubject is one line, which the library encodes; what could begin another header is
// no part of a line.
func mailSubject(m Message) string {
	return clip("["+m.ID+"] "+m.Headline+": "+m.State, 200)
}

// mailLead says why somebody gets a mail.
func mailLead(m Message, what string) string {
	switch what {
	case tellAsk, tellRemind:
		return "You may decide on this request."
	case tellNews:
		return newsText(m.Event.Kind, m)
	case tellReview:
		return "You may review this use of break-glass."
	}
	return sentence(m.Headline) + "."
}

func mailText(m Message, what string) string {
	b := strings.Builder{}
	b.WriteString(mailLead(m, what) + "\n\n")
	for _, f := range facts(m) {
		b.WriteString(f.name + ": " + f.value + "\n")
	}
	if m.URL != "" {
		b.WriteString("\n" + m.URL + "\n")
	}
	b.WriteString("\nIn a terminal: sallyport requests show " + m.ID + "\n")
	b.WriteString("This mail carries no right to decide: the page asks who you are.\nHash " + m.Hash + "\n")
	return b.String()
}

type mailView struct {
	Message
	Lead  string
	Facts []fact
}

// Name and Value let the template read a fact.
func (f fact) Name() string { return f.name }

// Value is the other half.
func (f fact) Value() string { return f.value }

var mailPage = template.Must(template.New("mail").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{.ID}}</title></head>
<body style="font-family: sans-serif; max-width: 40em">
<p><strong>{{.Lead}}</strong></p>
<table cellpadding="4">
{{range .Facts}}<tr><th align="left" valign="top">{{.Name}}</th><td>{{.Value}}</td></tr>
{{end}}</table>
{{if .URL}}<p><a href="{{.URL}}">Open the request</a></p>{{end}}
<p style="color: #666">This mail carries no right to decide: the page asks who you are.<br>Hash {{.Hash}}</p>
</body></html>
`))
