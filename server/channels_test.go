package server

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/internal/seal"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/recording"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// alone is the routing of a member whose others, if any, do not answer.
type alone struct {
	mu       sync.Mutex
	handlers map[string]func(context.Context, []byte) ([]byte, error)
	members  []session.Member
}

func (a *alone) Member() string                              { return "m1" }
func (a *alone) Members() []session.Member                   { return a.members }
func (a *alone) Broadcast(string, []byte) error              { return nil }
func (a *alone) Listen(string, func([]byte)) (func(), error) { return func() {}, nil }

func (a *alone) Serve(subject string, h func(context.Context, []byte) ([]byte, error)) (func(), error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handlers[subject] = h
	return func() { a.mu.Lock(); defer a.mu.Unlock(); delete(a.handlers, subject) }, nil
}

func (a *alone) Request(ctx context.Context, subject string, data []byte) ([]byte, error) {
	a.mu.Lock()
	h := a.handlers[subject]
	a.mu.Unlock()
	if h == nil {
		return nil, session.ErrNoResponder
	}
	return h(ctx, data)
}

// relayed is a harness with a gateway whose recordings go nowhere.
type relayed struct {
	*harness
	gateway *session.Gateway
	routing *alone
}

func newRelayed(t *testing.T, changes ...func(*Config)) *relayed {
	t.Helper()
	r := &relayed{routing: &alone{
		handlers: map[string]func(context.Context, []byte) ([]byte, error){}, members: []session.Member{{ID: "m1"}},
	}}
	r.harness = newHarness(t, append(changes, func(c *Config) {
		var err error
		r.gateway, err = session.New(t.Context(), session.Config{
			Store: c.Sessions, Nodes: c.Nodes, Cluster: r.routing, Key: c.Sealer.(*seal.Key), Audit: c.Audit,
			Logger: slog.New(slog.DiscardHandler), Record: recordNothing, CloseHold: 10 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Gateway = r.gateway
	})...)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		_ = r.gateway.Close(ctx) // nobody is there any more to end sessions with
	})
	return r
}

// nodeCredentials are temporary credentials of a node, as its agent has them.
func (r *relayed) nodeCredentials(id string) identity.Credentials {
	r.t.Helper()
	n, err := r.store.Node(context.Background(), id)
	r.must(err)
	c, err := r.server.issuer.Issue(identity.Claims{
		Kind: identity.KindNode, Name: id, ID: registrationOf(n), IssuedAt: r.clock(), ExpiresAt: r.clock().Add(time.Hour),
	})
	r.must(err)
	return c
}

// post asks for a channel token as agents do.
func (r *relayed) post(c identity.Credentials, path string) answer {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodPost, r.http.URL+path, strings.NewReader(`{"MessageSchemaVersion":"1.0","RequestId":"r"}`))
	r.must(err)
	req.Header.Set("Content-Type", "application/json")
	return r.send(r.signedFor(c, "ssmmessages", req))
}

func (r *relayed) token(c identity.Credentials, path string) string {
	r.t.Helper()
	got := r.post(c, path)
	if got.status != http.StatusCreated {
		r.t.Fatalf("POST %s: got %d %s, want 201", path, got.status, got.body)
	}
	var result wire.CreateChannelResult
	r.must(xml.Unmarshal([]byte(got.body), &result))
	return result.TokenValue
}

// dial opens a websocket; without credentials the request is not signed.
func (r *relayed) dial(c identity.Credentials, path string) (*websocket.Conn, error) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodGet, r.http.URL+path, nil)
	r.must(err)
	if c.AccessKeyID != "" {
		r.signedFor(c, "ssmmessages", req)
	}
	return websocket.Dial(r.t.Context(), req.URL.String(), websocket.DialOptions{Header: req.Header})
}

func (r *relayed) open(c identity.Credentials, path string, opening wire.Opening) *websocket.Conn {
	r.t.Helper()
	conn, err := r.dial(c, path)
	r.must(err)
	r.t.Cleanup(conn.Abort)
	b, err := json.Marshal(opening)
	r.must(err)
	r.must(conn.Write(websocket.Text, b))
	return conn
}

