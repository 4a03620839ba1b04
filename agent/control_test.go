package agent

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// TestReconnect drops the control channel: the agent is back within moments, a
// session goes on, and an end that was not acknowledged is reported again.
func TestReconnect(t *testing.T) {
	g := newGateway(t)
	run(t, g.config())
	c := g.control()
	c.start(wire.StartSession{SessionID: "s", DataChannelToken: "given"})
	p := g.attach("s")
	p.expect("$ ")
	began := time.Now()
	c.conn.Close()
	c = g.rawControl()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("reconnecting took %v", took)
	}
	c.noAck = true
	go c.serve()
	p.typed("exit 4\n")
	first := c.completed("s")
	c.conn.Abort()
	c = g.control()
	again := c.completed("s")
	if first.ExitStatus == nil || again.ExitStatus == nil || *again.ExitStatus != 4 || again.RetryNumber <= first.RetryNumber {
		t.Errorf("got %+v, then %+v, want exit status 4 twice", first, again)
	}
}

func TestReportTries(t *testing.T) {
	now := time.Unix(1000, 0)
	o := newOutbox(func() time.Time { return now })
	o.add("x", func(try int) any { return try })
	var sent []string
	for range 10 {
		m, _ := o.next()
		if m != nil {
			sent = append(sent, string(m.Payload))
		}
		now = now.Add(reportEvery)
	}
	o.relink()
	m, _ := o.next()
	sent = append(sent, string(m.Payload))
	if got := strings.Join(sent, " "); got != "1 2 3 4" {
		t.Errorf("got tries %s, want 1 2 3, and 4 on a new connection", got)
	}
	o.acknowledged(m.ID.String())
	if !o.empty() {
		t.Error("an acknowledged report is kept")
	}
	for i := range maxReports + 10 {
		o.add("x", func(int) any { return i })
	}
	if len(o.reports) != maxReports {
		t.Errorf("got %d reports waiting, want %d", len(o.reports), maxReports)
	}
}

func TestDuplicates(t *testing.T) {
	g, c, p := shellSession(t, "twice")
	c.start(wire.StartSession{SessionID: "twice", DataChannelToken: "given"})
	p.typed("echo still=$((2+2))\n")
	p.expect("still=4")
	p.typed("exit\n")
	c.completed("twice")
	c.start(wire.StartSession{SessionID: "twice", DataChannelToken: "given"})
	c.start(wire.StartSession{SessionID: "other", DataChannelToken: "given"})
	g.attach("other").expect("$ ")
	if got := len(g.openings["twice"]); got != 1 {
		t.Errorf("the repeated request opened %d channels, want 1", got)
	}
}

func TestSessionLimit(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	cfg.MaxSessions = 1
	a, _ := run(t, cfg)
	c := g.control()
	c.start(wire.StartSession{SessionID: "first", DataChannelToken: "given"})
	g.attach("first").expect("$ ")
	c.start(wire.StartSession{SessionID: "second", DataChannelToken: "given"})
	if tc := c.completed("second"); tc.FinalTaskStatus != "Failed" || !strings.Contains(tc.Output, "limit") {
		t.Errorf("got %+v, want Failed for the limit", tc)
	}
	c.terminate("first")
	c.completed("first")
	for limit := time.Now().Add(patience); a.sessions.count() > 0; time.Sleep(time.Millisecond) { // its processes
		if time.Now().After(limit) {
			t.Fatal("the first session is still there")
		}
	}
	c.start(wire.StartSession{SessionID: "third", DataChannelToken: "given"})
	g.attach("third").expect("$ ")
}

