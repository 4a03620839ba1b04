package approval

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport.dev/document"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
)

// Documents finds documents; document.Store is one.
type Documents interface {
	Document(ctx context.Context, name string, version int) (document.Stored, document.Version, error)
	Documents(ctx context.Context, f document.Filter) ([]document.Stored, error)
}

// Directory is what the rules need to know of people.
type Directory interface {
	User(ctx context.Context, name string) (identity.User, error)
	Group(ctx context.Context, name string) (identity.Group, error)
	GroupsOf(ctx context.Context, user string, p identity.Page) ([]identity.Group, error)
}

// Config is what Rules are made of.
type Config struct {
	Documents Documents
	Directory Directory
	Realm     arn.Realm
	Now       func() time.Time
}

// Rules decide by documents and by the flows' own Cedar. They are safe for concurrent
// use.
type Rules struct {
	config Config
	parsed cache
}

var (
	_ grant.Rules  = (*Rules)(nil)
	_ grant.Fitter = (*Rules)(nil)
)

// New returns Rules.
func New(c Config) *Rules {
	return &Rules{config: c, parsed: cache{documents: map[string]*document.Document{}}}
}

// FieldTags is the field of a request's tags, each KEY=VALUE: metadata that means nothing
// to decisions.
const FieldTags = "tags"

func fields() []flow.Field {
	return []flow.Field{{Name: FieldTags, Label: "Tags", Type: flow.FieldStringList}}
}

// Prefix begins the names of flows that documents make; the document's name follows.
const Prefix = "ssm."

// AutoFlow is the flow of requests that the AutoApprovalPolicy approves.
const AutoFlow = Prefix + document.AutoApproval

// autoAccess is how long access lasts that was approved automatically; AWS has it fixed.
const autoAccess = time.Hour

// pending is how long a request waits for its approvers.
const pending = 24 * time.Hour

// maxManual is how many documents of the type there may be in AWS.
const maxManual = 50

// manual is a document that says who approves.
type manual struct {
	name        string
	description string
	*document.Approval
}

// Flows implements grant.Rules. A document that cannot be read makes no flow; the error
// names it, and the other flows are there all the same.
func (r *Rules) Flows(ctx context.Context) ([]*flow.Flow, error) {
	all, err := r.manuals(ctx)
	var flows []*flow.Flow
	for _, m := range all {
		f, e := r.flow(ctx, m)
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		flows = append(flows, f)
	}
	_, found, e := r.text(ctx, document.AutoApproval)
	if found {
		flows = append(flows, autoFlow())
	}
	return flows, errors.Join(err, e)
}

// manuals reads the documents in the order of their names.
func (r *Rules) manuals(ctx context.Context) ([]manual, error) {
	stored, err := r.config.Documents.Documents(ctx, document.Filter{Type: document.TypeManualApproval})
	if err != nil {
		return nil, fmt.Errorf("reading approval documents: %w", err)
	}
	var all []manual
	var failed error
	for _, s := range stored {
		_, v, err := r.config.Documents.Document(ctx, s.Name, document.VersionDefault)
		if errors.Is(err, document.ErrNotFound) {
			continue // deleted meanwhile
		}
		d, err := r.parsed.parse(s.Name, v.Content, err)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		all = append(all, manual{s.Name, d.Description, d.Approval})
	}
	return all, failed
}

// text is the Cedar of one of the two documents that there may be.
func (r *Rules) text(ctx context.Context, name string) (text string, found bool, err error) {
	s, v, err := r.config.Documents.Document(ctx, name, document.VersionDefault)
	if errors.Is(err, document.ErrNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("reading document %q: %w", name, err)
	}
	// A document of another type that has the name since before the type was known.
	return v.Content, s.Type == document.TypeAutoApproval, nil
}

// flow makes the flow of a document.
func (r *Rules) flow(ctx context.Context, m manual) (*flow.Flow, error) {
	f := &flow.Flow{
		Name: Prefix + m.name, Label: m.name, Description: m.description, Fields: fields(),
		Ask:    flow.People{Everyone: len(m.Requesters) == 0},
		Clocks: flow.Clocks{Pending: pending, Default: m.Access, Longest: m.Access},
	}
	var err error
	if len(m.Requesters) > 0 {
		if f.Ask, err = r.people(ctx, m.Requesters); err != nil {
			return nil, fmt.Errorf("document %q: requesters: %w", m.name, err)
		}
	}
	for i, level := range m.Levels {
		of, err := r.people(ctx, level.Approvers)
		if err != nil {
			return nil, fmt.Errorf("document %q: level %d: %w", m.name, i+1, err)
		}
		f.Stages = append(f.Stages, flow.Stage{Name: fmt.Sprintf("level %d", i+1), Approvals: level.Approvals, Of: of})
	}
	f.Targets = m.targets()
	return f, nil
}

// targets are one for each tag: any of them will do, while a target's tags must all fit.
func (m manual) targets() []flow.Target {
	if len(m.Targets) == 0 {
		return []flow.Target{m.target("all nodes", flow.Nodes{IDs: []string{flow.EveryNode}})}
	}
	var all []flow.Target
	for _, s := range m.Targets {
		all = append(all, m.target("tag:"+s.Tag, flow.Nodes{Tags: map[string][]string{s.Tag: s.Values}}))
	}
	return all
}

