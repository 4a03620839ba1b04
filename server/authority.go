package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"sallyport.dev/access"
	"sallyport.dev/document"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/policy"
	"sallyport.dev/session"
)

// What a session was allowed on is kept with it, so that the question can be asked again
// while the session lives: of the same person with today's tags, groups and policies,
// about the same node with today's tags.

// accessEngine is what enforcing needs of access just in time; *grant.Engine is one.
type accessEngine interface {
	access.GrantSource
	access.LaterGrants
	Held(ctx context.Context, p identity.Principal) ([]grant.Request, error)
	Usable(ctx context.Context, p identity.Principal) ([]grant.Request, error)
	Request(ctx context.Context, id string) (grant.Request, error)
	Extend(ctx context.Context, a grant.Actor, id string, by time.Duration, reason string) (grant.Request, error)
	Deciders(ctx context.Context, r grant.Request, limit int) ([]flow.Person, error)
	Revision(ctx context.Context) (int64, error)
}

// authority is the question that the start of a session answered. It is stored with the
// session, as JSON.
type authority struct {
	Principal identity.Claims `json:"principal"`
	KeyID     string          `json:"key_id,omitempty"` // that signed
	// Document is as the caller named it; empty for the default one, unnamed.
	Document string         `json:"document,omitempty"`
	Remote   *access.Remote `json:"remote,omitempty"` // of Port sessions
	// LoginKey is the login as policies see it. Login is the one that was chosen, if one
	// was, and OfDocument says that it is the document's own.
	LoginKey     string              `json:"login_key,omitempty"`
	Login        string              `json:"login,omitempty"`
	OfDocument   bool                `json:"of_document,omitempty"`
	ForwardAgent bool                `json:"forward_agent,omitempty"`
	Context      map[string][]string `json:"context,omitempty"` // further condition keys
	SourceIP     string              `json:"source_ip,omitempty"`
	UserAgent    string              `json:"user_agent,omitempty"`
	TLS          bool                `json:"tls,omitempty"`
	At           time.Time           `json:"at"` // when it was answered
	// Grants are the ids of the grants without which the answer would have been no.
	Grants []string `json:"grants,omitempty"`
}

// authority is the question that a plan answers.
func (c *Call) authority(in StartInput, p *plan) authority {
	a := authority{
		Principal: c.Principal.Claims(), KeyID: c.Principal.AccessKeyID,
		Document: p.named, Remote: p.remote, LoginKey: p.loginKey(), Login: p.login.name,
		ForwardAgent: in.Exec != nil && in.Exec.ForwardAgent, Context: in.Context,
		SourceIP: c.Origin.SourceIP, UserAgent: c.Origin.UserAgent, TLS: c.Origin.TLS, At: c.Origin.Time,
		Grants: p.grants,
	}
	if inputs := p.inputs(); inputs.RunAsEnabled {
		a.OfDocument = a.Login != "" && a.Login == inputs.RunAsDefaultUser
	}
	return a
}

func (p *plan) inputs() document.Inputs {
	if p.resolved == nil {
		return document.Inputs{}
	}
	return p.resolved.Inputs
}

func (a authority) encode() string {
	b, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("server: encoding an authority: %v", err)) // strings and times
	}
	return string(b)
}

func decodeAuthority(text string) (a authority, err error) {
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return a, fmt.Errorf("reading what a session was allowed on: %w", err)
	}
	return a, nil
}

// GrantsOf returns the ids of the requests whose grants a session began by.
func GrantsOf(s session.Session) ([]string, error) {
	if s.Authority == "" {
		return nil, nil
	}
	a, err := decodeAuthority(s.Authority)
	return a.Grants, err
}

// query asks about starting the session, at a time.
func (a authority) query(p identity.Principal, at time.Time) access.Query {
	return access.Query{
		Principal: p, Action: actionStartSession, Context: a.Context,
		Origin: access.Origin{SourceIP: a.SourceIP, UserAgent: a.UserAgent, TLS: a.TLS, Time: at},
	}
}

const actionStartSession = "ssm:StartSession"

// refused asks the question again; nil where it is answered as it was.
func (a authority) refused(s *Server, j *access.Judge, p identity.Principal, n node.Node, at time.Time) (d access.Decision, denied *access.DeniedError) {
	q := a.query(p, at)
	start := s.startOf(n, a.Document)
	start.Remote, start.Login = a.Remote, a.LoginKey
	if d = j.Start(q, start); !d.Allowed {
		return d, access.Denied(q, d)
	}
	for _, q := range a.more(s, q, n) {
		if d := j.Decide(q); !d.Allowed {
			return d, access.Denied(q, d)
		}
	}
	return d, nil
}

