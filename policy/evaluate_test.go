package policy

import (
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	allowAll     = `{"Statement":{"Sid":"All","Effect":"Allow","Action":"*","Resource":"*"}}`
	allowStart   = `{"Statement":{"Sid":"Start","Effect":"Allow","Action":"ssm:StartSession","Resource":"*"}}`
	allowSend    = `{"Statement":{"Effect":"Allow","Action":"ssm:SendCommand","Resource":"*"}}`
	denyStart    = `{"Statement":{"Sid":"No","Effect":"Deny","Action":"ssm:Start*","Resource":"*"}}`
	denySend     = `{"Statement":{"Effect":"Deny","Action":"ssm:SendCommand","Resource":"*"}}`
	startRequest = "ssm:StartSession"
)

// TestKinds: what each kind of source can and cannot do. Rows give the sources as
// kind and policy; the request is ssm:StartSession.
func TestKinds(t *testing.T) {
	type source struct {
		kind Kind
		text string // empty: a source without a document
	}
	tests := []struct {
		name    string
		sources []source
		want    Effect
		kind    Kind
		reasons []string // names of the sources that decided: kind and index
	}{
		{"nothing", nil, ImplicitlyDenied, Identity, nil},
		{"identity allows", []source{{Identity, allowStart}}, Allowed, 0, []string{"0"}},
		{"grant allows", []source{{Identity, allowSend}, {Grant, allowStart}}, Allowed, 0, []string{"1"}},
		{"the first that allows is the reason", []source{{Identity, allowSend}, {Identity, allowStart}, {Identity, allowAll}}, Allowed, 0, []string{"1"}},
		{"deny wins over allow", []source{{Identity, allowAll}, {Identity, denyStart}}, ExplicitlyDenied, Identity, []string{"1"}},
		{"deny in a grant", []source{{Identity, allowAll}, {Grant, denyStart}}, ExplicitlyDenied, Grant, []string{"1"}},
		{"deny of something else", []source{{Identity, allowAll}, {Identity, denySend}}, Allowed, 0, []string{"0"}},
		{"boundary alone gives nothing", []source{{Boundary, allowAll}}, ImplicitlyDenied, Identity, nil},
		{"session policy alone gives nothing", []source{{Session, allowAll}}, ImplicitlyDenied, Identity, nil},
		{"boundary lets through", []source{{Identity, allowStart}, {Boundary, allowAll}}, Allowed, 0, []string{"0", "1"}},
		{"boundary holds back", []source{{Identity, allowAll}, {Boundary, allowSend}}, ImplicitlyDenied, Boundary, nil},
		{"boundary holds a grant back", []source{{Grant, allowAll}, {Boundary, allowSend}}, ImplicitlyDenied, Boundary, nil},
		{"boundary that only denies something else", []source{{Identity, allowAll}, {Boundary, denySend}}, ImplicitlyDenied, Boundary, nil},
		{"boundary that cannot be read", []source{{Identity, allowAll}, {Boundary, ""}}, ImplicitlyDenied, Boundary, nil},
		{"deny in a boundary", []source{{Identity, allowAll}, {Boundary, denyStart}}, ExplicitlyDenied, Boundary, []string{"1"}},
		{"session policy holds back", []source{{Identity, allowAll}, {Session, allowSend}}, ImplicitlyDenied, Session, nil},
		{"one session policy of two suffices", []source{{Identity, allowAll}, {Session, allowSend}, {Session, allowStart}}, Allowed, 0, []string{"0", "2"}},
		{"deny in a session policy", []source{{Identity, allowAll}, {Session, denyStart}}, ExplicitlyDenied, Session, []string{"1"}},
		{"all three", []source{{Session, allowStart}, {Boundary, allowStart}, {Identity, allowStart}}, Allowed, 0, []string{"2", "1", "0"}},
		{"boundary is named before session policy", []source{{Identity, allowAll}, {Session, allowSend}, {Boundary, allowSend}}, ImplicitlyDenied, Boundary, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var sources []Source
			for i, s := range tt.sources {
				src := Source{Kind: s.kind, Name: string(rune('0' + i))}
				if s.text != "" {
					src.Document = mustParse(t, s.text)
				}
				sources = append(sources, src)
			}
			req := &Request{Action: startRequest, Resource: "arn:aws:ec2:us-east-1:111111111111:instance/i-060ee0879f3ec4eb7"}
			for name, set := range map[string]*Set{"scan": newSet(sources, 1<<30), "index": newSet(sources, 0)} {
				d := set.Evaluate(req)
				var reasons []string
				for _, r := range d.Reasons {
					reasons = append(reasons, r.Source)
				}
				if d.Effect != tt.want || d.Effect != Allowed && d.Kind != tt.kind || !cmp.Equal(reasons, tt.reasons) {
					t.Errorf("%s: got %v %v %v, want %v %v %v", name, d.Effect, d.Kind, reasons, tt.want, tt.kind, tt.reasons)
				}
			}
			if e := Explain(sources, req); e.Effect != tt.want || e.Effect != Allowed && e.Kind != tt.kind {
				t.Errorf("Explain: got %v %v, want %v %v", e.Effect, e.Kind, tt.want, tt.kind)
			}
		})
	}
}

