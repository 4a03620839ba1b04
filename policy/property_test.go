package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
)

// generator makes valid policies and requests from few words, so that they meet.
type generator struct{ *rand.Rand }

func (g generator) one(words ...string) string { return words[g.IntN(len(words))] }

func (g generator) some(most int, one func() string) []string {
	var out []string
	for range 1 + g.IntN(most) {
		out = append(out, one())
	}
	return out
}

func (g generator) actionPattern() string {
	return g.one("*", "ssm:*", "ssm:Start*", "SSM:startsession", "ssm:StartSession", "ssm:*Session", "ssm:?tartSession",
		"ssm:SendCommand", "ec2:*", "ec2:Describe*", "*:*", "s*:StartSession", "ssm:TerminateSession")
}

func (g generator) arnPattern() string {
	return g.one("*", "arn:aws:ec2:*:*:instance/*", "arn:aws:ec2:us-east-1:111111111111:instance/i-01", "arn:aws:ec2:*:*:instance/i-0?",
		"arn:aws:ec2:us-*:*:instance/i-02", "arn:*", "arn:aws:ssm:*", "arn:aws:e*", "arn:aws:ssm:*:*:document/${aws:PrincipalTag/Team}",
		"arn:aws:ssm:*:*:document/${aws:PrincipalTag/Team, 'none'}-*", "arn:aws:ssm:*:*:session/${aws:username}-*",
		"arn:aws:ssm:*:*:session/${aws:userid}*", "arn:aws:ssm:${aws:PrincipalTag/Team}:*:document/*", "arn:*:*:*:*:*/*",
		"arn:aws:ssm:*::document/AWS-*", "arn:aws:ec2:::instance/*", "arn:aws:ssm:*:*:*${*}*", "arn:aws:ssm:*:*:document/*-${aws:PrincipalTag/Team}-${aws:PrincipalTag/Team}",
		"arn:aws:ssm:*:*:document/*${aws:PrincipalTag/Team}*${aws:username}")
}

func (g generator) text() string {
	return g.one("a", "b", "ab", "A", "team", "Team", "", "*", "alice", "i-01", "a:b", "K", "\u212a", "é")
}

func (g generator) stringPattern() string {
	if g.IntN(3) > 0 {
		return g.text()
	}
	return g.one("*", "a*", "*b", "?", "??", "${aws:PrincipalTag/Team}", "${aws:username}", "${aws:PrincipalTag/Team, 'a'}", "x${aws:PrincipalTag/Team}",
		"${aws:PrincipalTag/Team}${aws:PrincipalTag/Team}", "${aws:PrincipalTag/Team}*${aws:PrincipalTag/Team}", "${*}", "a${?}", "${$}", "*a*b*", "?*?", "${aws:PrincipalTag/Missing}", "${ aws:principaltag/team , 'b' }")
}

func (g generator) arn() string {
	return g.one("*", "arn:aws:ec2:us-east-1:111111111111:instance/i-01", "arn:aws:ec2:us-east-1:111111111111:instance/i-02",
		"arn:aws:ec2:eu-west-1:111111111111:instance/i-01", "arn:aws:ssm:us-east-1:111111111111:document/team", "arn:aws:ssm:us-east-1:111111111111:document/a-a",
		"arn:aws:ssm:us-east-1:111111111111:document/x-a-b", "arn:aws:ssm:us-east-1::document/AWS-StartSSHSession", "arn:aws:ssm:us-east-1:111111111111:session/alice-1", "arn:aws:ssm:us-east-1:111111111111:session/a:b-1",
		"arn:aws:ssm:a:111111111111:document/x", "not-an-arn", "arn:aws:ssm:us-east-1:111111111111:document/*")
}

func (g generator) operand(op string) string {
	switch {
	case op == "Null" || op == "Bool":
		return g.one("true", "false")
	case op == "NumericX":
		return g.one("0", "1", "1.0", "10", "-5", "1e1")
	case op == "DateX":
		return g.one("2026-11-20T09:30:00Z", "2026-11-20T10:30:00+01:00", "2026-01-01", "1795167000", "0")
	case op == "IP":
		return g.one("10.0.0.0/8", "10.1.2.3", "2001:db8::/32", "0.0.0.0/0", "::/0", "203.0.113.7/25")
	case op == "Arn":
		return g.arnPattern()
	case op == "Binary":
		return g.one("YQ==", "Yg==", "")
	}
	return g.stringPattern()
}