// connect opens a node's control channel and waits until the node counts as connected.
func (r *relayed) connect(id string) (identity.Credentials, *websocket.Conn) {
	r.t.Helper()
	c := r.nodeCredentials(id)
	path := "/v1/control-channel/" + id
	conn := r.open(c, path+"?role=subscribe&stream=input", wire.Opening{TokenValue: r.token(c, path), AgentVersion: "3.3.0.0"})
	r.eventually("node connects", func() bool {
		n, err := r.store.Node(context.Background(), id)
		return err == nil && n.Member == "m1"
	})
	return c, conn
}

func (r *relayed) eventually(what string, cond func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// read returns the next message of a type.
func (r *relayed) read(conn *websocket.Conn, typ string) *wire.Message {
	r.t.Helper()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		_, data, err := conn.Read()
		if err != nil {
			r.t.Fatalf("waiting for %s: %v", typ, err)
		}
		m, err := wire.Decode(data)
		r.must(err)
		if m.Type == typ {
			return m
		}
	}
}

const (
	channelNode = "i-060ee0879f3ec4eb7"
	otherNode   = "i-05b7516a19f826be9"
)

func TestSessionOverTheChannels(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, identity.Tags{"Name": "frontend-1"})
	alice := r.user("alice", nil, allowAll)
	agent, control := r.connect(channelNode)

	got := r.json(alice, "AmazonSSM.StartSession", map[string]any{"Target": channelNode, "Reason": "a test"})
	if got.status != http.StatusOK {
		t.Fatalf("StartSession: %d %s", got.status, got.body)
	}
	var started sessionOutput
	r.must(json.Unmarshal([]byte(got.body), &started))
	if !strings.HasPrefix(started.SessionID, "alice-") || len(started.TokenValue) > 300 {
		t.Errorf("got session %q with a token of %d characters", started.SessionID, len(started.TokenValue))
	}
	wantURL := strings.Replace(r.http.URL, "http", "ws", 1) + "/v1/data-channel/" + started.SessionID + "?role=publish_subscribe"
	if started.StreamURL != wantURL {
		t.Errorf("StreamUrl: got %q, want %q", started.StreamURL, wantURL)
	}
	task := r.read(control, wire.TypeInteractiveShell)
	if !strings.Contains(string(task.Payload), started.SessionID) || !strings.Contains(string(task.Payload), "Standard_Stream") {
		t.Errorf("interactive_shell: got %s", task.Payload)
	}

	path := "/v1/data-channel/" + started.SessionID
	data := r.open(agent, path+"?role=publish_subscribe", wire.Opening{TokenValue: r.token(agent, path), ClientInstanceID: channelNode})
	client := r.open(identity.Credentials{}, path+"?role=publish_subscribe", wire.Opening{TokenValue: started.TokenValue})
	sent := wire.NewStream(wire.TypeOutputStreamData, 0, wire.PayloadOutput, time.Now(), []byte("$ "))
	r.must(data.Write(websocket.Binary, sent.Encode()))
	if m := r.read(client, wire.TypeOutputStreamData); string(m.Payload) != "$ " || m.ID != sent.ID {
		t.Errorf("client got %q of message %s", m.Payload, m.ID)
	}
	r.describes(alice, "Active", started.SessionID, "Connected")

	if got := r.json(alice, "AmazonSSM.TerminateSession", map[string]any{"SessionId": started.SessionID}); got.status != http.StatusOK || !strings.Contains(got.body, started.SessionID) {
		t.Fatalf("TerminateSession: %d %s", got.status, got.body)
	}
	r.read(client, wire.TypeChannelClosed)
	r.read(data, wire.TypeChannelClosed)
	client.Abort()
	data.Abort()
	r.describes(alice, "History", started.SessionID, "Terminated")

	got = r.json(alice, "AmazonSSM.ResumeSession", map[string]any{"SessionId": started.SessionID})
	var resumed sessionOutput
	r.must(json.Unmarshal([]byte(got.body), &resumed))
	if got.status != http.StatusOK {
		t.Fatalf("ResumeSession of an ended session: %d %s", got.status, got.body)
	}
	late := r.open(identity.Credentials{}, path+"?role=publish_subscribe", wire.Opening{TokenValue: resumed.TokenValue})
	if m := r.read(late, wire.TypeChannelClosed); !strings.Contains(string(m.Payload), "erminated") {
		t.Errorf("channel of an ended session: got %s, want the reason", m.Payload)
	}
	late.Abort()
	if got := r.post(agent, path); got.status != http.StatusBadRequest || !strings.Contains(got.body, "Session is already terminated") {
		t.Errorf("POST for an ended session: got %d %s", got.status, got.body)
	}
}

