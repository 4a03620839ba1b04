package member

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/approval"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/policy"
	"sallyport.dev/provision"
	"sallyport.dev/server"
	"sallyport.dev/signin"
)

// Access is access just in time.
type Access struct {
	// FlowsDir is a folder of flow files (NAME.sallyport.hcl, and the NAME.star that they
	// name), which are put in force at start and whenever they change; sallyport apply
	// does not change flows then. Without it flows are what was applied.
	FlowsDir string `hcl:"flows_dir,optional"`
}

// check names what is wrong.
func (a *Access) check() error {
	if a == nil || a.FlowsDir == "" {
		return nil
	}
	files, err := readFlows(a.FlowsDir)
	if err == nil {
		_, err = flow.Parse(files)
	}
	if err != nil {
		return fmt.Errorf("access.flows_dir: %w", err)
	}
	return nil
}

func (a *Access) flowsDir() string {
	if a == nil {
		return ""
	}
	return a.FlowsDir
}

// readFlows reads the flow files of a folder.
func readFlows(dir string) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || !strings.HasSuffix(name, flow.FileSuffix) && !strings.HasSuffix(name, flow.CodeSuffix) {
			continue
		}
		if files[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// accessParts are what others plug into access just in time; nil for none.
type accessParts struct {
	rules  grant.Rules
	onCall grant.OnCall
	giver  grant.Giver
}

// newEngine makes the engine of access just in time. Its policies are the server's, which
// is made after it.
func (m *Member) newEngine(parts accessParts) *grant.Engine {
	config := grant.Config{
		Store: m.Store, Directory: m.Store, Nodes: m.Store, Audit: m.Audit,
		Rules: parts.rules, OnCall: parts.onCall, Giver: parts.giver,
		Policies: latePolicies{m}, Realm: m.cfg.Realm(), Now: m.cfg.Now, Logger: m.log,
		Observe: m.requests.step,
		Sources: func(ctx context.Context, o identity.Owner) ([]policy.Source, error) {
			c, err := m.checker()
			if err != nil {
				return nil, err
			}
			return c.SourcesOf(ctx, o)
		},
	}
	if dir := m.cfg.Access.flowsDir(); dir != "" {
		config.Folder = "the folder " + dir
	}
	return grant.New(config)
}

var errNotStarted = errors.New("the server has not started yet")

func (m *Member) checker() (*access.Checker, error) {
	if m.api == nil {
		return nil, errNotStarted
	}
	return m.api.Checker(), nil
}

// latePolicies are those of the member's server, once there is one.
type latePolicies struct{ m *Member }

func (p latePolicies) policies() (grant.Policies, error) {
	if p.m.api == nil {
		return nil, errNotStarted
	}
	return p.m.api.AccessPolicies(), nil
}

// Permit implements grant.Policies.
func (p latePolicies) Permit(ctx context.Context, a grant.Actor, action, resource string, details map[string]string) error {
	policies, err := p.policies()
	if err != nil {
		return err
	}
	return policies.Permit(ctx, a, action, resource, details)
}

// Refuse implements grant.Policies.
func (p latePolicies) Refuse(ctx context.Context, a grant.Actor, action, resource, because string, details map[string]string) {
	if policies, err := p.policies(); err == nil {
		policies.Refuse(ctx, a, action, resource, because, details)
	}
}

// Would implements grant.Policies.
func (p latePolicies) Would(ctx context.Context, who identity.Principal, n node.Node, document, login string, more []policy.Source) (bool, error) {
	policies, err := p.policies()
	if err != nil {
		return false, err
	}
	return policies.Would(ctx, who, n, document, login, more)
}

// startAccess puts the folder's flows in force and starts the clocks.
func (m *Member) startAccess(ctx context.Context, engine *grant.Engine) error {
	if dir := m.cfg.Access.flowsDir(); dir != "" {
		digest, err := loadFlows(ctx, engine, dir, "")
		if err != nil {
			return fmt.Errorf("access.flows_dir: %w", err)
		}
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		m.stopFlows = cancel
		m.running.Go(func() { m.followFlows(ctx, engine, dir, digest) })
	}
	if err := engine.Start(ctx); err != nil {
		return fmt.Errorf("starting access just in time: %w", err)
	}
	return nil
}

// loadFlows checks the files of a folder and puts them in force, unless they are those of a
// digest, which were. It returns the digest of the files.
func loadFlows(ctx context.Context, engine *grant.Engine, dir, last string) (digest string, err error) {
	files, err := readFlows(dir)
	if err != nil {
		return last, err
	}
	if digest = flow.Digest(files); digest == last {
		return digest, nil
	}
	return digest, engine.LoadFlows(ctx, files)
}

// flowsEvery is how often the folder of flows is looked at.
const flowsEvery = 2 * time.Second

// followFlows puts files in force that changed in this member's folder since it last
// looked: of members with different folders the last change counts, and they do not take
// turns. Files that are wrong are logged once, and the ones before them stay in force.
func (m *Member) followFlows(ctx context.Context, engine *grant.Engine, dir, digest string) {
	tick := time.NewTicker(flowsEvery)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := loadFlows(ctx, engine, dir, digest)
		if err == nil {
			digest, last = now, ""
			continue
		}
		if ctx.Err() == nil && err.Error() != last {
			m.log.Error("flows stay as they were: the folder is wrong", "folder", dir, "error", err)
		}
		last = err.Error()
	}
}

