package policy

import (
	"slices"
	"strings"
)

// arnParts are the segments of a resource pattern, variables written as *.
type arnParts struct {
	partition, service, region, account, resource string
}

// splitARN splits a resource pattern; one that is * or ends early has * in what is
// not said.
func splitARN(p *pattern) arnParts {
	var b strings.Builder
	for i := range p.tokens {
		switch t := &p.tokens[i]; t.kind {
		case literal:
			b.WriteString(t.text)
		case any1:
			b.WriteByte('?')
		default:
			b.WriteByte('*')
		}
	}
	f := strings.SplitN(b.String(), ":", 6)
	if p.all {
		f = nil
	}
	for len(f) < 6 {
		f = append(f, "*")
	}
	return arnParts{partition: f[1], service: f[2], region: f[3], account: f[4], resource: f[5]}
}

// covers reports whether the service and the resource match, in whatever region
// and account.
func (a arnParts) covers(service, resource string) bool {
	return wildcard(a.service, service) && wildcard(a.resource, resource)
}

func wildcard(text, s string) bool {
	p, _ := compile(text, 0, syntax{wildcards: true})
	return p.match(&environment{}, s, 0)
}

// mayStart reports whether something that matches the pattern starts with prefix.
func mayStart(text, prefix string) bool {
	fixed, wild := text, false
	if i := strings.IndexAny(text, "*?"); i >= 0 {
		fixed, wild = text[:i], true
	}
	return strings.HasPrefix(fixed, prefix) || wild && strings.HasPrefix(prefix, fixed)
}

// isNode reports whether the pattern can match nodes.
func (a arnParts) isNode() bool {
	return wildcard(a.service, "ec2") && mayStart(a.resource, "instance/") ||
		wildcard(a.service, "ssm") && mayStart(a.resource, "managed-instance/")
}

// isDocument reports whether the pattern can match documents.
func (a arnParts) isDocument() bool {
	return wildcard(a.service, "ssm") && mayStart(a.resource, "document/")
}

func (l *linter) resources(s *Statement) {
	for i := range s.resources {
		p := &s.resources[i]
		l.variables(p)
		if p.all {
			continue
		}
		a := splitARN(p)
		if why, hint := a.matchesNothing(); why != "" {
			l.report(p.off, Error, "matches-nothing", hint, "%s matches nothing: %s", p.text, why)
		} else {
			l.nodeID(p, a)
			l.sessionPrefix(s, p)
		}
	}
	l.listOnly(s)
}

// sessionPrefix finds sessions that are told by the name that their ids begin with:
// alice-* are also those of a user alice-b, and of role sessions named alice.
func (l *linter) sessionPrefix(s *Statement, p *pattern) {
	for i := 1; i < len(p.tokens)-1; i++ {
		t := &p.tokens[i]
		byName := t.kind == variable && t.text == "aws:username" && p.tokens[i+1].kind != variable
		if !byName || !strings.HasSuffix(p.tokens[i-1].text, ":session/") || s.Deny || s.asksForOwner() {
			continue
		}
		l.report(p.off, Warning, "session-prefix", `write "Resource": "*" and "Condition": {"StringLike": {"ssm:resourceTag/aws:ssmmessages:session-id": "${aws:userid}"}}`,
			"%s takes in the sessions of other users whose names begin with the user's and a hyphen", p.text)
	}
}

// asksForOwner reports whether a condition looks at whose session it is.
func (s *Statement) asksForOwner() bool {
	return slices.ContainsFunc(s.conditions, func(c condition) bool {
		return strings.HasSuffix(c.key, "resourcetag/aws:ssmmessages:session-id")
	})
}

// matchesNothing says why no resource has an ARN like this; empty if one may. It
// knows the resources that Sallyport has.
func (a arnParts) matchesNothing() (why, hint string) {
	if !wildcard(a.partition, "aws") {
		return "the partition is aws", "arn:aws:…"
	}
	if why, hint := a.badAccount(); why != "" {
		return why, hint
	}
	kind, id, _ := strings.Cut(a.resource, "/")
	switch a.service {
	case "ec2", "ssm":
		if a.region == "" && kind != "*" {
			return "the region is empty", a.with("*", orStar(a.account))
		}
	case "iam", "sts":
		if a.region != "" && !strings.Contains(a.region, "*") {
			return a.service + " resources have no region", a.with("", a.account)
		}
	}
	switch {
	case a.service == "ssm" && kind == "document":
		return a.badDocument(id)
	case a.service == "ec2" && kind == "instance" && strings.HasPrefix(id, "mi-"):
		return "mi-… nodes are managed instances", "arn:aws:ssm:" + a.region + ":" + a.account + ":managed-instance/" + id
	case a.service == "ssm" && kind == "managed-instance" && strings.HasPrefix(id, "i-"):
		return "i-… nodes are EC2 instances", "arn:aws:ec2:" + a.region + ":" + a.account + ":instance/" + id
	case slices.Contains([]string{"ec2", "iam", "sts"}, a.service) && a.account == "":
		return "the account is empty", a.with(a.region, "*")
	case a.service == "ssm" && slices.Contains([]string{"managed-instance", "session", "instance"}, kind) && a.account == "":
		return "the account is empty", a.with(a.region, "*")
	case (a.service == "ec2" || a.service == "ssm") && !strings.ContainsAny(a.resource, "/*?"):
		return "the resource has no type, such as instance/ or document/", ""
	}
	return "", ""
}

