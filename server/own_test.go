package server

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/session"
)

// folder is recordings as files.
type folder string

func (f folder) Open(_ context.Context, name string) (Recording, int64, error) {
	file, err := os.Open(filepath.Join(string(f), name))
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	return file, info.Size(), err
}

func (f folder) Digest(context.Context, string) (Digest, error) { return Digest{}, fs.ErrNotExist }

func decodeInto[T any](t testing.TB, a answer) T {
	t.Helper()
	var out T
	if a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// A listing comes in pages that leave nothing out and repeat nothing, whatever the
// filter leaves.
func TestPages(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	var want []string
	for i, id := range []string{"i-00000000000000001", "i-00000000000000002", "i-00000000000000003", "i-00000000000000004", "i-00000000000000005"} {
		team := []string{"payments", "search"}[i%2]
		h.node(id, identity.Tags{"Team": team})
		if team == "payments" {
			want = append(want, id)
		}
	}
	for _, size := range []int{1, 2, 3, 4} {
		var got []string
		in := listNodesInput{MaxResults: size, Filters: []ownFilter{{Key: "tag:Team", Values: []string{"payments"}}}}
		for {
			out := decodeInto[listNodesOutput](t, h.json(admin, "Sallyport.ListNodes", in))
			for _, n := range out.Nodes {
				got = append(got, n.NodeID)
			}
			if in.NextToken = out.NextToken; in.NextToken == "" {
				break
			}
			if len(out.Nodes) != size {
				t.Errorf("size %d: a page of %d that is not the last", size, len(out.Nodes))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("size %d: got %v, want %v", size, got, want)
		}
	}
	bad := h.json(admin, "Sallyport.ListNodes", listNodesInput{Filters: []ownFilter{{Key: "Colour", Values: []string{"red"}}}})
	if bad.code() != "ValidationException" || !strings.Contains(bad.message(), "allowed are NodeId, Name, State, Text and tag:KEY") {
		t.Errorf("got %d %s", bad.status, bad.body)
	}
}

// People see and replay their own sessions; others' only by policy. Each reading is
// one audit record, however many pieces it takes, and each refusal is one.
func TestSessionsAndRecordings(t *testing.T) {
	dir := t.TempDir()
	h := newHarness(t, func(c *Config) { c.Recordings = folder(dir) })
	h.node("i-060ee0879f3ec4eb7", identity.Tags{"Team": "payments"})
	alice, eve := h.user("alice", nil), h.user("eve", nil)
	auditor := h.user("auditor", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sallyport:GetRecording","sallyport:QueryAudit","sallyport:ListSessions"],"Resource":"*"}]}`)
	team := h.user("team", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:Get*","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"search"}}}]}`)
	content := strings.Repeat("0123456789", recordingPiece/10+100)
	h.must(os.WriteFile(filepath.Join(dir, "one.cast"), []byte(content), 0o600))
	owner, err := h.store.User(context.Background(), "alice")
	h.must(err)
	h.must(h.store.CreateSession(context.Background(), session.Session{
		ID: "alice-0a1b", NodeID: "i-060ee0879f3ec4eb7", Document: defaultDocument, Owner: testRealm.IAM("user", "/", "alice"),
		OwnerID: owner.ID, RootID: owner.ID, OwnerName: "alice", State: session.StateConnected, Started: h.clock(), Recording: "one.cast"}))
	_, err = h.store.UpdateSession(context.Background(), "alice-0a1b", func(s *session.Session) error {
		s.State, s.Ended = session.StateTerminated, h.clock()
		return nil
	})
	h.must(err)

	read := func(c identity.Credentials) string {
		var b strings.Builder
		in := getRecordingInput{SessionID: "alice-0a1b"}
		for {
			out := decodeInto[getRecordingOutput](t, h.json(c, "Sallyport.GetRecording", in))
			b.Write(out.Data)
			if out.Done {
				return b.String()
			}
			in.Offset = out.NextOffset
		}
	}
	for name, c := range map[string]identity.Credentials{"alice": alice, "auditor": auditor} {
		before := len(h.audited(audit.EventDecision))
		if got := read(c); got != content {
			t.Errorf("%s: got %d bytes, want %d", name, len(got), len(content))
		}
		if n := len(h.audited(audit.EventDecision)) - before; n != 1 {
			t.Errorf("%s: %d records of one reading", name, n)
		}
	}
	for name, c := range map[string]identity.Credentials{"eve": eve, "team": team} {
		for _, op := range []string{"GetRecording", "GetSession"} {
			got := h.json(c, "Sallyport."+op, getSessionInput{SessionID: "alice-0a1b"})
			if got.code() != "AccessDeniedException" {
				t.Errorf("%s %s: got %d %s", name, op, got.status, got.body)
			}
		}
		if got := h.json(c, "Sallyport.GetSession", getSessionInput{SessionID: "none-0a1b"}); got.code() != "AccessDeniedException" {
			t.Errorf("%s may learn which sessions there are: got %d %s", name, got.status, got.body)
		}
	}
	for name, want := range map[string]int{"alice": 1, "eve": 0, "auditor": 1} {
		c := map[string]identity.Credentials{"alice": alice, "eve": eve, "auditor": auditor}[name]
		out := decodeInto[listSessionsOutput](t, h.json(c, "Sallyport.ListSessions", listSessionsInput{State: "History"}))
		if len(out.Sessions) != want {
			t.Errorf("%s: got %d sessions, want %d", name, len(out.Sessions), want)
		}
	}
	if got := h.json(alice, "Sallyport.GetRecording", getRecordingInput{SessionID: "alice-0a1b", Offset: -1}); got.code() != "ValidationException" {
		t.Errorf("a negative offset: got %d %s", got.status, got.body)
	}
	past := decodeInto[getRecordingOutput](t, h.json(alice, "Sallyport.GetRecording", getRecordingInput{SessionID: "alice-0a1b", Offset: 1 << 60}))
	if len(past.Data) != 0 || !past.Done {
		t.Errorf("past the end: got %+v", past)
	}
}

// The audit log is read page by page and followed with the last page's token, without
// the follower following themselves.
func TestQueryAudit(t *testing.T) {
	h := newHarness(t)
	auditor := h.user("auditor", nil, allowAll)
	eve := h.user("eve", nil)
	for range 3 {
		h.json(eve, "Sallyport.QueryAudit", struct{}{})
	}
	var records []audit.Record
	in := queryAuditInput{MaxResults: 2, Principal: "eve"}
	for {
		out := decodeInto[queryAuditOutput](t, h.json(auditor, "Sallyport.QueryAudit", in))
		records, in.NextToken = append(records, out.Records...), out.NextToken
		if !out.More {
			break
		}
	}
	if len(records) != 3 || records[0].Decision != "ImplicitlyDenied" || records[0].Action != "sallyport:QueryAudit" {
		t.Fatalf("got %+v", records)
	}
	h.json(eve, "Sallyport.QueryAudit", struct{}{})
	out := decodeInto[queryAuditOutput](t, h.json(auditor, "Sallyport.QueryAudit", in))
	if len(out.Records) != 1 || out.Records[0].Seq <= records[2].Seq {
		t.Errorf("following: got %+v", out.Records)
	}
	out = decodeInto[queryAuditOutput](t, h.json(auditor, "Sallyport.QueryAudit", queryAuditInput{Newest: true, MaxResults: 1, Principal: "eve"}))
	if len(out.Records) != 1 || out.Records[0].Seq <= records[2].Seq {
		t.Errorf("newest: got %+v", out.Records)
	}
	mine := decodeInto[queryAuditOutput](t, h.json(auditor, "Sallyport.QueryAudit", queryAuditInput{Principal: "auditor"}))
	if len(mine.Records) != 1 {
		t.Errorf("reading the audit made %d records", len(mine.Records))
	}
}

// Everyone may ask why about themselves, about others by policy; the answer names the
// statement and both values.
func TestExplainAccess(t *testing.T) {
	h := newHarness(t)
	h.node("i-05b7516a19f826be9", identity.Tags{"Team": "search", "Name": "backend-1"})
	const byTeam = `{"Version":"2012-10-17","Statement":[{"Sid":"Team","Effect":"Allow","Action":"ssm:StartSession","Resource":"*",
		"Condition":{"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"}}}]}`
	const mayList = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:ListNodes","Resource":"*"}]}`
	alice := h.user("alice", identity.Tags{"Team": "payments"}, byTeam, mayList)
	admin := h.user("admin", nil, allowAll)
	ask := func(c identity.Credentials, principal, node string) answer {
		return h.json(c, "Sallyport.ExplainAccess", explainAccessInput{Principal: principal, Action: "ssm:StartSession", NodeID: node})
	}
	for name, a := range map[string]answer{
		"oneself":               ask(alice, "", "i-05b7516a19f826be9"),
		"oneself, node by name": ask(alice, "alice", "backend-1"),
		"another, by name":      ask(admin, "alice", "i-05b7516a19f826be9"),
		"another, by ARN":       ask(admin, "arn:aws:iam::111111111111:user/alice", "i-05b7516a19f826be9"),
	} {
		out := decodeInto[explainAccessOutput](t, a)
		if out.Decision != "ImplicitlyDenied" || out.NodeID != "i-05b7516a19f826be9" || !strings.Contains(out.Message, "because no identity-based policy allows") {
			t.Errorf("%s: got %+v", name, out)
			continue
		}
		s := out.Resources[0].Statements[0]
		i := slices.IndexFunc(s.Checks, func(k explainedCheck) bool { return k.Element == "Condition" })
		if s.Sid != "Team" || s.Matched || s.Hint == "" || i < 0 || !slices.Equal(s.Checks[i].Policy, []string{"payments"}) || !slices.Equal(s.Checks[i].Request, []string{"search"}) {
			t.Errorf("%s: got %+v", name, s)
		}
	}
	for name, a := range map[string]answer{
		"another without permission": ask(alice, "admin", "i-05b7516a19f826be9"),
		"someone who does not exist": ask(alice, "nobody", "i-05b7516a19f826be9"),
	} {
		if a.code() != "AccessDeniedException" {
			t.Errorf("%s: got %d %s", name, a.status, a.body)
		}
	}
	if a := ask(admin, "nobody", "i-05b7516a19f826be9"); a.code() != "ValidationException" {
		t.Errorf("nobody: got %d %s", a.status, a.body)
	}
	if a := ask(admin, "", "nowhere"); a.code() != "InvalidInstanceId" {
		t.Errorf("nowhere: got %d %s", a.status, a.body)
	}
}