func (g generator) operator() (name, operandOf, key string) {
	switch g.IntN(12) {
	case 0:
		return "Null", "Null", g.key()
	case 1:
		return g.modified(g.one("NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericLessThanEquals", "NumericGreaterThan", "NumericGreaterThanEquals")), "NumericX", "x:number"
	case 2:
		return g.modified(g.one("DateEquals", "DateNotEquals", "DateLessThan", "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals")), "DateX", "aws:CurrentTime"
	case 3:
		return g.modified(g.one("IpAddress", "NotIpAddress")), "IP", "aws:SourceIp"
	case 4:
		return g.modified(g.one("ArnLike", "ArnEquals", "ArnNotLike", "ArnNotEquals")), "Arn", "aws:PrincipalArn"
	case 5:
		return g.modified("Bool"), "Bool", "aws:SecureTransport"
	case 6:
		return g.modified("BinaryEquals"), "Binary", "x:binary"
	}
	return g.modified(g.one("StringEquals", "StringEquals", "StringLike", "StringNotEquals", "StringNotLike", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase")), "", g.key()
}

func (g generator) modified(op string) string {
	if g.IntN(4) == 0 {
		op += "IfExists"
	}
	return g.one("", "", "", "ForAllValues:", "ForAnyValue:") + op
}

func (g generator) key() string {
	return g.one("ssm:resourceTag/Team", "ssm:ResourceTag/team", "aws:ResourceTag/Env", "aws:PrincipalTag/Team", "aws:username", "aws:TagKeys")
}

func (g generator) statement() map[string]any {
	s := map[string]any{"Effect": g.one("Allow", "Allow", "Allow", "Deny")}
	s[g.one("Action", "Action", "Action", "NotAction")] = g.some(3, g.actionPattern)
	s[g.one("Resource", "Resource", "Resource", "NotResource")] = g.some(3, g.arnPattern)
	condition := map[string]map[string]any{}
	for range g.IntN(3) {
		op, of, key := g.operator()
		if condition[op] == nil {
			condition[op] = map[string]any{}
		}
		if of == "Null" {
			condition[op][key] = g.operand(of)
			continue
		}
		condition[op][key] = g.some(3, func() string { return g.operand(of) })
	}
	if len(condition) > 0 {
		s["Condition"] = condition
	}
	return s
}

func (g generator) policy(statements int) string {
	var list []any
	for range 1 + g.IntN(statements) {
		list = append(list, g.statement())
	}
	b, err := json.Marshal(map[string]any{"Version": g.one("2012-10-17", "2012-10-17", "2012-10-17", "2008-10-17"), "Statement": list})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (g generator) request() *Request {
	ctx := Context{}
	put := func(values func() []string, keys ...string) {
		if g.IntN(3) > 0 {
			ctx[keys[g.IntN(len(keys))]] = values()
		}
	}
	texts := func() []string { return g.some(3, g.text) }
	put(texts, "ssm:resourceTag/Team", "SSM:RESOURCETAG/TEAM", "ssm:resourcetag/team")
	put(texts, "aws:ResourceTag/Env", "aws:resourcetag/env")
	put(texts, "aws:PrincipalTag/Team", "aws:principaltag/team")
	put(texts, "aws:principaltag/TEAM")
	put(texts, "aws:TagKeys")
	put(func() []string { return []string{g.text()} }, "aws:username", "aws:USERNAME")
	put(func() []string { return []string{g.text()} }, "aws:userid")
	put(func() []string { return []string{g.operand("NumericX")} }, "x:number")
	put(func() []string { return []string{g.operand("DateX")} }, "aws:CurrentTime")
	put(func() []string { return []string{g.one("10.1.2.3", "2001:db8::1", "203.0.113.1")} }, "aws:SourceIp")
	put(func() []string { return []string{g.one("true", "false", "True")} }, "aws:SecureTransport")
	put(func() []string { return []string{g.operand("Binary")} }, "x:binary")
	put(func() []string { return []string{g.arn()} }, "aws:PrincipalArn")
	if g.IntN(2) == 0 {
		ctx = lowered(ctx)
	}
	return &Request{Action: g.one("ssm:StartSession", "ssm:startSession", "ssm:SendCommand", "ec2:DescribeInstances", "iam:GetUser"), Resource: g.arn(), Context: ctx}
}

func lowered(c Context) Context {
	out := Context{}
	for k, v := range c {
		out.Add(k, v...)
	}
	return out
}

func (g generator) sources(most, statements int) []oracleSource {
	var out []oracleSource
	for range 1 + g.IntN(most) {
		kind := []Kind{Identity, Identity, Identity, Identity, Grant, Grant, Boundary, Session}[g.IntN(8)]
		out = append(out, oracleSource{kind, g.policy(statements)})
	}
	return out
}

func parseSources(tb testing.TB, raw []oracleSource) []Source {
	tb.Helper()
	var out []Source
	for i, s := range raw {
		doc, err := Parse([]byte(s.text))
		if err != nil {
			tb.Fatalf("parsing %s: %v", s.text, err)
		}
		out = append(out, Source{Kind: s.kind, Name: fmt.Sprintf("p%d", i), Document: doc})
	}
	return out
}

// TestEvaluateEqualsFullScan holds Evaluate, with and without its index, and
// Explain against the oracle.
func TestEvaluateEqualsFullScan(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 100
	}
	g := generator{rand.New(rand.NewPCG(1, 2))}
	count := map[Effect]int{}
	for round := range rounds {
		raw := g.sources(8, 4)
		if round%10 == 0 {
			raw = g.sources(60, 3)
		}
		sources := parseSources(t, raw)
		plain, indexed := newSet(sources, 1<<30), newSet(sources, 0)
		for range 5 {
			req := g.request()
			effect, kind := oracle{req: req}.decide(raw)
			count[effect]++
			for name, got := range map[string]Decision{
				"scan": plain.Evaluate(req), "index": indexed.Evaluate(req), "explain": Explain(sources, req).Decision,
			} {
				if got.Effect != effect || effect == ImplicitlyDenied && got.Kind != kind {
					r, _ := json.Marshal(req)
					t.Fatalf("%s: got %v %v, want %v %v\nrequest %s\npolicies %v", name, got.Effect, got.Kind, effect, kind, r, raw)
				}
			}
		}
	}
	for _, e := range []Effect{Allowed, ExplicitlyDenied, ImplicitlyDenied} {
		if count[e] < rounds/10 {
			t.Errorf("only %d of %d decisions are %v: the generator is lopsided", count[e], 5*rounds, e)
		}
	}
}

// TestOracleAgreesOnCases keeps the oracle honest.
func TestOracleAgreesOnCases(t *testing.T) {
	for _, c := range readCases(t) {
		var raw []oracleSource
		for _, p := range c.Policies {
			raw = append(raw, oracleSource{Identity, string(p.Policy)})
		}
		if got, _ := (oracle{req: &c.Request}).decide(raw); got.String() != c.Expect {
			t.Errorf("case %d: oracle: got %v, want %s", c.ID, got, c.Expect)
		}
	}
}
