package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/access"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/policy"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// Reviewing access: what makes asking needless, what was granted for nothing, who may
// approve themselves, and who gets in past the server.

// reviewGrants is how many grants of lately are looked at for being used.
const reviewGrants = 500

type reviewAccessOutput struct {
	Standing []standingAccess `json:"Standing"`
	Unused   []unusedGrant    `json:"Unused"`
	Self     []selfApproval   `json:"Self"`
	Keys     []unmanagedKey   `json:"Keys"`
	// Silent are nodes whose agent does not report authorized keys.
	Silent []string `json:"Silent,omitempty"`
	Users  int      `json:"Users"` // looked at
	Nodes  int      `json:"Nodes"`
}

// standingAccess is a permission that gives without asking what a flow offers.
type standingAccess struct {
	Person string `json:"Person"`
	Flow   string `json:"Flow"`
	Target string `json:"Target"`
	What   string `json:"What"`             // "3 nodes, frontend-1 among them", "role X"
	Policy string `json:"Policy,omitempty"` // that allows it
}

type unusedGrant struct {
	RequestID string    `json:"RequestId"`
	Person    string    `json:"Person"`
	Flow      string    `json:"Flow"`
	From      wire.Time `json:"From"`
	To        wire.Time `json:"To,omitzero"`
}

type selfApproval struct {
	Person string `json:"Person"`
	Flow   string `json:"Flow,omitempty"` // empty: any
	Why    string `json:"Why"`
}

type unmanagedKey struct {
	NodeID      string    `json:"NodeId"`
	Name        string    `json:"Name,omitempty"`
	Login       string    `json:"Login"`
	File        string    `json:"File"`
	Fingerprint string    `json:"Fingerprint"`
	Type        string    `json:"Type"`
	Comment     string    `json:"Comment,omitempty"`
	Authority   bool      `json:"Authority,omitempty"`
	Reported    wire.Time `json:"Reported"`
}

func reviewAccess(ctx context.Context, c *Call, _ *struct{}) (*reviewAccessOutput, error) {
	s := c.Server
	if s.config.Access == nil {
		return nil, exception("ValidationException", "This server has no access just in time.")
	}
	users, err := s.config.Identities.Users(ctx, identity.Page{})
	if err != nil {
		return nil, err
	}
	nodes, err := s.config.Nodes.Nodes(ctx, node.Filter{})
	if err != nil {
		return nil, err
	}
	r := &reviewer{server: s, origin: c.Origin, nodes: nodes, out: &reviewAccessOutput{
		Standing: []standingAccess{}, Unused: []unusedGrant{}, Self: []selfApproval{}, Keys: []unmanagedKey{}, Nodes: len(nodes),
	}}
	for _, u := range users {
		if u.Disabled {
			continue
		}
		r.out.Users++
		if err := r.person(ctx, s.resolver.UserPrincipal(u)); err != nil {
			return nil, fmt.Errorf("reviewing user %s: %w", u.Name, err)
		}
	}
	return r.out, errors.Join(r.grants(ctx), r.keys(ctx, users))
}

// reviewer collects findings.
type reviewer struct {
	server *Server
	origin access.Origin
	nodes  []node.Node
	out    *reviewAccessOutput
}

// person looks at what somebody may do without asking, and whether they decide for
// themselves.
func (r *reviewer) person(ctx context.Context, p identity.Principal) error {
	j, err := r.server.checker.Judge(ctx, p, access.Moment{WithoutGrants: true})
	if err != nil {
		return err
	}
	r.rewrites(p, j)
	offers, err := r.server.config.Access.Offers(ctx, p, "")
	if err != nil {
		return err
	}
	for _, o := range offers {
		for _, t := range o.Flow.Targets {
			if err := r.standing(ctx, p, j, o.Flow, t); err != nil {
				return err
			}
		}
		if err := r.self(ctx, p, o.Flow); err != nil {
			return err
		}
	}
	return nil
}

