package policy

import "strings"

type principalKind uint8

const (
	principalAny       principalKind = iota // *
	principalAccount                        // an account: twelve digits or its root ARN
	principalARN                            // a user, role or role session
	principalService                        // {"Service": …}
	principalFederated                      // {"Federated": …}
)

// principal is one entry of a trust policy's Principal element.
type principal struct {
	kind  principalKind
	value string // the account's digits, the ARN, the service or the provider
	text  string // as the policy has it
	off   int
}

func (p *parser) principal(s *Statement, n *node) error {
	if !p.doc.trust {
		return nil
	}
	v := n.member("Principal")
	switch {
	case v == nil:
		return p.fail(n.off, "missing element Principal")
	case v.kind == jsonString && v.text == "*":
		s.principals = []principal{{kind: principalAny, text: "*", off: v.off}}
		return nil
	case v.kind != jsonObject || len(v.members) == 0:
		return p.fail(v.off, `Principal must be "*" or an object such as {"AWS": "arn:aws:iam::ACCOUNT:user/NAME"}`)
	}
	if err := p.elements(v, "AWS", "Service", "Federated"); err != nil {
		return err
	}
	for i := range v.members {
		if err := p.principalMember(s, &v.members[i]); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) principalMember(s *Statement, m *member) error {
	list, err := p.strings(&m.value, "Principal "+m.name)
	if err != nil {
		return err
	}
	for i := range list {
		one := principal{text: list[i].text, value: list[i].text, off: list[i].off}
		switch m.name {
		case "Service":
			one.kind = principalService
		case "Federated":
			one.kind = principalFederated
		default:
			one.kind, one.value = awsPrincipal(one.text)
			if one.value == "" {
				return p.fail(one.off, "principal %q is not allowed; allowed are *, an account's twelve digits, or the ARN of an account's root, a user, a role or a role session, without wildcards (narrow * by a condition on aws:PrincipalArn)", shorten(one.text))
			}
		}
		if m.name != "AWS" && (one.value == "" || strings.ContainsAny(one.value, "*?")) {
			return p.fail(one.off, "principal %q must be a full name, without wildcards", shorten(one.text))
		}
		s.principals = append(s.principals, one)
	}
	return nil
}

// awsPrincipal reads an entry of {"AWS": …}; the value is empty for what is not allowed.
func awsPrincipal(text string) (principalKind, string) {
	if text == "*" {
		return principalAny, text
	}
	if isAccount(text) {
		return principalAccount, text
	}
	f := strings.SplitN(text, ":", 6)
	if len(f) < 6 || f[0] != "arn" || f[1] == "" || f[3] != "" || !isAccount(f[4]) || strings.ContainsAny(text, "*?") {
		return principalARN, ""
	}
	switch kind, name, _ := strings.Cut(f[5], "/"); {
	case f[2] == "iam" && f[5] == "root":
		return principalAccount, f[4]
	case f[2] == "iam" && (kind == "user" || kind == "role") && name != "":
		return principalARN, text
	case f[2] == "sts" && (kind == "assumed-role" && strings.Contains(name, "/") || kind == "federated-user" && name != ""):
		return principalARN, text
	}
	return principalARN, ""
}

func isAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// caller is who asks to assume a role.
type caller struct {
	arn, roleARN, account string
}

// matches reports whether the entry names the caller. A role's ARN names all its
// sessions.
func (p *principal) matches(c *caller) bool {
	switch p.kind {
	case principalAny:
		return true
	case principalAccount:
		return p.value == c.account
	case principalARN:
		return p.value == c.arn || p.value == c.roleARN
	case principalService:
		return !strings.HasPrefix(c.arn, "arn:") && p.value == c.arn
	}
	return p.value == c.arn // the provider that vouched for the caller
}

// namesCaller reports whether one of the entries names the caller, and whether only
// by account.
func (s *Statement) namesCaller(c *caller) (named, delegated bool) {
	for i := range s.principals {
		if !s.principals[i].matches(c) {
			continue
		}
		if s.principals[i].kind != principalAccount {
			return true, false
		}
		named = true
	}
	return named, named
}

// EvaluateTrust decides whether a role's trust policy lets a caller do action
// (sts:AssumeRole, sts:TagSession). The caller is given by its ARN (that of the
// session, for a role session) and account; a service or an identity provider by its
// name, with no account. The ARN of a session's role is taken from aws:PrincipalArn
// in ctx. An allow that names only the caller's account sets Delegated: the account
// trusts itself, and the caller's own policies must allow the action as well. Where
// nothing allows, the reasons are those of every statement on the action.
func EvaluateTrust(doc *Document, callerARN, callerAccount, action string, ctx Context) Decision {
	if doc == nil || !doc.trust {
		return Decision{}
	}
	env := &environment{context: ctx}
	c := &caller{arn: callerARN, account: callerAccount}
	if v := env.values("aws:principalarn"); len(v) == 1 {
		c.roleARN = v[0]
	}
	req := &Request{Principal: callerARN, Action: action, Context: ctx}
	src := &Source{Name: "trust policy", Document: doc}
	var outcomes []Reason
	delegated := true
	for i := range doc.Statements {
		s := &doc.Statements[i]
		r := explainStatement(src, s, req, env, c)
		outcomes = append(outcomes, r)
		if _, byAccount := s.namesCaller(c); r.Matched && !byAccount {
			delegated = false
		}
	}
	d := decide(outcomes, nil)
	d.Delegated = d.Allowed() && delegated
	return d
}
