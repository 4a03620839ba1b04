package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"sallyport.dev/client"
	"sallyport.dev/internal/readalong"
)

// accessServer answers for one flow and the requests under it, as the server does.
type accessServer struct {
	t   *testing.T
	url string

	mu       sync.Mutex
	flows    []client.AccessFlow
	requests []*client.AccessRequest
	changed  chan struct{}
	refuse   bool // starting sessions, whatever was granted
	started  int
	calls    []string // operations with their bodies
}

var frontendFlow = client.AccessFlow{
	Name: "frontend", Label: "Front-end access",
	Fields: []client.AccessField{
		{Name: "reason", Label: "Reason", Type: "string", Required: true, Pattern: ".{4,}", Message: "say a little more"},
		{Name: "duration", Label: "Duration", Type: "duration", Default: []string{"30m"}, Allowed: []string{"30m", "1h"}},
	},
	Targets: []client.AccessTarget{{Name: "role", Kind: "role", Gives: "role FrontEndSSHAccess"}},
}

var nodesFlow = client.AccessFlow{
	Name: "database",
	Fields: []client.AccessField{
		{Name: "reason", Type: "string", Required: true},
		{Name: "ticket", Type: "string", Required: true, Pattern: "OPS-[0-9]+", Message: "want a ticket such as OPS-12"},
		{Name: "areas", Type: "str_list", Allowed: []string{"reads", "writes"}},
		{Name: "count", Type: "int"},
	},
	Targets: []client.AccessTarget{{Name: "db", Kind: "nodes", Gives: "nodes with Team=payments"}, {Name: "logs", Kind: "group", Gives: "group logs"}},
}

func newAccessServer(t *testing.T, flows ...client.AccessFlow) *accessServer {
	s := &accessServer{t: t, flows: flows, changed: make(chan struct{})}
	s.url = serve(t, s)
	return s
}

// serve starts a server, with credentials for it in the environment, and returns its URL.
func serve(t *testing.T, h http.Handler) (url string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true"} {
		t.Setenv(name, value)
	}
	return server.URL
}

func (s *accessServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/stream/") {
		stream(w, r)
		return
	}
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.calls = append(s.calls, operation+" "+string(body))
	s.mu.Unlock()
	out, err := s.answer(r.Context(), r.Host, operation, body)
	if err != nil {
		code, message, _ := strings.Cut(err.Error(), " ")
		refuse(w, code, message)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	json.NewEncoder(w).Encode(out)
}

func (s *accessServer) answer(ctx context.Context, host, operation string, body []byte) (any, error) {
	switch operation {
	case "ListNodes":
		no := false
		return client.ListNodesOutput{Nodes: []client.Node{{NodeID: "i-060ee0879f3ec4eb7", Name: "frontend-1", State: "connected", MayConnect: &no, MayAsk: true}}}, nil
	case "ListFlows":
		return client.ListFlowsOutput{Flows: s.flows}, nil
	case "GetAccessRequest":
		var in client.GetAccessRequestInput
		json.Unmarshal(body, &in)
		return s.get(ctx, in)
	case "StartSession":
		return s.start(host)
	case "ListAccessRequests":
		return s.list(body), nil
	case "RequestAccess":
		return s.ask(body)
	case "ApproveRequest", "DenyRequest":
		return s.decide(operation, body)
	case "TerminateSession":
		return map[string]string{}, nil
	}
	return s.step(operation, body)
}

func (s *accessServer) start(host string) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r.State == stateActive && !s.refuse {
			s.started++
			return map[string]string{"SessionId": "carol-0a", "TokenValue": "t", "StreamUrl": "ws://" + host + "/stream/exit"}, nil
		}
	}
	return nil, fmt.Errorf("AccessDeniedException User: arn:aws:iam::111111111111:user/carol is not authorized to perform: ssm:StartSession on resource: arn:aws:ec2:us-east-1:111111111111:instance/i-060ee0879f3ec4eb7 because no identity-based policy allows the ssm:StartSession action")
}