// standing looks whether a person has what a target gives.
func (r *reviewer) standing(ctx context.Context, p identity.Principal, j *access.Judge, f *flow.Flow, t flow.Target) error {
	found := standingAccess{Person: p.Name, Flow: f.Name, Target: t.Name}
	switch t.Kind {
	case flow.TargetNodes:
		found.What, found.Policy = r.standingNodes(p, j, t.Nodes)
	case flow.TargetRole:
		role, err := r.server.config.Identities.Role(ctx, t.Role)
		if errors.Is(err, identity.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		found.What, found.Policy = r.standingRole(p, j, role)
	case flow.TargetGroup:
		groups, err := r.server.config.Identities.GroupsOf(ctx, p.Name, identity.Page{})
		if err != nil {
			return err
		}
		if slices.ContainsFunc(groups, func(g identity.Group) bool { return strings.EqualFold(g.Name, t.Group) }) {
			found.What = "is a member of group " + t.Group
		}
	}
	if found.What != "" {
		r.out.Standing = append(r.out.Standing, found)
	}
	return nil
}

// standingNodes says on which nodes of a target a person may start sessions anyway, and by
// which policy on the first of them.
func (r *reviewer) standingNodes(p identity.Principal, j *access.Judge, nodes *flow.Nodes) (what, source string) {
	n, first := 0, ""
	for _, v := range r.nodes {
		resource := r.server.nodeResource(v)
		q := access.Query{Principal: p, Action: actionStartSession, Resources: []access.Resource{resource}, Origin: r.origin}
		if !nodes.Has(flow.Node{ID: v.ID, Name: v.AssignedName(), Tags: v.Tags}) || !j.Possible(q, resource) {
			continue
		}
		if n++; n == 1 {
			first = v.DisplayName()
			source = sourceOf(j.Decide(q))
		}
	}
	switch n {
	case 0:
		return "", ""
	case 1:
		return "may start sessions on " + first, source
	}
	return fmt.Sprintf("may start sessions on %d nodes, %s among them", n, first), source
}

// sourceOf is the policy that allows something.
func sourceOf(d access.Decision) string {
	for _, reason := range d.Policy.Reasons {
		if reason.Effect == "Allow" {
			return reason.Source
		}
	}
	return ""
}

func (r *reviewer) standingRole(p identity.Principal, j *access.Judge, role identity.Role) (what, source string) {
	trust, err := policy.ParseTrust([]byte(role.Trust))
	if err != nil {
		return "", "" // nobody assumes it
	}
	d := j.Assume(access.Query{
		Principal: p, Action: "sts:AssumeRole", Origin: r.origin,
		Resources: []access.Resource{{ARN: r.server.config.Realm.IAM("role", role.Path, role.Name), Tags: role.Tags}},
		Context:   map[string][]string{"sts:RoleSessionName": {p.Name}},
	}, trust)
	if !d.Allowed {
		return "", ""
	}
	return "may assume role " + role.Name, sourceOf(d)
}

// self looks whether a person may decide on a request of their own.
func (r *reviewer) self(ctx context.Context, p identity.Principal, f *flow.Flow) error {
	if f.BreakGlass != nil {
		r.out.Self = append(r.out.Self, selfApproval{p.Name, f.Name, "break-glass gives it without a decision, to be reviewed afterwards"})
	}
	own := grant.Request{
		State: grant.Pending, PendingUntil: r.origin.Time.Add(time.Hour), StageSince: r.origin.Time,
		Frozen: grant.Frozen{Flow: *f, Person: flow.Person{ID: p.UserID, Name: p.Name, ARN: p.ARN, Tags: p.Tags}, Principal: p.ARN, Targets: f.Targets, Created: r.origin.Time},
	}
	p.MFA, p.MFAAt, p.Factor = true, r.origin.Time, "totp"
	for i, stage := range f.Stages {
		if own.Stage = i; !stage.AllowSelf {
			continue
		}
		because, err := r.server.config.Access.MayDecide(ctx, p, own)
		if err != nil {
			return err
		}
		if because == "" {
			r.out.Self = append(r.out.Self, selfApproval{p.Name, f.Name, "stage " + stage.Name + " takes the approval of who asks"})
		}
	}
	return nil
}

// rewriting are actions by which somebody could make themselves a decider, or need none.
var rewriting = []string{"sallyport:PutFlows", "sallyport:ApplyConfiguration", "iam:AddUserToGroup", "iam:PutUserPolicy", "iam:AttachUserPolicy", "ssm:CreateDocument"}

func (r *reviewer) rewrites(p identity.Principal, j *access.Judge) {
	var may []string
	for _, action := range rewriting {
		arn := "*"
		switch action {
		case "iam:PutUserPolicy", "iam:AttachUserPolicy":
			arn = p.ARN
		case "iam:AddUserToGroup":
			arn = r.server.config.Realm.IAM("group", "/", "any")
		case "ssm:CreateDocument":
			arn = r.server.config.Realm.Document("any")
		}
		q := access.Query{Principal: p, Action: action, Resources: []access.Resource{{ARN: arn}}, Origin: r.origin}
		if j.Decide(q).Allowed {
			may = append(may, action)
		}
	}
	if len(may) > 0 {
		r.out.Self = append(r.out.Self, selfApproval{Person: p.Name, Why: "may change who decides, or what needs no decision: " + strings.Join(may, ", ")})
	}
}

// grants looks for grants under which no session was started.
func (r *reviewer) grants(ctx context.Context) error {
	requests, err := r.server.config.Access.Requests(ctx, grant.Filter{Limit: reviewGrants})
	if err != nil {
		return err
	}
	for _, v := range requests {
		used, err := r.used(ctx, v)
		if err != nil {
			return err
		}
		if !used {
			r.out.Unused = append(r.out.Unused, unusedGrant{
				RequestID: v.ID, Person: v.Frozen.Person.Name, Flow: v.Frozen.Flow.Name,
				From: wire.Time{Time: v.ActivatedAt}, To: wire.Time{Time: v.EndedAt},
			})
		}
	}
	return nil
}

// used reports whether a session hung on a grant; for one that gives nothing here, nobody
// can tell.
func (r *reviewer) used(ctx context.Context, v grant.Request) (bool, error) {
	from, to, begun := lasted(v, r.origin.Time)
	here := slices.ContainsFunc(v.Frozen.Targets, func(t flow.Target) bool {
		return t.Kind == flow.TargetNodes || t.Kind == flow.TargetRole || t.Kind == flow.TargetGroup
	})
	if !begun || !here {
		return true, nil
	}
	rows, err := r.server.config.Sessions.Sessions(ctx, session.Filter{
		RootID: v.Frozen.Person.ID, StartedAfter: from.Add(-time.Second), StartedBefore: to.Add(time.Second),
	})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(rows, func(row session.Session) bool { return strings.Contains(row.Authority, v.ID) }), nil
}

// keys looks for keys on nodes that are none of an active user's here.
func (r *reviewer) keys(ctx context.Context, users []identity.User) error {
	reports, err := r.server.config.Nodes.Keys(ctx)
	if err != nil {
		return err
	}
	managed, err := r.managed(ctx, users)
	if err != nil {
		return err
	}
	byID := map[string]node.Keys{}
	for _, report := range reports {
		byID[report.NodeID] = report
	}
	for _, n := range r.nodes {
		report, ok := byID[n.ID]
		if !ok {
			r.out.Silent = append(r.out.Silent, n.ID)
			continue
		}
		for _, k := range report.Keys {
			if managed[k.Fingerprint] && !k.Authority {
				continue
			}
			r.out.Keys = append(r.out.Keys, unmanagedKey{
				NodeID: n.ID, Name: n.AssignedName(), Login: k.Login, File: k.File, Fingerprint: k.Fingerprint,
				Type: k.Type, Comment: k.Comment, Authority: k.Authority, Reported: wire.Time{Time: report.Reported},
			})
		}
	}
	return nil
}

// managed are the fingerprints of the active keys of users who are not disabled, and of
// our own authorities.
func (r *reviewer) managed(ctx context.Context, users []identity.User) (map[string]bool, error) {
	all := map[string]bool{}
	for _, u := range users {
		if u.Disabled {
			continue
		}
		keys, err := r.server.config.Identities.SSHKeys(ctx, u.Name)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.Body)); err == nil && k.Active {
				all[ssh.FingerprintSHA256(key)] = true
			}
		}
	}
	return all, nil
}
