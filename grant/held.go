package grant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// grantCache keeps what people hold, as of one revision of all grants: a change of any
// request, on any member, makes it all anew. The revision is read for each decision,
// which is all that one costs for who holds nothing.
type grantCache struct {
	mu       sync.Mutex
	revision int64
	people   map[string][]held
}

// held is an open grant with the policy that it is, which is made once.
type held struct {
	Request
	own []policy.Source // of its nodes and roles, without the policies of roles and groups
}

// maxHolders bounds the cache; a full one is emptied.
const maxHolders = 8192

func (c *grantCache) get(revision int64, person string) ([]held, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revision != revision {
		return nil, false
	}
	all, ok := c.people[person]
	return all, ok
}

// put keeps what was read after the revision was: it is that of the revision or newer.
func (c *grantCache) put(revision int64, person string, all []held) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if revision < c.revision {
		return
	}
	if c.people == nil || revision > c.revision || len(c.people) >= maxHolders {
		c.people = map[string][]held{}
		c.revision = revision
	}
	c.people[person] = all
}

// opened are a person's grants that are approved or active, by their rows.
func (e *Engine) opened(ctx context.Context, person string) ([]held, error) {
	revision, err := e.config.Store.GrantRevision(ctx)
	if err != nil {
		return nil, err
	}
	if all, ok := e.open.get(revision, person); ok {
		return all, nil
	}
	rows, err := e.config.Store.OpenGrants(ctx, person)
	if err != nil {
		return nil, err
	}
	var all []held
	for _, r := range rows {
		if !r.Intact() {
			e.config.Logger.Error("a request's row was changed: its grant does not count", "request", r.ID)
			continue
		}
		own, err := e.policies(r)
		if err != nil {
			return nil, fmt.Errorf("policy of grant %s: %w", r.ID, err)
		}
		all = append(all, held{r, own})
	}
	e.open.put(revision, person, all)
	return all, nil
}

// holding are a principal's grants that hold at a time.
func (e *Engine) holding(ctx context.Context, p identity.Principal, at time.Time) ([]held, error) {
	if p.IsNode() {
		return nil, nil
	}
	all, err := e.opened(ctx, p.RootID())
	var now []held
	for _, h := range all {
		if h.Holds(at) {
			now = append(now, h)
		}
	}
	return now, err
}

// Grants implements access.GrantSource: the policies of the active grants of who is
// behind a principal, whatever role they act in. One whose time is up counts no more,
// whatever its row says.
func (e *Engine) Grants(ctx context.Context, p identity.Principal) ([]policy.Source, error) {
	return e.GrantsAt(ctx, p, e.now())
}

