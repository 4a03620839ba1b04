package policy

import (
	"fmt"
	"testing"
)

func mustParse(tb testing.TB, text string) *Document {
	tb.Helper()
	doc, err := Parse([]byte(text))
	if err != nil {
		tb.Fatalf("parsing %s: %v", text, err)
	}
	return doc
}

// worldPolicy is the i-th of a system's policies: by node id, by a literal tag, by
// the principal's own tag, by document, and a deny now and then.
func worldPolicy(i int) string {
	switch i % 5 {
	case 0:
		return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":["arn:aws:ec2:us-east-1:111111111111:instance/i-%017x","arn:aws:ssm:*:*:document/SSM-SessionManagerRunShell"]}]}`, i)
	case 1:
		return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ssm:StartSession","ssm:SendCommand"],"Resource":"arn:aws:ec2:*:*:instance/*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"team-%d"}}}]}`, i)
	case 2:
		return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:*","Resource":"*","Condition":{"StringLike":{"ssm:resourceTag/Project":"project-%d"},"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"}}},{"Effect":"Allow","Action":["ssm:TerminateSession","ssm:ResumeSession"],"Resource":"arn:aws:ssm:*:*:session/${aws:username}-*"}]}`, i)
	case 3:
		return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"arn:aws:ssm:*:*:document/Tool%d-*"}]}`, i)
	}
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Environment":"frozen-%d"}}}]}`, i)
}

// teamPolicy is the usual one: the tag of the node equals that of the principal.
const teamPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":["arn:aws:ec2:*:*:instance/*","arn:aws:ssm:*:*:managed-instance/*"],"Condition":{"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"},"BoolIfExists":{"ssm:SessionDocumentAccessCheck":"true"}}}]}`

// worldContext has every key that a request carries.
func worldContext(i int) Context {
	return lowered(Context{
		"aws:PrincipalArn": {"arn:aws:iam::111111111111:user/alice"}, "aws:PrincipalType": {"User"}, "aws:PrincipalAccount": {"111111111111"},
		"aws:userid": {"AIDAEXAMPLE"}, "aws:username": {"alice"}, "aws:PrincipalTag/Team": {"payments"}, "aws:PrincipalTag/Department": {"FrontEnd"},
		"aws:SourceIp": {"203.0.113.7"}, "aws:CurrentTime": {"2026-11-20T09:30:00Z"}, "aws:EpochTime": {"1795167000"}, "aws:SecureTransport": {"true"},
		"aws:UserAgent": {"aws-cli/2.31.0"}, "aws:RequestedRegion": {"us-east-1"}, "aws:ResourceAccount": {"111111111111"},
		"ssm:resourceTag/Team": {"payments"}, "aws:ResourceTag/Team": {"payments"}, "ssm:resourceTag/Environment": {"Development"},
		"aws:ResourceTag/Environment": {"Development"}, "ssm:resourceTag/Project": {fmt.Sprintf("project-%d", i)}, "ssm:resourceTag/Name": {"frontend-1"},
		"ssm:SessionDocumentAccessCheck": {"true"},
	})
}

func evaluateAll(b *testing.B, sets []*Set, requests []*Request) {
	b.Helper()
	allowed := 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if sets[i%len(sets)].Evaluate(requests[i%len(requests)]).Allowed() {
			allowed++
		}
	}
	if allowed == 0 {
		b.Error("nothing was allowed")
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
}

// BenchmarkEvaluateManyPrincipals has 1,000 policies in the system, of which each of
// 200 principals has six.
func BenchmarkEvaluateManyPrincipals(b *testing.B) {
	var sets []*Set
	for p := range 200 {
		sources := []Source{{Name: "team", Document: mustParse(b, teamPolicy)}}
		for i := range 5 {
			sources = append(sources, Source{Name: "policy", Document: mustParse(b, worldPolicy(p*5+i))})
		}
		sets = append(sets, NewSet(sources))
	}
	evaluateAll(b, sets, worldRequests())
}

// BenchmarkEvaluateManyPolicies has one principal with all 1,000 policies.
func BenchmarkEvaluateManyPolicies(b *testing.B) {
	evaluateAll(b, []*Set{NewSet(manySources(b))}, worldRequests())
}

// BenchmarkEvaluateManyPoliciesScan is the same without the index: what it gains.
func BenchmarkEvaluateManyPoliciesScan(b *testing.B) {
	evaluateAll(b, []*Set{newSet(manySources(b), 1<<30)}, worldRequests())
}

// BenchmarkEvaluateManyPoliciesRefused has no policy that fits.
func BenchmarkEvaluateManyPoliciesRefused(b *testing.B) {
	set := NewSet(manySources(b))
	req := &Request{Action: "ssm:StartSession", Resource: "arn:aws:ec2:us-east-1:111111111111:instance/i-ffffffffffffffff", Context: worldContext(3)}
	b.ReportAllocs()
	for b.Loop() {
		if set.Evaluate(req).Allowed() {
			b.Fatal("allowed")
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
}

func manySources(tb testing.TB) []Source {
	var sources []Source
	for i := range 1000 {
		sources = append(sources, Source{Name: "policy", Document: mustParse(tb, worldPolicy(i))})
	}
	return sources
}

func worldRequests() []*Request {
	var requests []*Request
	for i := range 100 {
		req := &Request{Action: "ssm:StartSession", Resource: fmt.Sprintf("arn:aws:ec2:us-east-1:111111111111:instance/i-%017x", i*5), Context: worldContext(i * 7)}
		switch i % 4 {
		case 1:
			req.Resource = fmt.Sprintf("arn:aws:ssm:us-east-1:111111111111:document/Tool%d-x", i)
		case 2:
			req.Action, req.Resource = "ssm:TerminateSession", "arn:aws:ssm:us-east-1:111111111111:session/alice-0a1b2c"
		}
		requests = append(requests, req)
	}
	return requests
}

// BenchmarkParse parses the usual policy.
func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse([]byte(teamPolicy)); err != nil {
			b.Fatal(err)
		}
	}
}