// describes waits until DescribeSessions shows a session in a state.
func (r *relayed) describes(c identity.Credentials, state, id, status string) {
	r.t.Helper()
	var last string
	r.eventually(state+" session "+status+": "+last, func() bool {
		got := r.json(c, "AmazonSSM.DescribeSessions", map[string]any{
			"State": state, "Filters": []map[string]string{{"key": "SessionId", "value": id}, {"key": "Status", "value": status}},
		})
		last = got.body
		return got.status == http.StatusOK && strings.Contains(got.body, id)
	})
}

func TestStartSessionRefusals(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, identity.Tags{"Team": "payments"})
	r.node(otherNode, identity.Tags{"Team": "search"})
	admin := r.user("admin", nil, allowAll)
	alice := r.user("alice", identity.Tags{"Team": "payments"}, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"}}}]}`)
	for _, test := range []struct {
		name          string
		as            identity.Credentials
		in            map[string]any
		code, message string
	}{
		{"not allowed", alice, map[string]any{"Target": otherNode}, "AccessDeniedException",
			"User: arn:aws:iam::111111111111:user/alice is not authorized to perform: ssm:StartSession on resource: arn:aws:ec2:us-east-1:111111111111:instance/" + otherNode + " because no identity-based policy allows the ssm:StartSession action"},
		{"unknown node, not allowed", alice, map[string]any{"Target": "i-0123456789abcdef0"}, "AccessDeniedException", "instance/i-0123456789abcdef0"},
		{"unknown node", admin, map[string]any{"Target": "i-0123456789abcdef0"}, "TargetNotConnected", "i-0123456789abcdef0 is not connected."},
		{"not connected", alice, map[string]any{"Target": channelNode}, "TargetNotConnected", channelNode + " is not connected."},
		{"unknown document", admin, map[string]any{"Target": channelNode, "DocumentName": "Nothing-Here"}, "InvalidDocument", "Nothing-Here does not exist"},
		{"unknown parameter", admin, map[string]any{"Target": channelNode, "Parameters": map[string][]string{"x": {"1"}}}, "InvalidParameters", "x"},
		{"bad port", admin, map[string]any{"Target": channelNode, "DocumentName": "AWS-StartPortForwardingSession", "Parameters": map[string][]string{"portNumber": {"x"}}}, "InvalidParameters", "portNumber"},
		{"no target", admin, map[string]any{}, "ValidationException", "target"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := r.json(test.as, "AmazonSSM.StartSession", test.in)
			if got.code() != test.code || !strings.Contains(got.message(), test.message) {
				t.Errorf("got %s %q, want %s with %q", got.code(), got.message(), test.code, test.message)
			}
		})
	}
}

// People may resume and end their own sessions by the session's system tags, or by
// the name that its id begins with, and nobody else's.
func TestOwnSessions(t *testing.T) {
	byTag := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ssm:TerminateSession","ssm:ResumeSession"],"Resource":"*",
		"Condition":{"StringLike":{"ssm:resourceTag/aws:ssmmessages:session-id":["${aws:userid}"]}}}]}`
	byName := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ssm:TerminateSession","ssm:ResumeSession"],
		"Resource":"arn:aws:ssm:*:*:session/${aws:username}-*"}]}`
	r := newRelayed(t)
	r.node(channelNode, nil)
	alice, bob := r.user("alice", nil, byTag), r.user("bob", nil, byName)
	for _, owner := range []string{"alice", "bob"} {
		u, err := r.store.User(context.Background(), owner)
		r.must(err)
		r.must(r.store.CreateSession(context.Background(), session.Session{
			ID: owner + "-0123456789abcdef0", NodeID: channelNode, Owner: testRealm.IAM("user", "/", owner), OwnerID: u.ID,
			State: session.StateConnected, Started: r.clock(), Member: "m1",
		}))
	}
	for _, test := range []struct {
		as      identity.Credentials
		id      string
		allowed bool
	}{
		{alice, "bob-0123456789abcdef0", false},
		{bob, "alice-0123456789abcdef0", false},
		{alice, "alice-0123456789abcdef0", true},
		{bob, "bob-0123456789abcdef0", true},
		{alice, "nobody-0123456789abcdef0", false},
		{bob, "bob-ffffffffffffffff0", true}, // never was: no error, as AWS has it
	} {
		for _, operation := range []string{"ResumeSession", "TerminateSession"} {
			got := r.json(test.as, "AmazonSSM."+operation, map[string]any{"SessionId": test.id})
			want := ""
			switch {
			case !test.allowed:
				want = "AccessDeniedException"
			case operation == "ResumeSession" && strings.Contains(test.id, "ffff"):
				want = "DoesNotExistException"
			}
			if got.code() != want {
				t.Errorf("%s of %s: got %d %s, want code %q", operation, test.id, got.status, got.body, want)
			}
		}
	}
}