// closeAccess stops what startAccess started.
func (m *Member) closeAccess() {
	if m.stopFlows != nil {
		m.stopFlows()
	}
	if m.access != nil {
		m.access.Close()
	}
}

// wireAccess puts access just in time into the server's configuration.
func (m *Member) wireAccess(config *server.Config) {
	m.access = m.newEngine(m.accessParts(config))
	config.Access = m.access
}

// Access is the member's engine of access just in time.
func (m *Member) Access() *grant.Engine { return m.access }

// accessParts are what this member's access just in time asks beside people.
func (m *Member) accessParts(config *server.Config) accessParts {
	config.Approval = approval.New(approval.Config{Documents: m.Store, Directory: m.Store, Realm: m.cfg.Realm(), Now: m.cfg.Now})
	return accessParts{
		rules:  config.Approval,
		onCall: m.onCall(),
		giver:  provision.New(provision.LoadDefault),
	}
}

// ties tell what temporary credentials come from. What a member does not have holds
// nothing.
type ties struct {
	signIns *signin.Service
	access  *grant.Engine
}

// SignIn implements identity.Ties.
func (t ties) SignIn(ctx context.Context, id, user string) (string, error) {
	if t.signIns == nil {
		return identity.NoTies{}.SignIn(ctx, id, user)
	}
	return t.signIns.SignIn(ctx, id, user)
}

// SignInEnded tells whether a sign-in was ended, though not whether it has expired.
func (t ties) SignInEnded(ctx context.Context, id, user string) (string, error) {
	if t.signIns == nil {
		return identity.NoTies{}.SignIn(ctx, id, user)
	}
	return t.signIns.SignInEnded(ctx, id, user)
}

// Granted implements identity.Ties.
func (t ties) Granted(ctx context.Context, user string, g identity.GrantedRole) (string, error) {
	if t.access == nil {
		return identity.NoTies{}.Granted(ctx, user, g)
	}
	return t.access.Granted(ctx, user, g)
}

// merge joins the handlers of several parts; two of one pattern are a mistake of ours.
func merge(parts ...map[string]http.Handler) (map[string]http.Handler, error) {
	all := map[string]http.Handler{}
	for _, part := range parts {
		for pattern, h := range part {
			if all[pattern] != nil {
				return nil, errors.New("two handlers of " + pattern)
			}
			all[pattern] = h
		}
	}
	return all, nil
}
