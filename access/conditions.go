package access

import (
	"strconv"
	"strings"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// Conditions fills the condition keys of a query for one of its resources.
func (c *Checker) Conditions(q Query, r Resource) policy.Context {
	ctx := make(policy.Context, 24+len(q.Principal.Tags)+2*len(r.Tags)+len(q.Context))
	c.addPrincipal(ctx, q.Principal, q.Origin.Time)
	c.addOrigin(ctx, q.Origin)
	if r.ARN != "*" {
		ctx.Add("aws:ResourceAccount", c.config.Realm.Account)
	}
	addTags(ctx, q.Action, r)
	for key, values := range q.Context {
		ctx.Add(key, values...)
	}
	for key, values := range r.Context {
		ctx.Add(key, values...)
	}
	return ctx
}

func (c *Checker) addPrincipal(ctx policy.Context, p identity.Principal, now time.Time) {
	ctx.Add("aws:PrincipalArn", p.PolicyARN)
	ctx.Add("aws:PrincipalType", principalType(p.Kind))
	ctx.Add("aws:PrincipalAccount", c.config.Realm.Account)
	ctx.Add("aws:userid", p.UserID)
	if p.Kind == identity.KindUser {
		ctx.Add("aws:username", p.Name)
	}
	for _, key := range p.Tags.Keys() {
		ctx.Add("aws:PrincipalTag/"+key, p.Tags.Values(key)...)
	}
	if p.SourceIdentity != "" {
		ctx.Add("aws:SourceIdentity", p.SourceIdentity)
	}
	// As in IAM, long-lived keys have neither a second factor nor its absence, unless one
	// comes with the call itself.
	if p.Temporary() || p.MFA {
		ctx.Add("aws:MultiFactorAuthPresent", strconv.FormatBool(p.MFA))
	}
	if p.Temporary() {
		ctx.Add("aws:TokenIssueTime", timestamp(p.IssuedAt))
	}
	if p.MFA {
		ctx.Add("aws:MultiFactorAuthAge", strconv.FormatInt(int64(now.Sub(p.MFAAt)/time.Second), 10))
	}
}

func principalType(k identity.Kind) string {
	switch k {
	case identity.KindUser:
		return "User"
	case identity.KindRole:
		return "AssumedRole"
	}
	return "Node"
}

func (c *Checker) addOrigin(ctx policy.Context, o Origin) {
	if o.SourceIP != "" {
		ctx.Add("aws:SourceIp", o.SourceIP)
	}
	if o.UserAgent != "" {
		ctx.Add("aws:UserAgent", o.UserAgent)
	}
	ctx.Add("aws:SecureTransport", strconv.FormatBool(o.TLS))
	ctx.Add("aws:CurrentTime", timestamp(o.Time))
	ctx.Add("aws:EpochTime", strconv.FormatInt(o.Time.Unix(), 10))
	ctx.Add("aws:RequestedRegion", c.config.Realm.Region)
}

func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// addTags fills the keys of a resource's tags: the global one, and those of the
// services that have one of their own.
func addTags(ctx policy.Context, action string, r Resource) {
	prefixes := []string{"aws:ResourceTag/"}
	switch service, _, _ := strings.Cut(action, ":"); service {
	case "ssm", "sallyport":
		prefixes = append(prefixes, "ssm:resourceTag/")
	case "iam", "sts":
		prefixes = append(prefixes, "iam:ResourceTag/")
	}
	if strings.HasPrefix(r.ARN, "arn:aws:ec2:") || strings.HasPrefix(action, "ec2:") {
		prefixes = append(prefixes, "ec2:ResourceTag/")
	}
	for _, key := range r.Tags.Keys() {
		for _, prefix := range prefixes {
			ctx.Add(prefix+key, r.Tags.Values(key)...)
		}
	}
}
