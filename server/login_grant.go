package server

import (
	"context"
	"path"
	"slices"

	"sallyport.dev/access"
	"sallyport.dev/document"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
)

// fillGranted makes a session that is allowed by nothing but a grant run as the login of
// that grant, where the caller asks for none. wrong is what keeps the session from
// running as the login that it would have otherwise. Whoever asks for a grant's login
// gets it by sallyport:RunAs, as any other.
func (c *Call) fillGranted(ctx context.Context, who identity.Principal, in StartInput, p *plan, wrong error) error {
	s := c.Server
	if s.access == nil || in.RunAs != "" || p.resolved == nil || p.elevated() || p.document.SessionType == document.Port {
		return wrong
	}
	usable, err := s.access.Usable(ctx, who)
	if err != nil {
		return err
	}
	logins := loginsOf(usable, p.node, p.name())
	if len(logins) == 0 {
		return wrong
	}
	j, err := s.checker.Judge(ctx, who, access.Moment{})
	if err != nil {
		return err
	}
	if wrong == nil && c.couldStart(j, who, in, p) {
		return nil
	}
	ordinary := p.login
	for _, name := range logins {
		if p.login = (login{name: name}); c.couldStart(j, who, in, p) {
			return nil
		}
	}
	// An approved grant begins when it is first used: with its own login, or never.
	if approved := approvedLogin(usable, p.node, p.name()); approved != "" {
		p.login = login{name: approved}
		return nil
	}
	p.login = ordinary
	return wrong
}

func (c *Call) couldStart(j *access.Judge, who identity.Principal, in StartInput, p *plan) bool {
	q := access.Query{Principal: who, Action: actionStartSession, Context: in.Context, Origin: c.Origin}
	return j.Start(q, p.start(c.Server)).Allowed
}

// disownLogin makes a login that only a role's or a session's tag names one of others, which
// takes sallyport:RunAs, where only a grant allows the session: that was given to the person,
// whatever role they are in, and a role's login is for what the role may do.
func (c *Call) disownLogin(ctx context.Context, p *plan) error {
	if len(p.grants) == 0 || !p.login.own || c.Principal.Kind != identity.KindRole {
		return nil
	}
	if inputs := p.resolved.Inputs; inputs.RunAsEnabled && inputs.RunAsDefaultUser == p.login.name {
		return nil // it is the document's
	}
	user, err := c.Server.config.Identities.UserByID(ctx, c.Principal.RootID())
	if err != nil {
		return err
	}
	p.login.own = slices.Contains(grantedLogins(c.Server.resolver.UserPrincipal(user)), p.login.name)
	return nil
}

// loginsOf are the logins of the grants that fit a node and a document, each once.
func loginsOf(requests []grant.Request, n node.Node, document string) (logins []string) {
	for _, r := range requests {
		for _, t := range r.Frozen.Targets {
			if login := loginFor(r, t, n, document); login != "" && !slices.Contains(logins, login) {
				logins = append(logins, login)
			}
		}
	}
	return logins
}

func approvedLogin(requests []grant.Request, n node.Node, document string) string {
	waiting := slices.DeleteFunc(slices.Clone(requests), func(r grant.Request) bool { return r.State != grant.Approved })
	if logins := loginsOf(waiting, n, document); len(logins) > 0 {
		return logins[0]
	}
	return ""
}

// loginFor is the login of a target that gives sessions with a document on a node; empty
// where it gives others, or leaves the login open.
func loginFor(r grant.Request, t flow.Target, n node.Node, document string) string {
	if t.Kind != flow.TargetNodes || t.Nodes == nil || t.Nodes.Login == "" {
		return ""
	}
	named := func(one flow.Node) bool { return one.ID == n.ID }
	if len(r.Frozen.Nodes) > 0 && !slices.ContainsFunc(r.Frozen.Nodes, named) {
		return ""
	}
	if !t.Nodes.Has(flow.Node{ID: n.ID, Name: n.AssignedName(), Tags: n.Tags}) {
		return ""
	}
	fits := func(pattern string) bool {
		ok, err := path.Match(pattern, document) // names have no slashes
		return ok && err == nil
	}
	if len(t.Nodes.Documents) > 0 && !slices.ContainsFunc(t.Nodes.Documents, fits) {
		return ""
	}
	return t.Nodes.Login
}