func orStar(s string) string {
	if s == "" {
		return "*"
	}
	return s
}

// with writes the ARN with another region and account.
func (a arnParts) with(region, account string) string {
	return strings.Join([]string{"arn", a.partition, a.service, region, account, a.resource}, ":")
}

func (a arnParts) badAccount() (why, hint string) {
	known := slices.Contains([]string{"ec2", "ssm", "iam", "sts"}, a.service)
	if !known || a.account == "" || a.account == "aws" || strings.ContainsAny(a.account, "*?") || isAccount(a.account) {
		return "", ""
	}
	return "an account has twelve digits", ""
}

// badDocument checks the account of a document's ARN: AWS-owned documents have
// none, all others have one.
func (a arnParts) badDocument(name string) (why, hint string) {
	owned := strings.HasPrefix(name, "AWS-")
	mayBeOwned := mayStart(name, "AWS-")
	switch {
	case owned && strings.Trim(a.account, "*") != "":
		return "documents named AWS-… belong to AWS and have no account in their ARN", a.with(a.region, "")
	case !mayBeOwned && a.account == "":
		return "the account is empty, which only documents named AWS-… have", a.with(a.region, "*")
	}
	return "", ""
}

// nodeID finds ids that are not as long as node ids are.
func (l *linter) nodeID(p *pattern, a arnParts) {
	kind, id, _ := strings.Cut(a.resource, "/")
	if !(a.service == "ec2" && kind == "instance" || a.service == "ssm" && kind == "managed-instance") || strings.ContainsAny(id, "*?") {
		return
	}
	_, digits, ok := strings.Cut(id, "-")
	hex := strings.Trim(digits, "0123456789abcdef") == ""
	if !ok || !hex || len(digits) != 17 && !(kind == "instance" && len(digits) == 8) {
		l.report(p.off, Warning, "node-id", "", "%q is not a node id: one has 17 hexadecimal digits after i- or mi-", id)
	}
}

// listOnly finds actions that are authorised on * only, in statements that name
// resources.
func (l *linter) listOnly(s *Statement) {
	if s.resources == nil || s.notResource || s.notAction || slices.ContainsFunc(s.resources, func(p pattern) bool { return p.all }) {
		return
	}
	only := []string{"ssm:describesessions", "ssm:describeinstanceinformation", "ssm:describeinstanceproperties", "ec2:describeinstances", "sts:getcalleridentity"}
	for i := range s.actions {
		if p := &s.actions[i]; p.isText && slices.Contains(only, p.plain) {
			l.report(p.off, Warning, "needs-star", `put it into a statement with "Resource": "*"`,
				"%s is authorised on * only, which no resource of this statement matches", p.text)
		}
	}
}

// forwardOnly finds policies that limit the documents of ssm:StartSession to some
// without a shell, and yet grant one: a request that names no document gets the
// default shell document, which is not checked unless a statement asks for it.
func (l *linter) forwardOnly() {
	if l.doc.trust || l.guarded() {
		return
	}
	limited, shell := false, false
	var nodes []*pattern
	for i := range l.doc.Statements {
		s := &l.doc.Statements[i]
		if s.Deny || s.notResource || !s.grants("ssm:startsession") {
			continue
		}
		for j := range s.resources {
			a := splitARN(&s.resources[j])
			shell = shell || a.covers("ssm", "document/SSM-SessionManagerRunShell")
			limited = limited || a.isDocument()
			if nothing, _ := a.matchesNothing(); nothing == "" && a.isNode() && !s.checksDocument(true) && !s.needsRemote() {
				nodes = append(nodes, &s.resources[j])
			}
		}
	}
	if !limited || shell {
		return
	}
	for _, p := range nodes {
		l.report(p.off, Warning, "forward-only-shell", `add "Condition": {"BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"}} to the statement`,
			"the documents are limited, but a session that names none gets a shell on %s: the default document is not checked", p.text)
	}
}

// guarded reports whether a Deny refuses sessions whose document is not checked.
func (l *linter) guarded() bool {
	return slices.ContainsFunc(l.doc.Statements, func(s Statement) bool {
		return s.Deny && s.grants("ssm:startsession") && s.checksDocument(false)
	})
}

// checksDocument reports whether a condition asks for ssm:SessionDocumentAccessCheck.
func (s *Statement) checksDocument(want bool) bool {
	return slices.ContainsFunc(s.conditions, func(c condition) bool {
		return c.key == "ssm:sessiondocumentaccesscheck" && c.family == familyBool && c.operands[0].truth == want
	})
}