// Principals are named as sessions and audit show them: a role's session is the role,
// also where a user has the session's name.
func TestExplainAccessNamesPrincipals(t *testing.T) {
	h := newHarness(t)
	h.node("i-05b7516a19f826be9", nil)
	h.user("alice", nil)
	h.user("deploy", nil)
	h.role("Ops", trustAccount, allowAll)
	h.role("deploy", trustAccount, allowAll)
	admin := h.user("admin", nil, allowAll)
	tests := []struct{ name, principal, decision string }{
		{"alice", "arn:aws:iam::111111111111:user/alice", "ImplicitlyDenied"},
		{"user/alice", "arn:aws:iam::111111111111:user/alice", "ImplicitlyDenied"},
		{"assumed-role/Ops/alice", "arn:aws:sts::111111111111:assumed-role/Ops/alice", "Allowed"},
		{"arn:aws:sts::111111111111:assumed-role/Ops/alice", "arn:aws:sts::111111111111:assumed-role/Ops/alice", "Allowed"},
		{"Ops", "arn:aws:sts::111111111111:assumed-role/Ops/explain", "Allowed"},
		{"role/Ops", "arn:aws:sts::111111111111:assumed-role/Ops/explain", "Allowed"},
		{"role/deploy", "arn:aws:sts::111111111111:assumed-role/deploy/explain", "Allowed"},
		{"user/deploy", "arn:aws:iam::111111111111:user/deploy", "ImplicitlyDenied"},
		{"user/admin", "arn:aws:iam::111111111111:user/admin", "Allowed"},
		{"deploy", "", ""}, // a user and a role
		{"group/alice", "", ""},
		{"arn:aws:iam::111111111111:group/alice", "", ""},
		{"assumed-role/alice/Ops", "", ""},
		{"user/Ops", "", ""},
	}
	for _, tt := range tests {
		a := h.json(admin, "Sallyport.ExplainAccess", explainAccessInput{Principal: tt.name, Action: "ssm:StartSession", NodeID: "i-05b7516a19f826be9"})
		if tt.principal == "" {
			if a.code() != "ValidationException" {
				t.Errorf("%s: got %d %s, want it refused", tt.name, a.status, a.body)
			}
			continue
		}
		if out := decodeInto[explainAccessOutput](t, a); out.Principal != tt.principal || out.Decision != tt.decision {
			t.Errorf("%s: got %s %s, want %s %s", tt.name, out.Principal, out.Decision, tt.principal, tt.decision)
		}
	}
}