func (s *accessServer) ask(body []byte) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in client.RequestAccessInput
	json.Unmarshal(body, &in)
	r := &client.AccessRequest{
		RequestID: fmt.Sprintf("oi-%012x", 0xabc000+len(s.requests)), Revision: 1, State: statePending, Hash: strings.Repeat("ab", 32),
		Flow: in.Flow, Person: "carol", Principal: "arn:aws:iam::111111111111:user/carol", Reason: in.Reason, Values: in.Values,
		Seconds: max(in.Seconds, 1800), Channel: in.Channel, Created: client.Time{Time: time.Now()}, PendingUntil: client.Time{Time: time.Now().Add(time.Hour)},
		Stages: []client.AccessStage{{Approvals: 1, Deciders: "groups frontend, backend", People: []string{"alice", "bob"}}},
	}
	for _, f := range s.flows {
		for _, t := range f.Targets {
			if f.Name == in.Flow && (len(in.Targets) == 0 || strings.Contains(strings.Join(in.Targets, " "), t.Name)) {
				r.Targets = append(r.Targets, t)
			}
		}
	}
	for _, id := range in.NodeIDs {
		r.Nodes = append(r.Nodes, client.AccessNode{NodeID: id})
	}
	if !in.DryRun {
		s.requests = append(s.requests, r)
	}
	return *r, nil
}

func (s *accessServer) find(id string) (*client.AccessRequest, error) {
	for _, r := range s.requests {
		if r.RequestID == id {
			return r, nil
		}
	}
	return nil, fmt.Errorf("DoesNotExistException There is no request %s.", id)
}

func (s *accessServer) get(ctx context.Context, in client.GetAccessRequestInput) (any, error) {
	for {
		s.mu.Lock()
		r, err := s.find(in.RequestID)
		changed := s.changed
		if err != nil || r.Revision > in.After || in.Wait == 0 {
			defer s.mu.Unlock()
			if err != nil {
				return nil, err
			}
			return *r, nil
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *accessServer) list(body []byte) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in client.ListAccessRequestsInput
	json.Unmarshal(body, &in)
	out := client.ListAccessRequestsOutput{Requests: []client.AccessRequest{}}
	for _, r := range s.requests {
		if in.ToDecide {
			in.States = []string{statePending}
		}
		if len(in.States) == 0 || strings.Contains(strings.Join(in.States, " "), r.State) {
			listed := *r
			listed.Stages = slices.Clone(r.Stages)
			for i := range listed.Stages {
				listed.Stages[i].People = nil // as the server's lists, which name nobody
			}
			out.Requests = append(out.Requests, listed)
		}
	}
	return out
}

// change changes a request and tells who waits.
func (s *accessServer) change(r *client.AccessRequest, f func()) {
	f()
	r.Revision++
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *accessServer) decide(operation string, body []byte) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in client.DecideInput
	json.Unmarshal(body, &in)
	r, err := s.find(in.RequestID)
	if err != nil {
		return nil, err
	}
	if in.Hash != r.Hash {
		return nil, fmt.Errorf("ValidationException the request is not the one that was decided on")
	}
	s.change(r, func() {
		r.Decisions = append(r.Decisions, client.AccessDecision{Approve: operation == "ApproveRequest", By: "bob", Comment: in.Comment, Channel: "cli"})
		r.State = map[bool]string{true: stateActive, false: "Denied"}[operation == "ApproveRequest"]
		r.EndsAt = client.Time{Time: time.Now().Add(time.Duration(r.Seconds) * time.Second)}
		if operation == "DenyRequest" {
			r.Because = in.Comment
		}
	})
	return *r, nil
}