// more are the questions beside that of ssm:StartSession; see Call.checkMore.
func (a authority) more(s *Server, q access.Query, n node.Node) (more []access.Query) {
	q.Resources = []access.Resource{s.nodeResource(n)}
	own := a.OfDocument || slices.Contains(grantedLogins(q.Principal), a.Login)
	if (login{a.Login, own}).needsAction() {
		runAs := q
		runAs.Action = actionRunAs
		runAs.Context = withKey(q.Context, "sallyport:RunAsUser", a.Login)
		more = append(more, runAs)
	}
	if a.ForwardAgent {
		q.Action = actionForwardAgent
		more = append(more, q)
	}
	return more
}

func withKey(context map[string][]string, key, value string) map[string][]string {
	all := map[string][]string{key: {value}}
	for k, v := range context {
		if k != key {
			all[k] = v
		}
	}
	return all
}

// grantsOf are the ids of the grants whose policies made a decision.
func grantsOf(d access.Decision) (ids []string) {
	for _, r := range d.Policy.Reasons {
		if r.Kind == policy.Grant {
			ids = append(ids, requestID.FindAllString(r.Source, -1)...)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

var requestID = regexp.MustCompile(`\boi-[0-9a-f]{12}\b`)

// dependsOn returns the ids of the grants without which a decision would be another one;
// none for what is allowed anyway.
func (c *Call) dependsOn(ctx context.Context, d access.Decision, allowed func(*access.Judge) bool) ([]string, error) {
	if c.Server.access == nil {
		return nil, nil
	}
	j, err := c.Server.checker.Judge(ctx, c.Principal, access.Moment{WithoutGrants: true})
	if err != nil || allowed(j) {
		return nil, err
	}
	return grantsOf(d), nil
}

// goneClause says that who is behind a session is not there any more.
func (s *Server) goneClause(ctx context.Context, a authority) (string, error) {
	store, id := s.config.Identities, a.Principal.Root
	if a.Principal.Kind == identity.KindUser {
		id = a.Principal.ID
	}
	if id != "" {
		user, err := store.UserByID(ctx, id)
		switch {
		case errors.Is(err, identity.ErrNotFound):
			return "the user was deleted", nil
		case err != nil:
			return "", err
		case user.Disabled:
			return "the user " + user.Name + " was disabled", nil
		}
	}
	return "the role " + a.Principal.Name + " was deleted", nil
}

// grantClause tells how a grant ended; empty while it has not.
func grantClause(r grant.Request, now time.Time) string {
	name := "grant " + r.ID
	switch {
	case r.State == grant.Revoked && r.Because != "":
		return name + " was revoked by " + nameOf(r.EndedBy) + ": " + strings.TrimSuffix(shown(r.Because), ".")
	case r.State == grant.Revoked:
		return name + " was revoked by " + nameOf(r.EndedBy)
	case r.State == grant.Released:
		return name + " was given back by " + nameOf(r.EndedBy)
	case r.State == grant.Ended, r.State == grant.Active && !now.Before(r.EndsAt):
		return name + " is over, its time was up"
	case r.State.Over():
		return name + " is " + strings.ToLower(string(r.State))
	}
	return ""
}

// givesRole reports whether a grant lets its person assume a role.
func givesRole(r grant.Request, role string) bool {
	return slices.ContainsFunc(r.Frozen.Targets, func(t flow.Target) bool {
		return t.Kind == flow.TargetRole && strings.EqualFold(t.Role, role)
	})
}

// nameOf is the name in an ARN, for the terminal.
func nameOf(arn string) string { return shown(arn[strings.LastIndexByte(arn, '/')+1:]) }

// endedBy is the cause of a session whose grant has ended.
func endedBy(r grant.Request, now time.Time) *session.Cause {
	if clause := grantClause(r, now); clause != "" {
		return session.AccessEnded(r.ID, clause)
	}
	return nil
}

// maxQuoted bounds what somebody wrote that is shown to somebody else, in bytes.
const maxQuoted = 300

// shown makes what somebody wrote fit for another's terminal: nothing in it acts, and it
// stays one line.
func shown(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return unicode.ReplacementChar
		}
		return r
	}, truncate(strings.TrimSpace(text), maxQuoted))
}