func TestGetStatusTellsTheRestByPolicy(t *testing.T) {
	h := newHarness(t, func(c *Config) {
		c.Member, c.Members = "m1", func() []Member { return []Member{{ID: "m1", Seen: time.Now()}} }
	})
	h.node("i-060ee0879f3ec4eb7", nil)
	eve, admin := h.user("eve", nil), h.user("admin", nil, allowAll)
	out := decodeInto[getStatusOutput](t, h.json(eve, "Sallyport.GetStatus", struct{}{}))
	if out.Principal != "arn:aws:iam::111111111111:user/eve" || out.Nodes != 0 || out.Member != "" {
		t.Errorf("eve: got %+v", out)
	}
	out = decodeInto[getStatusOutput](t, h.json(admin, "Sallyport.GetStatus", struct{}{}))
	if out.Nodes != 1 || out.Member != "m1" || len(out.Members) != 1 {
		t.Errorf("admin: got %+v", out)
	}
}

// A session is explained with its tags, as far as who asks may know of it.
func TestExplainAccessOfSession(t *testing.T) {
	h := newHarness(t)
	h.node(channelNode, identity.Tags{"Team": "payments"})
	const watchSearch = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:WatchSession","Resource":"*",
		"Condition":{"StringEquals":{"ssm:resourceTag/Team":"search"}}}]}`
	const endOwn = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:TerminateSession","Resource":"*",
		"Condition":{"StringEquals":{"ssm:resourceTag/aws:ssmmessages:session-id":"${aws:userid}"}}}]}`
	const maySee = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:GetSession","Resource":"*"}]}`
	alice, bob := h.user("alice", nil, endOwn), h.user("bob", nil, watchSearch, maySee)
	eve, admin := h.user("eve", nil, watchSearch, endOwn), h.user("admin", nil, allowAll)
	h.sessionOf(alice, "alice-0a1b")
	aliceID := h.principal(alice).UserID
	for _, c := range []struct {
		name         string
		who          identity.Credentials
		about        string
		action, want string
		seen         []string // what the condition saw
	}{
		{"one's own", alice, "", "ssm:TerminateSession", "Allowed", []string{aliceID}},
		{"one's own, to read", alice, "", "sallyport:WatchSession", "Allowed", []string{aliceID}},
		{"one's own, about another", admin, "alice", "sallyport:GetRecording", "Allowed", []string{aliceID}},
		{"one's own, to do what one may not", alice, "", "sallyport:DeleteRecording", "ImplicitlyDenied", []string{aliceID}},
		{"of who may see it", bob, "", "sallyport:WatchSession", "ImplicitlyDenied", []string{"payments"}},
		{"about another", admin, "bob", "sallyport:WatchSession", "ImplicitlyDenied", []string{"payments"}},
		{"about another, whose it is not", admin, "eve", "ssm:TerminateSession", "ImplicitlyDenied", []string{"payments", aliceID}},
		{"of a stranger", eve, "", "sallyport:WatchSession", "ImplicitlyDenied", nil},
		{"of a stranger, whose it is", eve, "", "ssm:TerminateSession", "ImplicitlyDenied", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := decodeInto[explainAccessOutput](t, h.json(c.who, "Sallyport.ExplainAccess", explainAccessInput{
				Principal: c.about, Action: c.action, Resource: h.server.config.Realm.Session("alice-0a1b"),
			}))
			if out.Decision != c.want {
				t.Errorf("got %s, want %s", out.Decision, c.want)
			}
			var seen []string
			for _, s := range out.Resources[0].Statements {
				for _, k := range s.Checks {
					if k.Element == "Condition" {
						seen = append(seen, k.Request...)
					}
				}
			}
			if !slices.Equal(seen, c.seen) {
				t.Errorf("the condition saw %q, want %q", seen, c.seen)
			}
		})
	}
}