// TestEvaluateConcurrently shares a Set; the race detector watches, and a reader
// that appends to Reasons must not change another's.
func TestEvaluateConcurrently(t *testing.T) {
	set := NewSet([]Source{{Name: "a", Document: mustParse(t, allowAll)}, {Name: "b", Kind: Identity, Document: mustParse(t, allowStart)}})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				d := set.Evaluate(&Request{Action: startRequest, Resource: "*", Context: Context{"A:b": {"c"}}})
				_ = append(d.Reasons, Reason{Source: "mine"})
				if d.Reasons[0].Source != "a" {
					t.Errorf("got reason %v, want a", d.Reasons[0])
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestEvaluateWideSet passes the room that candidates have without allocation.
func TestEvaluateWideSet(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"Version":"2012-10-17","Statement":[`)
	b.WriteString(strings.Repeat(`{"Effect":"Deny","Action":"ec2:*","Resource":"*"},`, 1500))
	b.WriteString(`{"Effect":"Allow","Action":"ssm:*","Resource":"*"}]}`)
	doc := mustParse(t, b.String())
	set := NewSet([]Source{{Document: doc}, {Document: doc}})
	for action, want := range map[string]Effect{"ssm:StartSession": Allowed, "ec2:DescribeInstances": ExplicitlyDenied, "iam:GetUser": ImplicitlyDenied} {
		if got := set.Evaluate(&Request{Action: action, Resource: "*"}).Effect; got != want {
			t.Errorf("%s: got %v, want %v", action, got, want)
		}
	}
}

func TestExplain(t *testing.T) {
	doc := mustParse(t, `{"Version":"2012-10-17","Statement":[
 {"Sid":"Nodes","Effect":"Allow","Action":"ssm:StartSession","Resource":"arn:aws:ec2:*:*:instance/*",
  "Condition":{"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"},"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}},
 {"Effect":"Allow","Action":"ssm:TerminateSession","Resource":"arn:aws:ssm:*:*:session/${aws:username}-*"}]}`)
	sources := []Source{{Name: "inline policy access of group frontend", Document: doc}}
	req := &Request{Action: startRequest, Resource: "arn:aws:ec2:us-east-1:111111111111:instance/i-05b7516a19f826be9",
		Context: Context{"ssm:resourceTag/Team": {"search"}, "aws:PrincipalTag/Team": {"payments", "sales"}}}
	tests := []struct{ name, resource, want, hint string }{
		{"conditions", req.Resource,
			`inline policy access of group frontend, statement 1 (Sid "Nodes") (Allow) does not apply: Condition StringEquals ssm:resourceTag/Team ["payments" "sales"] fails: the request has "search"; Condition IpAddress aws:SourceIp "10.0.0.0/8" fails: it is absent from the request`,
			`the resource's tag "Team" would have to be "payments" or "sales"; the address the request comes from would have to be within "10.0.0.0/8"`},
	}
	for _, tt := range tests {
		e := Explain(sources, req)
		if len(e.Statements) != 2 || len(e.Reasons) != 1 {
			t.Fatalf("got %d statements and %d reasons, want 2 and 1", len(e.Statements), len(e.Reasons))
		}
		if diff := cmp.Diff(tt.want, e.Reasons[0].String()); diff != "" {
			t.Errorf("String (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(tt.hint, e.Reasons[0].Hint()); diff != "" {
			t.Errorf("Hint (-want +got):\n%s", diff)
		}
	}
	// A variable without a value is named.
	req.Action, req.Resource = "ssm:TerminateSession", "arn:aws:ssm:us-east-1:111111111111:session/alice-1"
	r := Explain(sources, req).Reasons[0]
	if want := "${aws:username} needs a value"; r.Hint() != want {
		t.Errorf("Hint: got %q, want %q", r.Hint(), want)
	}
	req.Context.Add("aws:username", "alice")
	if r := Explain(sources, req).Reasons[0]; r.String() != "inline policy access of group frontend, statement 2 allows it" || r.Hint() != "" {
		t.Errorf("got %q, hint %q", r, r.Hint())
	}
}

func TestHints(t *testing.T) {
	tests := []struct {
		op, key, operand, want string
		request                []string
	}{
		{"NumericLessThan", "aws:MultiFactorAuthAge", `"3600"`, `the seconds since the second factor would have to be less than "3600"`, []string{"7200"}},
		{"DateGreaterThanEquals", "aws:CurrentTime", `"2027-01-01"`, `the time would have to be no earlier than "2027-01-01"`, []string{"2026-11-20T09:30:00Z"}},
		{"StringNotLike", "aws:PrincipalTag/Team", `["a*","b"]`, `the principal's tag "Team" would have to be other than "a*" and "b"`, []string{"ab"}},
		{"ArnLike", "aws:PrincipalArn", `"arn:aws:iam::*:role/x"`, `aws:PrincipalArn would have to be like "arn:aws:iam::*:role/x"`, nil},
		{"Null", "aws:username", `"false"`, `aws:username would have to be present`, nil},
		{"Null", "aws:username", `"true"`, `aws:username would have to be absent`, []string{"alice"}},
		{"Bool", "aws:MultiFactorAuthPresent", `"true"`, `signing in with a second factor would have to be "true"`, nil},
	}
	for _, tt := range tests {
		doc := mustParse(t, conditionWith(tt.op, tt.key, tt.operand))
		e := Explain([]Source{{Document: doc}}, &Request{Action: startRequest, Resource: "*", Context: Context{tt.key: tt.request}})
		if got := e.Statements[0].Hint(); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.op, tt.key, got, tt.want)
		}
	}
}