// TestRefusedSessions sends requests that cannot be served: each fails with a reason,
// none in silence.
func TestRefusedSessions(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	cfg.Shell.Program = "/nonexistent/shell"
	run(t, cfg)
	c := g.control()
	for i, tt := range []struct{ document, want string }{
		{`[]`, "invalid session document"},
		{`{"schemaVersion":"2.2"}`, "schema version"},
		{`{"schemaVersion":"1.0","sessionType":"Dance"}`, `"Dance" is not supported`},
		{`{"schemaVersion":"1.0","sessionType":"Port"}`, "Port number is empty"},
		{`{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":80}}`, "invalid format"},
		{`{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":"80","host":"169.254.169.254"}}`, "Forwarding to IP address 169.254.169.254 is forbidden."},
		{`{"schemaVersion":"1.0","sessionType":"Port","properties":{"unixSocket":"/run/../run/x"}}`, "not a plain absolute path"},
		{`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"runAsEnabled":"maybe"}}`, "neither true nor false"},
		{`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"runAsEnabled":true}}`, "RunAs default user"},
		{`{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"runAsEnabled":"true","runAsDefaultUser":"root"}}`, "cannot run as root"},
		{`{"schemaVersion":"1.0","sessionType":"Standard_Stream"}`, "no such file"},
		{`{"schemaVersion":"1.0","sessionType":"InteractiveCommands","properties":{"linux":{"commands":" "}}}`, "commands cannot be empty"},
		{`{"schemaVersion":"1.0","sessionType":"InteractiveCommands","properties":{"linux":{"commands":"true","runAsElevated":"yes"}}}`, "invalid format"},
		{`{"schemaVersion":"1.0","sessionType":"InteractiveCommands","parameters":{"command":{"type":"String"}},"properties":{"linux":{"commands":"{{ command }}"}}}`, "has no value"},
		{`{"schemaVersion":"1.0","sessionType":"InteractiveCommands","parameters":{"c":{"default":"a;b","allowedPattern":"^[a-z]$"}},"properties":{"linux":{"commands":"{{ c }}"}}}`, "does not match"},
	} {
		id := fmt.Sprintf("refused-%d", i)
		c.start(wire.StartSession{SessionID: id, DataChannelToken: "given", DocumentContent: json.RawMessage(tt.document)})
		if tc := c.completed(id); tc.FinalTaskStatus != "Failed" || !strings.Contains(tc.Output, tt.want) {
			t.Errorf("%s: got %s %q, want Failed with %q", tt.document, tc.FinalTaskStatus, tc.Output, tt.want)
		}
	}
}

// TestHostileServer sends what no server should; the agent carries on.
func TestHostileServer(t *testing.T) {
	g := newGateway(t)
	run(t, g.config())
	c := g.control()
	for _, id := range []string{"../../v1/control-channel/x", "a/b", "..", ".", "", "a b", "a\x00b", "a?x=1", "a#b", strings.Repeat("a", 200)} {
		c.start(wire.StartSession{SessionID: id, DataChannelToken: "given"})
	}
	for _, b := range [][]byte{nil, {1}, make([]byte, 119), make([]byte, 120), []byte(strings.Repeat("\xff", 300))} {
		c.conn.Write(websocket.Binary, b)
		c.conn.Write(websocket.Text, b)
	}
	for _, typ := range []string{
		wire.TypeInteractiveShell, wire.TypeAgentJob, wire.TypeChannelClosed, wire.TypeAgentTaskAcknowledge,
		wire.TypeAgentJobReplyAck, "no_such_type", wire.TypeInputStreamData,
	} {
		for _, payload := range []string{"", "{", "null", "[]", `{"Content":5}`, `{"Content":"{"}`, `{"MessageId":"x","SessionId":7}`} {
			c.write(wire.New(typ, time.Now(), []byte(payload)))
		}
	}
	c.start(wire.StartSession{SessionID: "fine", DataChannelToken: "given"})
	p := g.attach("fine")
	p.size(80, 24)
	p.expect("$ ")
	for _, payload := range []string{"", "{", `{"cols":-1,"rows":5}`, `{"cols":0,"rows":0}`, `{"cols":4000000000,"rows":70000}`} {
		p.send(wire.PayloadSize, []byte(payload))
	}
	for pt := range wire.PayloadType(20) {
		if pt != wire.PayloadOutput && pt != wire.PayloadHandshakeResponse {
			p.send(pt, []byte("\x00\x00\x00\x02"))
		}
	}
	far := wire.NewStream(wire.TypeInputStreamData, 1<<62, wire.PayloadOutput, time.Now(), []byte("far"))
	p.conn.Write(websocket.Binary, far.Encode())
	p.conn.Write(websocket.Binary, wire.New(wire.TypeAcknowledge, time.Now(), []byte(`{"AcknowledgedMessageSequenceNumber":-1}`)).Encode())
	p.conn.Write(websocket.Binary, wire.New(wire.TypeChannelClosed, time.Now(), []byte(`{`)).Encode())
	p.typed("echo alive=$((3+4))\n")
	p.expect("alive=7")
	if len(g.data) != 1 {
		t.Errorf("channels were opened for %d sessions, want 1", len(g.data))
	}
	// An oversized message ends that connection and nothing else.
	p.conn.Write(websocket.Binary, make([]byte, wire.MaxMessage+1))
	<-p.ended
	p.reattach()
	p.typed("echo again=$((3+5))\n")
	p.expect("again=8")
	c.conn.Write(websocket.Binary, make([]byte, wire.MaxMessage+1))
	<-c.gone
	g.control()
}

