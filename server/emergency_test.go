package server

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

// breakable is an audit log that can be broken.
type breakable struct {
	access.Auditor
	broken atomic.Bool
}

func (b *breakable) Append(ctx context.Context, r audit.Record) (audit.Record, error) {
	if b.broken.Load() {
		return audit.Record{}, errors.New("disk is full")
	}
	return b.Auditor.Append(ctx, r)
}

// Where nothing can be audited, access can still be ended, by who may; nothing begins.
func TestEndingWithoutAudit(t *testing.T) {
	auditor := &breakable{}
	r := newRelayed(t, func(c *Config) { auditor.Auditor, c.Audit = c.Audit, auditor })
	r.node(channelNode, nil)
	admin, alice, eve := r.user("admin", nil, allowAll), r.user("alice", nil, allowAll), r.user("eve", nil)
	r.connect(channelNode)
	start := func() answer { return r.json(alice, "AmazonSSM.StartSession", map[string]any{"Target": channelNode}) }
	one, two := decodeInto[sessionOutput](t, start()), decodeInto[sessionOutput](t, start())
	open := func(s sessionOutput) func() {
		conn := r.open(identity.Credentials{}, "/v1/data-channel/"+s.SessionID, wire.Opening{TokenValue: s.TokenValue})
		return func() { r.read(conn, wire.TypeChannelClosed) }
	}
	closedOne, closedTwo := open(one), open(two)

	auditor.broken.Store(true)
	if got := start(); got.status != 500 {
		t.Errorf("starting: got %d %s", got.status, got.body)
	}
	if got := r.json(eve, "AmazonSSM.TerminateSession", map[string]any{"SessionId": one.SessionID}); got.status == 200 {
		t.Errorf("eve may end alice's session")
	}
	if got := r.json(admin, "AmazonSSM.TerminateSession", map[string]any{"SessionId": one.SessionID}); got.status != 200 {
		t.Errorf("terminating: got %d %s", got.status, got.body)
	}
	closedOne()
	if got := r.json(admin, "Sallyport.DisableUser", userInput{UserName: "alice"}); got.status != 200 {
		t.Errorf("disabling: got %d %s", got.status, got.body)
	}
	closedTwo()
	if got := r.json(admin, "Sallyport.EnableUser", userInput{UserName: "alice"}); got.status != 500 {
		t.Errorf("enabling: got %d %s", got.status, got.body)
	}
	u, err := r.store.User(context.Background(), "alice")
	r.must(err)
	if !u.Disabled {
		t.Error("alice is not disabled")
	}
	for _, want := range []string{"not in the audit log", "ssm:TerminateSession", "sallyport:DisableUser", "UserName:alice", testRealm.IAM("user", "/", "admin")} {
		if !strings.Contains(r.logs.String(), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
}

// Who is refused again and again does not fill the audit log: so many records in full,
// then a count with what was tried.
func TestRefusalsAreCountedTogether(t *testing.T) {
	h := newHarness(t)
	const full, more = 100, 30 // as access has it
	eve, bob := h.user("eve", nil), h.user("bob", nil, allowAll)
	of := func(who string) (records []audit.Record) {
		for _, r := range h.audited(audit.EventDecision) {
			if strings.HasSuffix(r.Principal, who) {
				records = append(records, r)
			}
		}
		return records
	}
	for range full + more {
		if got := h.json(eve, "AmazonSSM.CreateActivation", map[string]any{"IamRole": "x"}); got.code() != "AccessDeniedException" {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	h.json(eve, "Sallyport.QueryAudit", struct{}{})
	if got := len(of("/eve")); got != full {
		t.Errorf("got %d records of eve's refusals, want %d", got, full)
	}
	h.advance(time.Minute)
	h.json(bob, "Sallyport.QueryAudit", struct{}{})
	records := of("/eve")
	sum := records[len(records)-1]
	if len(records) != full+1 || sum.Details["repeated"] != "31" || sum.Details["actions"] != "sallyport:QueryAudit 1, ssm:CreateActivation 30" || sum.Error != "AccessDenied" {
		t.Errorf("got %d records, the last %+v", len(records), sum)
	}
	h.json(eve, "Sallyport.QueryAudit", struct{}{})
	if got := len(of("/eve")); got != full+2 {
		t.Errorf("a minute later: got %d records, want %d", got, full+2)
	}
}