// What is not known yet neither allows for certain nor denies.
// What Offers denies, nothing allows.
func TestOffers(t *testing.T) {
	const tagged = `"Condition":{"StringEquals":{"ssm:resourceTag/Team":"a"}}`
	for _, tt := range []struct {
		name, src, boundary string
		want                bool
	}{
		{"allowed somewhere", `[{"Effect":"Allow","Action":"sallyport:Get*","Resource":"arn:aws:ssm:*:*:session/x",` + tagged + `}]`, "", true},
		{"another action", `[{"Effect":"Allow","Action":"sallyport:List*","Resource":"*"}]`, "", false},
		{"all but another", `[{"Effect":"Allow","NotAction":"sallyport:List*","Resource":"*"}]`, "", true},
		{"all but it", `[{"Effect":"Allow","NotAction":"sallyport:Get*","Resource":"*"}]`, "", false},
		{"denied alone", `[{"Effect":"Deny","Action":"*","Resource":"*"}]`, "", false},
		{"beyond the boundary", `[{"Effect":"Allow","Action":"*","Resource":"*"}]`, `[{"Effect":"Allow","Action":"ssm:*","Resource":"*"}]`, false},
		{"within the boundary", `[{"Effect":"Allow","Action":"*","Resource":"*"}]`, `[{"Effect":"Allow","Action":"sallyport:*","Resource":"*"}]`, true},
		{"no policy", "", "", false},
	} {
		var sources []Source
		for kind, src := range map[Kind]string{Identity: tt.src, Boundary: tt.boundary} {
			if src == "" {
				continue
			}
			d, err := Parse([]byte(`{"Version":"2012-10-17","Statement":` + src + `}`))
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, Source{Kind: kind, Document: d})
		}
		if got := NewSet(sources).Offers("sallyport:GetRecording"); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestPossible(t *testing.T) {
	const host = `"Condition":{"StringEquals":{"sallyport:RemoteHost":"db"},"StringEqualsIfExists":{"aws:username":"alice"}}`
	for _, tt := range []struct {
		name, src string
		boundary  string
		want      bool
	}{
		{"allowed for a host", `[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*",` + host + `}]`, "", true},
		{"another action", `[{"Effect":"Allow","Action":"ssm:SendCommand","Resource":"*",` + host + `}]`, "", false},
		{"another person", `[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*",` + strings.Replace(host, "alice", "bob", 1) + `}]`, "", false},
		{"denied for a host", `[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"*","Resource":"*",` + host + `}]`, "", true},
		{"denied for certain", `[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"*","Resource":"*"}]`, "", false},
		{"beyond the boundary", `[{"Effect":"Allow","Action":"*","Resource":"*"}]`, `[{"Effect":"Allow","Action":"iam:*","Resource":"*"}]`, false},
		{"within the boundary", `[{"Effect":"Allow","Action":"*","Resource":"*"}]`, `[{"Effect":"Allow","Action":"*","Resource":"*",` + host + `}]`, true},
		{"nothing", `[{"Effect":"Deny","Action":"*","Resource":"*",` + host + `}]`, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var sources []Source
			for kind, src := range map[Kind]string{Identity: tt.src, Boundary: tt.boundary} {
				if src == "" {
					continue
				}
				d, err := Parse([]byte(`{"Version":"2012-10-17","Statement":` + src + `}`))
				if err != nil {
					t.Fatal(err)
				}
				sources = append(sources, Source{Kind: kind, Document: d})
			}
			req := &Request{Action: "ssm:StartSession", Resource: "arn:aws:ec2:us-east-1:111111111111:instance/i-1", Context: Context{"aws:username": {"alice"}}}
			set := NewSet(sources)
			if got := set.Possible(req, "sallyport:RemoteHost"); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if set.Evaluate(req).Allowed() && !tt.want {
				t.Error("what is allowed must be possible")
			}
		})
	}
}

func TestUses(t *testing.T) {
	for src, want := range map[string]bool{
		`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"IpAddress":{"SALLYPORT:remoteAddress":"10.0.0.0/8"}}}`:              true,
		`{"Effect":"Deny","NotAction":"*","Resource":"*","Condition":{"StringEquals":{"aws:username":"${sallyport:RemoteAddress}"}}}`:    true,
		`{"Effect":"Allow","Action":"*","Resource":"arn:aws:ssm:*:*:session/${sallyport:RemoteAddress}"}`:                                true,
		`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"sallyport:RemoteHost":"sallyport:RemoteAddress"}}}`: false,
		`{"Effect":"Allow","Action":"*","Resource":"*"}`:                                                                                 false,
	} {
		d, err := Parse([]byte(`{"Version":"2012-10-17","Statement":` + src + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := NewSet([]Source{{Document: d}}).Uses("sallyport:RemoteAddress"); got != want {
			t.Errorf("%s: got %v, want %v", src, got, want)
		}
	}
}
