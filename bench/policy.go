package main

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"time"

	"sallyport.dev/policy"
)

const systemPolicies = 1000

// benchPolicy measures decisions of one principal that holds every policy of the
// system, the worst case, and of 200 that hold six each, the usual one. The floor
// evaluates one policy after the other. Both must agree on every decision.
func benchPolicy(ctx context.Context, l *lab) ([]figure, error) {
	sources, err := systemSources()
	if err != nil {
		return nil, err
	}
	requests := policyRequests()
	all := policy.NewSet(sources)
	scan := newScan(sources)
	if err := agree(all, scan, requests); err != nil {
		return nil, err
	}
	few := principals(sources)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const index, usual, floor = "one principal holds all 1,000", "200 principals hold six each", "policy by policy"
	lasting := l.pick(600*time.Millisecond, 150*time.Millisecond)
	r, err := compete(ctx, l.pickInt(6, 3),
		contestant{index, perSecond(lasting, func(i int) { all.Evaluate(requests[i%len(requests)]) })},
		contestant{usual, perSecond(lasting, func(i int) { few[i%len(few)].Evaluate(requests[i%len(requests)]) })},
		contestant{floor, perSecond(lasting, func(i int) { scan.evaluate(requests[i%len(requests)]) })},
	)
	if err != nil {
		return nil, err
	}
	const aim = 500_000
	return []figure{
		r.figure(index, "decisions/s", floor).atLeast(aim, "500,000/s"),
		r.figure(usual, "decisions/s", floor).atLeast(aim, "500,000/s"),
	}, nil
}

// perSecond counts how often f runs per second of processor time, collection of
// garbage included, so that a busy machine does not count.
func perSecond(lasting time.Duration, f func(i int)) func(context.Context) (float64, error) {
	return func(context.Context) (float64, error) {
		const batch = 64
		n, began := 0, processorTime()
		for processorTime()-began < lasting {
			for range batch {
				f(n)
				n++
			}
		}
		return float64(n) / (processorTime() - began).Seconds(), nil
	}
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no reason to
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// scan is the naive evaluation: every policy is asked.
type scan []*policy.Set

func newScan(sources []policy.Source) scan {
	var s scan
	for _, src := range sources {
		s = append(s, policy.NewSet([]policy.Source{src}))
	}
	return s
}

func (s scan) evaluate(req *policy.Request) policy.Effect {
	effect := policy.ImplicitlyDenied
	for _, set := range s {
		switch set.Evaluate(req).Effect {
		case policy.ExplicitlyDenied:
			return policy.ExplicitlyDenied
		case policy.Allowed:
			effect = policy.Allowed
		}
	}
	return effect
}

// agree makes sure that the measured and the floor decide the same, and that there
// is something to decide.
func agree(all *policy.Set, scan scan, requests []*policy.Request) error {
	outcomes := map[policy.Effect]int{}
	for _, req := range requests {
		got, want := all.Evaluate(req).Effect, scan.evaluate(req)
		if got != want {
			return fmt.Errorf("%s on %s: the index says %v, the scan %v", req.Action, req.Resource, got, want)
		}
		outcomes[got]++
	}
	if len(outcomes) < 3 {
		return fmt.Errorf("requests are one-sided: %v", outcomes)
	}
	return nil
}

// principals gives each of 200 principals five policies of the system and one that
// all have.
func principals(sources []policy.Source) []*policy.Set {
	const held = 5
	var sets []*policy.Set
	for p := range len(sources) / held {
		mine := append([]policy.Source{sources[1]}, sources[p*held:(p+1)*held]...)
		sets = append(sets, policy.NewSet(mine))
	}
	return sets
}

// The kinds of policies that a system has, by turns; %[1]d is the policy's number.
var policyKinds = []string{
	`{"Effect":"Allow","Action":"ssm:StartSession","Resource":["arn:aws:ec2:*:*:instance/i-%017[1]x","arn:aws:ssm:*:*:document/SSM-SessionManagerRunShell"]}`,
	`{"Effect":"Allow","Action":"ssm:StartSession","Resource":"arn:aws:ec2:*:*:instance/*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"team-%[1]d"}}}`,
	`{"Effect":"Allow","Action":["ssm:StartSession","ssm:SendCommand"],"Resource":"arn:aws:ec2:*:*:instance/*","Condition":{"StringEquals":{"ssm:resourceTag/Project":"project-%[1]d","ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"}}}`,
	`{"Effect":"Allow","Action":["ssm:TerminateSession","ssm:ResumeSession"],"Resource":"arn:aws:ssm:*:*:session/user-%[1]d-*"}`,
	`{"Effect":"Deny","Action":"ssm:*","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Environment":"frozen-%[1]d"}}}`,
}

func systemSources() ([]policy.Source, error) {
	var sources []policy.Source
	for i := range systemPolicies {
		statement := fmt.Sprintf(policyKinds[i%len(policyKinds)], i)
		doc, err := policy.Parse([]byte(`{"Version":"2012-10-17","Statement":[` + statement + `]}`))
		if err != nil {
			return nil, fmt.Errorf("policy %d: %w", i, err)
		}
		sources = append(sources, policy.Source{Name: fmt.Sprintf("policy %d", i), Document: doc})
	}
	return sources, nil
}

// policyRequests are a day's mixture: by id, by tags, for one's own sessions, frozen
// and refused ones.
func policyRequests() []*policy.Request {
	var requests []*policy.Request
	for i := range 200 {
		req := &policy.Request{
			Principal: "arn:aws:iam::111111111111:user/alice", Action: "ssm:StartSession",
			Resource: fmt.Sprintf("arn:aws:ec2:us-east-1:111111111111:instance/i-%017x", i*5), Context: requestContext(),
		}
		switch i % 5 {
		case 1:
			req.Resource = "arn:aws:ec2:us-east-1:111111111111:instance/i-fffffffffffffffff"
		case 2:
			req.Context.Add("ssm:resourceTag/Environment", fmt.Sprintf("frozen-%d", i*5+4))
		case 3:
			req.Action, req.Resource = "ssm:TerminateSession", fmt.Sprintf("arn:aws:ssm:us-east-1:111111111111:session/user-%d-0a1b", i*5+3)
		case 4:
			req.Action = "ssm:SendCommand"
			req.Context.Add("ssm:resourceTag/Project", fmt.Sprintf("project-%d", i*5+2))
		}
		requests = append(requests, req)
	}
	return requests
}

// requestContext has the keys that the server fills for every request.
func requestContext() policy.Context {
	c := policy.Context{}
	for _, kv := range strings.Fields(`aws:PrincipalArn=arn:aws:iam::111111111111:user/alice aws:PrincipalType=User
		aws:PrincipalAccount=111111111111 aws:userid=AIDAEXAMPLE aws:username=alice aws:PrincipalTag/Team=payments
		aws:PrincipalTag/Department=FrontEnd aws:SourceIp=203.0.113.7 aws:CurrentTime=2026-11-20T09:30:00Z
		aws:EpochTime=1795167000 aws:SecureTransport=true aws:UserAgent=aws-cli/2.31.0 aws:RequestedRegion=us-east-1
		aws:ResourceAccount=111111111111 ssm:SessionDocumentAccessCheck=true aws:ResourceTag/Team=payments
		ssm:resourceTag/Team=payments aws:ResourceTag/Name=frontend-1 ssm:resourceTag/Name=frontend-1`) {
		k, v, _ := strings.Cut(kv, "=")
		c.Add(k, v)
	}
	return c
}
