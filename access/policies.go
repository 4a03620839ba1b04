package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// cache keeps compiled policies by principal and parsed documents by their text.
// Everything compiled is of one revision of the store: a change of any policy, tag or
// membership makes it all anew. The revision is read for each decision, so that a
// change made through another member counts at once here too.
type cache struct {
	mu        sync.Mutex
	revision  int64
	sets      map[string]*compiled
	documents map[string]*policy.Document
}

type compiled struct {
	sources []policy.Source
	set     *policy.Set
}

// Bounds of the cache, in entries; a full map is emptied.
const (
	maxSets      = 8192
	maxDocuments = 8192
)

func newCache() cache {
	return cache{sets: map[string]*compiled{}, documents: map[string]*policy.Document{}}
}

func (c *cache) get(revision int64, key string) *compiled {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revision != revision {
		return nil
	}
	return c.sets[key]
}

// put keeps what was compiled, unless a newer revision has been seen meanwhile.
func (c *cache) put(revision int64, key string, e *compiled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if revision < c.revision {
		return
	}
	if revision > c.revision || len(c.sets) >= maxSets {
		clear(c.sets)
		c.revision = revision
	}
	c.sets[key] = e
}

func (c *cache) parse(text string) (*policy.Document, error) {
	c.mu.Lock()
	d := c.documents[text]
	c.mu.Unlock()
	if d != nil {
		return d, nil
	}
	d, err := policy.Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.documents) >= maxDocuments {
		clear(c.documents)
	}
	c.documents[text] = d
	return d, nil
}

// policies returns the compiled policies of a principal, with grants and more.
func (c *Checker) policies(ctx context.Context, p identity.Principal, more []policy.Source) (ruling, error) {
	grants, err := c.grants(ctx, p)
	if err != nil {
		return ruling{}, err
	}
	s, err := c.sourcesOf(ctx, p, grants, more)
	if err != nil {
		return ruling{}, err
	}
	return s.rule(more), nil
}

// Sources returns the policies that apply to a principal, grants included.
func (c *Checker) Sources(ctx context.Context, p identity.Principal) ([]policy.Source, error) {
	e, err := c.compiled(ctx, p)
	if err != nil {
		return nil, err
	}
	grants, err := c.grants(ctx, p)
	return slices.Concat(e.sources, grants), err
}

func (c *Checker) grants(ctx context.Context, p identity.Principal) ([]policy.Source, error) {
	if c.config.Grants == nil {
		return nil, nil
	}
	grants, err := c.config.Grants.Grants(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("reading grants: %w", err)
	}
	return grants, nil
}

func (c *Checker) compiled(ctx context.Context, p identity.Principal) (*compiled, error) {
	// Read before the policies: if they change meanwhile, what is kept carries the
	// older revision and is not used again.
	revision, err := c.config.Store.Revision(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the revision of policies: %w", err)
	}
	key := cacheKey(p)
	if e := c.cache.get(revision, key); e != nil {
		return e, nil
	}
	sources, err := c.gather(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("gathering policies of %s: %w", p.ARN, err)
	}
	e := &compiled{sources, policy.NewSet(sources)}
	c.cache.put(revision, key, e)
	return e, nil
}

// cacheKey names what a principal's policies depend on.
func cacheKey(p identity.Principal) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d,%d:", len(p.SessionPolicies), len(p.SessionPolicyARNs))
	for _, s := range slices.Concat(p.SessionPolicies, p.SessionPolicyARNs) {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return strings.Join([]string{string(p.Kind), p.PolicyARN, p.Boundary, string(h.Sum(nil))}, "\n")
}

// gather reads the policies of a principal from the store.
func (c *Checker) gather(ctx context.Context, p identity.Principal) ([]policy.Source, error) {
	g := gatherer{checker: c, ctx: ctx}
	switch p.Kind {
	case identity.KindUser:
		g.owner(identity.Owner{Kind: identity.OwnerUser, Name: p.Name})
		g.groups(p.Name)
	case identity.KindRole:
		g.owner(identity.Owner{Kind: identity.OwnerRole, Name: p.Name})
	}
	if p.Boundary != "" {
		g.managed(policy.Boundary, "permissions boundary "+p.Boundary, p.Boundary)
	}
	for i, text := range p.SessionPolicies {
		g.add(policy.Session, fmt.Sprintf("session policy %d", i+1), text)
	}
	for _, arn := range p.SessionPolicyARNs {
		g.managed(policy.Session, "session policy "+arn, arn)
	}
	return g.sources, g.err
}

// gatherer collects sources; its first error stops it.
type gatherer struct {
	checker *Checker
	ctx     context.Context // of one gather, no longer
	sources []policy.Source
	err     error
}

func (g *gatherer) groups(user string) {
	if g.err != nil {
		return
	}
	groups, err := g.checker.config.Store.GroupsOf(g.ctx, user, identity.Page{})
	g.err = err
	for _, group := range groups {
		g.owner(identity.Owner{Kind: identity.OwnerGroup, Name: group.Name})
	}
}

// owner adds the inline and the attached policies of a user, group or role.
func (g *gatherer) owner(o identity.Owner) {
	if g.err != nil {
		return
	}
	inline, err := g.checker.config.Store.InlinePolicies(g.ctx, o)
	if err != nil {
		g.err = err
		return
	}
	of := " of " + string(o.Kind) + " " + o.Name
	for _, p := range inline {
		g.add(policy.Identity, "inline policy "+p.Name+of, p.Document)
	}
	attached, err := g.checker.config.Store.AttachedPolicies(g.ctx, o)
	if err != nil {
		g.err = err
		return
	}
	for _, p := range attached {
		g.version(policy.Identity, "managed policy "+p.Name+of, p)
	}
}

// managed adds a managed policy that limits. One that does not exist any more allows
// nothing.
func (g *gatherer) managed(kind policy.Kind, name, arn string) {
	if g.err != nil {
		return
	}
	p, err := g.checker.config.Store.Policy(g.ctx, arn)
	if errors.Is(err, identity.ErrNotFound) {
		g.sources = append(g.sources, policy.Source{Kind: kind, Name: name + " (which does not exist)"})
		return
	}
	if err != nil {
		g.err = err
		return
	}
	g.version(kind, name, p)
}

func (g *gatherer) version(kind policy.Kind, name string, p identity.ManagedPolicy) {
	if g.err != nil {
		return
	}
	v, err := g.checker.config.Store.PolicyVersion(g.ctx, p.ARN, p.DefaultVersion)
	if err != nil {
		g.err = err
		return
	}
	g.add(kind, name, v.Document)
}

func (g *gatherer) add(kind policy.Kind, name, text string) {
	if g.err != nil {
		return
	}
	d, err := g.checker.cache.parse(text)
	if err != nil {
		g.err = fmt.Errorf("%s: %w", name, err)
		return
	}
	g.sources = append(g.sources, policy.Source{Kind: kind, Name: name, Document: d})
}