func (m manual) target(name string, n flow.Nodes) flow.Target {
	n.Documents, n.Login = m.Documents, m.Login
	return flow.Target{Name: name, Kind: flow.TargetNodes, Nodes: &n}
}

// autoFlow is the flow of what the AutoApprovalPolicy approves: nobody else decides.
func autoFlow() *flow.Flow {
	return &flow.Flow{
		Name: AutoFlow, Label: "Automatic approval", Ask: flow.People{Everyone: true}, Fields: fields(),
		Description: "Nodes that the auto-approval policy lets you use.",
		Targets:     manual{Approval: &document.Approval{}}.targets(),
		Clocks:      flow.Clocks{Pending: pending, Default: autoAccess, Longest: autoAccess},
	}
}

// people finds out who is named: users, groups, or what there is of a bare name.
func (r *Rules) people(ctx context.Context, names []document.Named) (p flow.People, err error) {
	for _, n := range names {
		kind := n.Kind
		if kind == "" {
			if kind, err = r.kind(ctx, n.Name); err != nil {
				return p, err
			}
		}
		switch kind {
		case "user":
			p.Users = append(p.Users, n.Name)
		case "group":
			p.Groups = append(p.Groups, n.Name)
		}
	}
	return p, nil
}

// kind tells what a bare name is of; empty where nobody has it any more.
func (r *Rules) kind(ctx context.Context, name string) (string, error) {
	user, err := exists(r.config.Directory.User(ctx, name))
	if err != nil {
		return "", err
	}
	group, err := exists(r.config.Directory.Group(ctx, name))
	switch {
	case err != nil:
		return "", err
	case user && group:
		return "", wrong("%q is a user and a group; write user/%s or group/%s", name, name, name)
	case user:
		return "user", nil
	case group:
		return "group", nil
	}
	return "", nil
}

func exists[T any](_ T, err error) (bool, error) {
	if errors.Is(err, identity.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// NoPolicyError tells that no document lets anybody ask for a node.
type NoPolicyError struct{ Node string }

// Error implements error.
func (e *NoPolicyError) Error() string {
	return fmt.Sprintf("no approval policy applies to node %s, so that access to it cannot be requested", e.Node)
}

// ConflictError tells that documents contradict each other about nodes.
type ConflictError struct{ Problem string }

// Error implements error.
func (e *ConflictError) Error() string { return e.Problem }

// Manual returns the flow, and its targets by name, under which access to nodes is
// requested: that of the one document for one of their tags, else that of the document
// for all nodes. Errors are *NoPolicyError and *ConflictError.
func (r *Rules) Manual(ctx context.Context, nodes []flow.Node) (name string, targets []string, err error) {
	all, err := r.manuals(ctx)
	if err != nil {
		return "", nil, err // one that cannot be read may be the one for these nodes
	}
	for i, n := range nodes {
		m, fits, err := applying(all, n)
		if err != nil {
			return "", nil, err
		}
		if i > 0 && Prefix+m.name != name {
			return "", nil, &ConflictError{fmt.Sprintf("different approval policies apply to the nodes: %s to %s and %s to %s; request them one by one",
				strings.TrimPrefix(name, Prefix), nodes[0].ID, m.name, n.ID)}
		}
		name = Prefix + m.name
		targets = append(targets, fits...)
	}
	slices.Sort(targets)
	return name, slices.Compact(targets), nil
}

// applying finds the document for a node, and which of its targets select it.
func applying(all []manual, n flow.Node) (found manual, targets []string, err error) {
	var general manual
	for _, m := range all {
		if len(m.Targets) == 0 {
			if general.Approval != nil {
				return found, nil, &ConflictError{fmt.Sprintf("approval policies %s and %s both apply to all nodes", general.name, m.name)}
			}
			general = m
			continue
		}
		fits := m.fitting(n)
		if len(fits) == 0 {
			continue
		}
		if found.Approval != nil {
			return found, nil, &ConflictError{fmt.Sprintf("approval policies %s and %s both apply to node %s by its tags; only one may", found.name, m.name, n.ID)}
		}
		found, targets = m, fits
	}
	if found.Approval != nil {
		return found, targets, nil
	}
	if general.Approval == nil {
		return found, nil, &NoPolicyError{n.ID}
	}
	return general, []string{general.targets()[0].Name}, nil
}

// fitting are the names of the targets that select a node.
func (m manual) fitting(n flow.Node) (names []string) {
	for _, t := range m.targets() {
		if t.Nodes.Has(n) {
			names = append(names, t.Name)
		}
	}
	return names
}

// cache keeps parsed documents by their name and text.
type cache struct {
	mu        sync.Mutex
	documents map[string]*document.Document
}

const maxParsed = 4 * maxManual

// parse reads a document unless reading its text failed before.
func (c *cache) parse(name, text string, err error) (*document.Document, error) {
	if err != nil {
		return nil, fmt.Errorf("reading document %q: %w", name, err)
	}
	key := name + "\n" + text
	c.mu.Lock()
	d := c.documents[key]
	c.mu.Unlock()
	if d != nil {
		return d, nil
	}
	if d, err = document.ParseApproval(name, []byte(text)); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.documents) >= maxParsed {
		clear(c.documents)
	}
	c.documents[key] = d
	return d, nil
}