func TestConnectionStatus(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, nil)
	admin := r.user("admin", nil, allowAll)
	status := func(target string) string {
		return r.json(admin, "AmazonSSM.GetConnectionStatus", map[string]any{"Target": target}).body
	}
	for _, target := range []string{channelNode, "i-0123456789abcdef0", "no such thing"} {
		if got := status(target); !strings.Contains(got, `"notconnected"`) {
			t.Errorf("%s: got %s, want notconnected", target, got)
		}
	}
	_, control := r.connect(channelNode)
	if got := status(channelNode); !strings.Contains(got, `"connected"`) {
		t.Errorf("got %s, want connected", got)
	}
	control.Abort()
	r.eventually("node is gone", func() bool { return strings.Contains(status(channelNode), `"notconnected"`) })
}

func TestDeregisteredNodeLosesItsChannel(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, nil)
	admin := r.user("admin", nil, allowAll)
	c, control := r.connect(channelNode)
	if got := r.json(admin, "AmazonSSM.DeregisterManagedInstance", map[string]any{"InstanceId": channelNode}); got.status != http.StatusOK {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	control.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, data, err := control.Read(); err == nil {
		t.Errorf("got %q, want the end", data)
	}
	if got := r.post(c, "/v1/control-channel/"+channelNode); got.status != http.StatusForbidden {
		t.Errorf("token for a deregistered node: got %d %s, want 403", got.status, got.body)
	}
}

func TestDisabledUserLosesSessions(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, nil)
	admin, alice := r.user("admin", nil, allowAll), r.user("alice", nil, allowAll)
	r.connect(channelNode)
	got := r.json(alice, "AmazonSSM.StartSession", map[string]any{"Target": channelNode})
	var started sessionOutput
	r.must(json.Unmarshal([]byte(got.body), &started))
	client := r.open(identity.Credentials{}, "/v1/data-channel/"+started.SessionID, wire.Opening{TokenValue: started.TokenValue})
	if got := r.json(admin, "Sallyport.DisableUser", map[string]any{"UserName": "alice"}); got.status != http.StatusOK {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if m := r.read(client, wire.TypeChannelClosed); !strings.Contains(string(m.Payload), "was disabled by") {
		t.Errorf("channel_closed: got %s", m.Payload)
	}
}