// TestHostileRegistration has the server choose an id that would lead elsewhere.
func TestHostileRegistration(t *testing.T) {
	srv := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`{"InstanceId":"../../etc"}`))
	})
	g := newGateway(t)
	g.srv.Config.Handler = srv
	a, err := New(g.config())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Register(t.Context()); err == nil || !strings.Contains(err.Error(), "not usable") {
		t.Errorf("got %v, want a refusal", err)
	}
}

// TestServersInTurn gives a dead server first.
func TestServersInTurn(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	cfg.Servers = append([]string{"https://127.0.0.1:1"}, cfg.Servers...)
	run(t, cfg)
	g.control()
}

func TestPin(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	cfg.CAFile = ""
	cfg.CASHA256 = strings.Repeat("0", 64)
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Register(t.Context()); err == nil || !strings.Contains(err.Error(), "ca_sha256") {
		t.Errorf("wrong pin: got %v, want a refusal", err)
	}
	cert := g.srv.Certificate()
	for name, der := range map[string][]byte{"certificate": cert.Raw, "public key": cert.RawSubjectPublicKeyInfo} {
		sum := sha256.Sum256(der)
		cfg := g.config()
		cfg.CAFile, cfg.CASHA256 = "", "sha256:"+hex.EncodeToString(sum[:])
		a, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Register(t.Context()); err != nil {
			t.Errorf("pin of the %s: %v", name, err)
		}
	}
	// The pin does not make the name go unchecked.
	chain := []*x509.Certificate{cert}
	sum := sha256.Sum256(cert.Raw)
	if err := verifyPinned(chain, "other.example", sum[:]); err == nil {
		t.Error("a certificate for another name was accepted")
	}
}

// TestWrongCA is a man in the middle with a certificate of his own.
func TestWrongCA(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	cfg.CAFile = ""
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Register(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want an untrusted certificate", err)
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{min: minBackoff, max: maxBackoff}
	for i := range 50 {
		d := b.next()
		if d < minBackoff || d > maxBackoff {
			t.Errorf("wait %d is %v, want between %v and %v", i, d, minBackoff, maxBackoff)
		}
		if i == 0 && d > 5*minBackoff {
			t.Errorf("first wait is %v, want at most %v", d, 5*minBackoff)
		}
	}
}

func TestSameMachine(t *testing.T) {
	base := machine{ID: "m", Product: "p", Hostname: "h", MACs: []string{"a", "b"}}
	for _, tt := range []struct {
		name string
		now  machine
		want bool
	}{
		{"unchanged", base, true},
		{"renamed, other card", machine{ID: "m", Product: "p", Hostname: "x", MACs: []string{"c"}}, true},
		{"other machine id", machine{ID: "n", Product: "p", Hostname: "h", MACs: []string{"a"}}, false},
		{"other firmware", machine{ID: "m", Product: "q", Hostname: "h", MACs: []string{"a"}}, false},
		{"firmware unreadable", machine{ID: "m", Hostname: "x", MACs: []string{"b"}}, true},
		{"firmware unreadable, other cards and name", machine{ID: "m", Hostname: "x", MACs: []string{"c"}}, false},
		{"firmware unreadable, other cards", machine{ID: "m", Hostname: "h", MACs: []string{"c"}}, true},
		{"no cards", machine{ID: "m", Hostname: "x"}, true},
	} {
		if got := base.same(tt.now); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func FuzzReadPlan(f *testing.F) {
	f.Add(testDocument, `{"command":"x"}`)
	f.Add(`{"schemaVersion":"1.0","sessionType":"InteractiveCommands","parameters":{"c":{"allowedPattern":"("}},"properties":{"linux":{"commands":["{{c}}"]}}}`, `{"c":["x"]}`)
	f.Fuzz(func(t *testing.T, document, parameters string) {
		var given map[string]json.RawMessage
		if json.Unmarshal([]byte(parameters), &given) != nil {
			return
		}
		p, err := readPlan(wire.StartSession{DocumentContent: json.RawMessage(document), Parameters: given})
		if err == nil && p.sessionType != typeShell && p.commands == "" {
			t.Error("a plan without commands")
		}
	})
}

func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}