func (s *accessServer) step(operation string, body []byte) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in client.StepInput
	json.Unmarshal(body, &in)
	r, err := s.find(in.RequestID)
	if err != nil {
		return nil, err
	}
	s.change(r, func() {
		switch operation {
		case client.ReleaseRequest:
			r.State = "Released"
		case client.RevokeRequest:
			r.State, r.Because = "Revoked", in.Reason
		case client.CancelRequest:
			r.State = "Cancelled"
		case client.ExtendRequest:
			r.EndsAt = client.Time{Time: r.EndsAt.Add(time.Duration(in.Seconds) * time.Second)}
		}
	})
	return *r, nil
}

// approveNext approves, or denies, the request that comes.
func (s *accessServer) approveNext(approve bool) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		for _, r := range s.requests {
			if r.State == statePending {
				id, hash := r.RequestID, r.Hash
				s.mu.Unlock()
				operation := map[bool]string{true: "ApproveRequest", false: "DenyRequest"}[approve]
				body, _ := json.Marshal(client.DecideInput{RequestID: id, Hash: hash, Comment: "because\x1b[2J"})
				if _, err := s.decide(operation, body); err != nil {
					s.t.Error(err)
				}
				return
			}
		}
		s.mu.Unlock()
		if time.Now().After(deadline) {
			s.t.Fatal("nothing was asked for")
		}
	}
}

// asked are the bodies of the calls of an operation.
func (s *accessServer) asked(operation string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var bodies []string
	for _, c := range s.calls {
		if name, body, _ := strings.Cut(c, " "); name == operation {
			bodies = append(bodies, body)
		}
	}
	return bodies
}

// program is one run of the command line against the server.
func (s *accessServer) program() (p *program, stdout *bytes.Buffer) {
	stdout = &bytes.Buffer{}
	null, err := os.Open(os.DevNull)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { null.Close() })
	folder := s.t.TempDir()
	p = &program{stdin: null, stdout: stdout, stderr: &bytes.Buffer{}, getenv: func(k string) string {
		return map[string]string{"XDG_STATE_HOME": folder, "XDG_CONFIG_HOME": folder}[k]
	}}
	return p, stdout
}

// run runs a command without a terminal.
func (s *accessServer) run(args ...string) (status int, stdout, stderr string) {
	p, out := s.program()
	status = p.run(s.t.Context(), append([]string{"--endpoint-url", s.url, "--region", "us-east-1"}, args...))
	return status, out.String(), p.stderr.(*bytes.Buffer).String()
}

// screen is a command on a terminal.
type screen struct {
	readalong.Text
	t        *testing.T
	terminal *os.File
	status   chan int
	stdout   *bytes.Buffer
	drained  chan struct{}
}

// onTerminal runs a command on a terminal of its own.
func (s *accessServer) onTerminal(args ...string) *screen {
	s.t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		s.t.Fatal(err)
	}
	pty.Setsize(master, &pty.Winsize{Cols: 120, Rows: 30})
	p, out := s.program()
	p.stdin, p.stderr = slave, slave
	c := &screen{t: s.t, terminal: master, status: make(chan int, 1), stdout: out, drained: make(chan struct{})}
	go func() {
		defer close(c.drained)
		io.Copy(c, master) // ends when both ends are closed
	}()
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.status <- p.run(ctx, append([]string{"--endpoint-url", s.url, "--region", "us-east-1"}, args...))
		slave.Close()
	}()
	s.t.Cleanup(func() {
		cancel()
		master.Close()
		<-ended
		<-c.drained
	})
	return c
}

// want waits until something is shown behind what was wanted before.
func (c *screen) want(pattern string) {
	c.t.Helper()
	if err := c.Await(regexp.MustCompile(pattern), 10*time.Second); err != nil {
		c.t.Fatal(err)
	}
}

func (c *screen) typed(text string) { io.WriteString(c.terminal, text) }

// ends waits for the exit status.
func (c *screen) ends(want int) {
	c.t.Helper()
	select {
	case got := <-c.status:
		if got != want {
			c.t.Errorf("got status %d, want %d; it showed %q", got, want, c.String())
		}
	case <-time.After(10 * time.Second):
		c.t.Fatalf("the command does not end; it showed %q", c.String())
	}
}
