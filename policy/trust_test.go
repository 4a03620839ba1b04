package policy

import (
	"strings"
	"testing"
)

const trustPolicy = `{"Version":"2012-10-17","Statement":[
 {"Sid":"Account one","Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":"sts:AssumeRole"},
 {"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::222222222222:user/carol","arn:aws:iam::222222222222:role/ops/Night"]},"Action":["sts:AssumeRole","sts:TagSession"],
  "Condition":{"StringEquals":{"sts:ExternalId":"secret"}}},
 {"Effect":"Allow","Principal":{"Service":"ssm.amazonaws.com"},"Action":"sts:AssumeRole"},
 {"Effect":"Deny","Principal":"*","Action":"sts:AssumeRole","Condition":{"StringEquals":{"aws:PrincipalTag/Left":"yes"}}}]}`

func TestEvaluateTrust(t *testing.T) {
	doc, err := ParseTrust([]byte(trustPolicy))
	if err != nil {
		t.Fatal(err)
	}
	external := Context{"sts:ExternalId": {"secret"}}
	tests := []struct {
		name, arn, account, action string
		ctx                        Context
		want                       Effect
		delegated                  bool
	}{
		{"anyone of the account, who needs a policy too", "arn:aws:iam::111111111111:user/alice", "111111111111", "sts:AssumeRole", nil, Allowed, true},
		{"another account", "arn:aws:iam::333333333333:user/alice", "333333333333", "sts:AssumeRole", nil, ImplicitlyDenied, false},
		{"another action", "arn:aws:iam::111111111111:user/alice", "111111111111", "sts:TagSession", nil, ImplicitlyDenied, false},
		{"named with the external id", "arn:aws:iam::222222222222:user/carol", "222222222222", "sts:AssumeRole", external, Allowed, false},
		{"named without it", "arn:aws:iam::222222222222:user/carol", "222222222222", "sts:AssumeRole", nil, ImplicitlyDenied, false},
		{"another user of that account", "arn:aws:iam::222222222222:user/carola", "222222222222", "sts:AssumeRole", external, ImplicitlyDenied, false},
		{"session of a named role", "arn:aws:sts::222222222222:assumed-role/Night/dave", "222222222222", "sts:AssumeRole",
			Context{"sts:externalid": {"secret"}, "aws:PrincipalArn": {"arn:aws:iam::222222222222:role/ops/Night"}}, Allowed, false},
		{"session of a role of that name on another path", "arn:aws:sts::222222222222:assumed-role/Night/dave", "222222222222", "sts:AssumeRole",
			Context{"sts:externalid": {"secret"}, "aws:PrincipalArn": {"arn:aws:iam::222222222222:role/Night"}}, ImplicitlyDenied, false},
		{"service", "ssm.amazonaws.com", "", "sts:AssumeRole", nil, Allowed, false},
		{"denied", "arn:aws:iam::111111111111:user/alice", "111111111111", "sts:AssumeRole", Context{"aws:PrincipalTag/left": {"yes"}}, ExplicitlyDenied, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := EvaluateTrust(doc, tt.arn, tt.account, tt.action, tt.ctx)
			if d.Effect != tt.want || d.Delegated != tt.delegated {
				t.Errorf("got %v, delegated %v, want %v, %v", d.Effect, d.Delegated, tt.want, tt.delegated)
			}
		})
	}
}

// TestTrustIsNoPermission: a trust policy grants nothing as an identity policy, and
// an identity policy trusts nobody.
func TestTrustIsNoPermission(t *testing.T) {
	trust, err := ParseTrust([]byte(trustPolicy))
	if err != nil {
		t.Fatal(err)
	}
	req := &Request{Action: "sts:AssumeRole", Resource: "*"}
	sources := []Source{{Document: trust}}
	if got := NewSet(sources).Evaluate(req).Effect; got != ImplicitlyDenied {
		t.Errorf("trust policy as identity policy: got %v", got)
	}
	if got := Explain(sources, req).Effect; got != ImplicitlyDenied {
		t.Errorf("trust policy as identity policy, explained: got %v", got)
	}
	all := mustParse(t, `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)
	if got := EvaluateTrust(all, "arn:aws:iam::111111111111:user/a", "111111111111", "sts:AssumeRole", nil).Effect; got != ImplicitlyDenied {
		t.Errorf("identity policy as trust policy: got %v", got)
	}
	if got := EvaluateTrust(nil, "", "", "", nil).Effect; got != ImplicitlyDenied {
		t.Errorf("no trust policy: got %v", got)
	}
}

func TestParseTrustErrors(t *testing.T) {
	statement := func(principal, action, more string) string {
		return `{"Statement":[{"Effect":"Allow","Principal":` + principal + `,"Action":"` + action + `"` + more + `}]}`
	}
	tests := []struct{ name, text, want string }{
		{"no principal", `{"Statement":[{"Effect":"Allow","Action":"sts:AssumeRole"}]}`, "missing element Principal"},
		{"resource", statement(`"*"`, "sts:AssumeRole", `,"Resource":"*"`), "Resource is not allowed in a trust policy"},
		{"not principal", `{"Statement":[{"Effect":"Allow","NotPrincipal":"*","Action":"sts:AssumeRole"}]}`, "NotPrincipal is not allowed"},
		{"other service", statement(`"*"`, "ssm:StartSession", ""), "allowed are sts actions"},
		{"wildcard in an ARN", statement(`{"AWS":"arn:aws:iam::111111111111:user/*"}`, "sts:AssumeRole", ""), "without wildcards"},
		{"wildcard in a service", statement(`{"Service":"*"}`, "sts:AssumeRole", ""), "without wildcards"},
		{"group", statement(`{"AWS":"arn:aws:iam::111111111111:group/ops"}`, "sts:AssumeRole", ""), "is not allowed"},
		{"short account", statement(`{"AWS":"1111"}`, "sts:AssumeRole", ""), "twelve digits"},
		{"unknown kind", statement(`{"Aws":"*"}`, "sts:AssumeRole", ""), `did you mean "AWS"?`},
		{"string", statement(`"arn:aws:iam::111111111111:root"`, "sts:AssumeRole", ""), `Principal must be "*" or an object`},
		{"nobody", statement(`{"AWS":[]}`, "sts:AssumeRole", ""), "is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseTrust([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}