// Each is an attack on the channels.
func TestChannelsRefuse(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, nil)
	r.node(otherNode, nil)
	admin := r.user("admin", nil, allowAll)
	one, two := r.nodeCredentials(channelNode), r.nodeCredentials(otherNode)
	r.connect(channelNode)
	got := r.json(admin, "AmazonSSM.StartSession", map[string]any{"Target": channelNode})
	var started sessionOutput
	r.must(json.Unmarshal([]byte(got.body), &started))
	control, data := "/v1/control-channel/"+channelNode, "/v1/data-channel/"+started.SessionID
	forged := one
	forged.SecretAccessKey = "wrong" + forged.SecretAccessKey[5:]
	for _, test := range []struct {
		name string
		as   identity.Credentials
		path string
		want int
	}{
		{"another node's control channel", two, control, http.StatusForbidden},
		{"a user's control channel", admin, control, http.StatusForbidden},
		{"a forged signature", forged, control, http.StatusForbidden},
		{"another node's session", two, data, http.StatusBadRequest},
		{"a user as an agent", admin, data, http.StatusForbidden},
		{"a session that is not", one, "/v1/data-channel/nobody-0123456789abcdef0", http.StatusNotFound},
		{"a session with an absurd id", one, "/v1/data-channel/" + strings.Repeat("x", 200), http.StatusNotFound},
		{"an unknown path", one, "/v1/other/x", http.StatusNotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := r.post(test.as, test.path); got.status != test.want {
				t.Errorf("POST: got %d %s, want %d", got.status, got.body, test.want)
			}
			conn, err := r.dial(test.as, test.path)
			if err == nil && strings.Contains(test.path, "data-channel") && test.as == two {
				// The upgrade is allowed to any node; the token decides.
				conn.Abort()
				return
			}
			if err == nil {
				conn.Abort()
				t.Error("GET: got a channel, want a refusal")
			}
		})
	}
	t.Run("no signature", func(t *testing.T) {
		if conn, err := r.dial(identity.Credentials{}, control); err == nil {
			conn.Abort()
			t.Error("got a control channel, want a refusal")
		}
		resp, err := http.Post(r.http.URL+data, "application/json", strings.NewReader("{}"))
		r.must(err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("POST: got %d, want 403", resp.StatusCode)
		}
	})
	t.Run("no upgrade", func(t *testing.T) {
		resp, err := http.Get(r.http.URL + data)
		r.must(err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusUpgradeRequired {
			t.Errorf("got %d, want 426", resp.StatusCode)
		}
	})
	t.Run("signed for another service", func(t *testing.T) {
		req, err := http.NewRequest(http.MethodPost, r.http.URL+control, strings.NewReader("{}"))
		r.must(err)
		if got := r.send(r.signedFor(one, "ssm", req)); got.status != http.StatusForbidden {
			t.Errorf("got %d %s, want 403", got.status, got.body)
		}
	})
}

// A channel of a session whose home is another member is passed on with its host and
// its signature; a member that gets one passed on does not pass it further.
func TestChannelsArePassedToTheirHome(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, nil)
	var seen []string
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		seen = append(seen, req.Method+" "+req.Host+" "+req.URL.String()+" "+string(body))
		if req.Method == http.MethodPost {
			giveToken(w, "from home")
			return
		}
		conn, err := websocket.Upgrade(w, req, websocket.Options{})
		if err != nil {
			return
		}
		defer conn.Close()
		kind, data, err := conn.Read()
		if err == nil {
			_ = conn.Write(kind, append([]byte("home got "), data...))
		}
	}))
	defer home.Close()
	r.routing.members = append(r.routing.members, session.Member{ID: "m2", URL: home.URL})
	const id = "alice-0123456789abcdef0"
	r.must(r.store.CreateSession(context.Background(), session.Session{
		ID: id, NodeID: channelNode, State: session.StateConnected, Started: r.clock(), Member: "m2",
	}))
	path := "/v1/data-channel/" + id + "?role=publish_subscribe"
	if got := r.token(r.nodeCredentials(channelNode), path); got != "from home" {
		t.Errorf("token: got %q, want the home's", got)
	}
	conn := r.open(identity.Credentials{}, path, wire.Opening{TokenValue: "t"})
	if _, data, err := conn.Read(); err != nil || !strings.HasPrefix(string(data), "home got {") {
		t.Errorf("websocket: got %q, %v", data, err)
	}
	host := mustParse(t, r.http.URL).Host
	want := "POST " + host + " " + path + ` {"MessageSchemaVersion":"1.0","RequestId":"r"}`
	if len(seen) != 2 || seen[0] != want || seen[1] != "GET "+host+" "+path+" " {
		t.Errorf("home saw %q, want %q and the same GET", seen, want)
	}
	req, err := http.NewRequest(http.MethodPost, r.http.URL+path, strings.NewReader("{}"))
	r.must(err)
	req.Header.Set(hopHeader, "1")
	if got := r.send(req); got.status != http.StatusServiceUnavailable {
		t.Errorf("passed on twice: got %d, want 503", got.status)
	}
	home.Close()
	if got := r.post(r.nodeCredentials(channelNode), path); got.status != http.StatusBadGateway {
		t.Errorf("home is down: got %d, want 502", got.status)
	}
}

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// recordNothing is a recording store for tests that look at other things.
func recordNothing(_ context.Context, s session.Session, _ session.Options) (session.Recorder, string, error) {
	w, err := recording.NewWriter(io.Discard, recording.Header{Metadata: recording.Metadata{Started: s.Started}})
	return w, "2026/11/20/x.cast", err
}