// GrantsAt are those of Grants that still hold at a time, were nothing to change.
func (e *Engine) GrantsAt(ctx context.Context, p identity.Principal, at time.Time) ([]policy.Source, error) {
	now, err := e.holding(ctx, p, at)
	if err != nil {
		return nil, err
	}
	var all []policy.Source
	for _, h := range now {
		if all, err = e.addSources(ctx, all, h); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// addSources adds the policies of a grant: its own, and those that its roles and groups
// have at this moment.
func (e *Engine) addSources(ctx context.Context, all []policy.Source, h held) ([]policy.Source, error) {
	all = append(all, h.own...)
	for _, t := range h.Frozen.Targets {
		more, err := e.borrowed(ctx, t, h.ID)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

// borrowed are the policies of a role or a group that a target gives. A role with a
// permissions boundary lends none: what limits the role would not limit the person.
func (e *Engine) borrowed(ctx context.Context, t flow.Target, request string) ([]policy.Source, error) {
	var owner identity.Owner
	switch t.Kind {
	case flow.TargetRole:
		role, err := e.config.Directory.Role(ctx, t.Role)
		if errors.Is(err, identity.ErrNotFound) || err == nil && role.Boundary != "" {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		owner = identity.Owner{Kind: identity.OwnerRole, Name: role.Name}
	case flow.TargetGroup:
		owner = identity.Owner{Kind: identity.OwnerGroup, Name: t.Group}
	default:
		return nil, nil
	}
	if e.config.Sources == nil {
		return nil, nil
	}
	sources, err := e.config.Sources(ctx, owner)
	if errors.Is(err, identity.ErrNotFound) {
		return nil, nil
	}
	lent := make([]policy.Source, len(sources))
	for i, s := range sources {
		lent[i] = policy.Source{Kind: policy.Grant, Document: s.Document, Name: fmt.Sprintf("%s %s (grant %s): %s", owner.Kind, owner.Name, request, s.Name)}
	}
	return lent, err
}

// Held are the active grants of who is behind a principal.
func (e *Engine) Held(ctx context.Context, p identity.Principal) ([]Request, error) {
	now, err := e.holding(ctx, p, e.now())
	all := make([]Request, len(now))
	for i, h := range now {
		all[i] = h.Request
	}
	return all, err
}

// gives reports whether a request is for a role.
func (r Request) gives(role string) bool {
	return slices.ContainsFunc(r.Frozen.Targets, func(t flow.Target) bool {
		return t.Kind == flow.TargetRole && strings.EqualFold(t.Role, role)
	})
}

// keeps reports whether credentials that are tied so hold while the request's grant does:
// it gives the role, or without a role it is one of the grants themselves.
func (r Request) keeps(g identity.GrantedRole) bool {
	if g.Role == "" {
		return slices.Contains(g.Grants, r.ID)
	}
	return r.gives(g.Role)
}

// Granted implements that part of identity.Ties: credentials of a role that were issued
// under grants still hold while one of these is active, or another grant of the person
// gives the role. Those without a role hold while one of the grants does that they name.
// If not, because says why.
func (e *Engine) Granted(ctx context.Context, person string, g identity.GrantedRole) (because string, err error) {
	all, err := e.opened(ctx, person)
	if err != nil {
		return "", err
	}
	now := e.now()
	for _, h := range all {
		if h.Holds(now) && h.keeps(g) {
			return "", nil
		}
		if g.Role == "" && h.waitsForUse(now) && h.keeps(g) {
			return "", nil // what they are for begins on its first use
		}
	}
	return e.whyNot(ctx, person, g, now)
}

// maxEnded bounds how many of a person's latest requests are looked at for the one that
// kept credentials last.
const maxEnded = 50

// whyNot says which grant of a role was the last to end, and why. Another grant than those
// that the credentials were issued under may have kept them since.
func (e *Engine) whyNot(ctx context.Context, person string, g identity.GrantedRole, now time.Time) (string, error) {
	var last Request
	for _, id := range g.Grants {
		r, err := e.config.Store.Request(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return "", err
		}
		if last.ID == "" || last.over(now).Before(r.over(now)) {
			last = r
		}
	}
	if g.Role != "" {
		others, err := e.config.Store.Requests(ctx, Filter{Person: person, Limit: maxEnded})
		if err != nil {
			return "", err
		}
		for _, r := range others {
			if r.held() && r.gives(g.Role) && (last.ID == "" || last.over(now).Before(r.over(now))) {
				last = r
			}
		}
	}
	if last.ID == "" && g.Role == "" {
		return "the grant that they are for is not there any more", nil
	}
	if last.ID == "" {
		return "no grant gives the role " + g.Role + " any more", nil
	}
	if g.Role == "" {
		return fmt.Sprintf("the grant %s %s", last.ID, last.Ending(now)), nil
	}
	return fmt.Sprintf("the grant %s of the role %s %s", last.ID, g.Role, last.Ending(now)), nil
}

// held reports whether the request's grant has begun, whatever became of it.
func (r Request) held() bool { return !r.ActivatedAt.IsZero() && r.Extends() == "" }

// over is when the grant ended.
func (r Request) over(now time.Time) time.Time {
	if !r.EndedAt.IsZero() {
		return r.EndedAt
	}
	return earlier(r.EndsAt, now)
}

// Ending says how a request's grant ended: "ended at …", "was revoked by … at …: …".
func (r Request) Ending(now time.Time) string {
	at := " at " + r.over(now).Format("15:04:05 MST")
	because := ""
	if r.Because != "" {
		because = ": " + r.Because
	}
	switch r.State {
	case Released:
		return "was given back" + at
	case Revoked:
		return "was revoked by " + r.EndedBy + at + because
	}
	return "ended" + at + because
}

// GroupHolders are the unique ids of users who hold a group by grants at this moment. Rows that
// somebody changed give nobody anything.
func (e *Engine) GroupHolders(ctx context.Context, group string) ([]string, error) {
	active, err := e.config.Store.Requests(ctx, Filter{States: []State{Active}})
	if err != nil {
		return nil, err
	}
	now := e.now()
	var ids []string
	for _, r := range active {
		gives := slices.ContainsFunc(r.Frozen.Targets, func(t flow.Target) bool {
			return t.Kind == flow.TargetGroup && strings.EqualFold(t.Group, group)
		})
		if gives && r.Holds(now) && r.Intact() && !slices.Contains(ids, r.Frozen.Person.ID) {
			ids = append(ids, r.Frozen.Person.ID)
		}
	}
	return ids, nil
}

// Waiting are the policies of a principal's grants that were approved and begin on their
// first use.
func (e *Engine) Waiting(ctx context.Context, p identity.Principal) ([]policy.Source, error) {
	if p.IsNode() {
		return nil, nil
	}
	open, err := e.opened(ctx, p.RootID())
	var all []policy.Source
	for _, h := range open {
		if err == nil && h.waitsForUse(e.now()) {
			all, err = e.addSources(ctx, all, h)
		}
	}
	return all, err
}

// ActivateFor begins those grants of a principal that were approved and wait for their
// first use, and that would allow what was refused. It reports whether there was one.
func (e *Engine) ActivateFor(ctx context.Context, p identity.Principal, would func(more []policy.Source) bool) (bool, error) {
	if p.IsNode() {
		return false, nil
	}
	all, err := e.opened(ctx, p.RootID())
	if err != nil {
		return false, err
	}
	begun := false
	for _, h := range all {
		if !h.waitsForUse(e.now()) {
			continue
		}
		more, err := e.addSources(ctx, nil, h)
		if err != nil {
			return begun, err
		}
		if !would(more) {
			continue
		}
		_, err = e.step(ctx, h.ID, func(v *view) (func(*Request) ([]Event, error), error) {
			return v.activation(ctx, Actor{Principal: p, Channel: "use"})
		})
		if err != nil {
			e.config.Logger.Warn("a grant was not begun on its first use", "request", h.ID, "error", err)
			continue
		}
		begun = true
	}
	return begun, nil
}

// Revision grows with every change of any request: one row, to look for changes with.
func (e *Engine) Revision(ctx context.Context) (int64, error) {
	return e.config.Store.GrantRevision(ctx)
}

// Usable are the requests of who is behind a principal that give something now, or would
// on their first use: active ones whose time is not up, and approved ones that are still
// to be activated in time.
func (e *Engine) Usable(ctx context.Context, p identity.Principal) ([]Request, error) {
	if p.IsNode() {
		return nil, nil
	}
	open, err := e.opened(ctx, p.RootID())
	now := e.now()
	var usable []Request
	for _, h := range open {
		if h.Holds(now) || h.waitsForUse(now) {
			usable = append(usable, h.Request)
		}
	}
	return usable, err
}
