package server

import (
	"context"
	"testing"

	"sallyport.dev/approval"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// withAccess gives a harness access just in time; flows are put in force by put.
func withAccess(t *testing.T, changes ...func(*Config)) (*harness, *grant.Engine) {
	t.Helper()
	var h *harness
	var engine *grant.Engine
	late := &latePolicies{}
	changes = append(changes, func(c *Config) {
		c.Approval = approval.New(approval.Config{Documents: c.Documents, Directory: c.Identities, Realm: c.Realm, Now: c.Now})
		engine = grant.New(grant.Config{
			Rules: c.Approval,
			Store: c.Identities.(grant.Store), Directory: c.Identities, Nodes: c.Nodes, Audit: c.Audit, Realm: c.Realm, Now: c.Now, Logger: c.Logger,
			Policies: late,
			Sources: func(ctx context.Context, o identity.Owner) ([]policy.Source, error) {
				return h.server.checker.SourcesOf(ctx, o)
			},
		})
		c.Access = engine
		if c.Ties == nil {
			c.Ties = grantTies{engine}
		}
	})
	h = newHarness(t, changes...)
	late.Policies = h.server.AccessPolicies()
	t.Cleanup(engine.Close)
	return h, engine
}

// latePolicies are those of a server that is made after its engine.
type latePolicies struct{ grant.Policies }

// grantTies knows grants and no sign-ins.
type grantTies struct{ *grant.Engine }

// SignIn implements identity.Ties.
func (grantTies) SignIn(ctx context.Context, id, user string) (string, error) {
	return identity.NoTies{}.SignIn(ctx, id, user)
}
