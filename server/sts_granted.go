package server

import (
	"context"
	"fmt"
	"slices"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// grantedRoles are the roles on the way to a role that is being assumed for which there
// had to be a grant: the caller's, and the role itself where nothing else lets them
// assume it. The credentials end with those grants.
func (c *Call) grantedRoles(ctx context.Context, arn string, role identity.Role, claims identity.Claims) ([]identity.GrantedRole, error) {
	if c.Server.access == nil {
		return c.Principal.Granted, nil
	}
	trust, err := policy.ParseTrust([]byte(role.Trust))
	if err != nil {
		return nil, fmt.Errorf("trust policy of role %s: %v", role.Name, err)
	}
	resource := access.Resource{ARN: arn, Tags: role.Tags}
	var grants []string
	for _, action := range assumeActions(claims) {
		q := c.query(action, []access.Resource{resource})
		needed, err := c.assumeNeeds(ctx, q, trust)
		if err != nil {
			return nil, err
		}
		grants = append(grants, needed...)
	}
	if len(grants) == 0 {
		return c.Principal.Granted, nil
	}
	held, err := c.Server.access.Held(ctx, c.Principal)
	if err != nil {
		return nil, err
	}
	for _, r := range held {
		if givesRole(r, role.Name) {
			grants = append(grants, r.ID)
		}
	}
	slices.Sort(grants)
	return append(slices.Clone(c.Principal.Granted), identity.GrantedRole{Role: role.Name, Grants: slices.Compact(grants)}), nil
}

// assumeNeeds are the ids of the grants without which a role could not be assumed.
func (c *Call) assumeNeeds(ctx context.Context, q access.Query, trust *policy.Document) ([]string, error) {
	without, err := c.Server.checker.Judge(ctx, c.Principal, access.Moment{WithoutGrants: true})
	if err != nil || without.Assume(q, trust).Allowed {
		return nil, err
	}
	with, err := c.Server.checker.Judge(ctx, c.Principal, access.Moment{})
	if err != nil {
		return nil, err
	}
	d := with.Assume(q, trust)
	if ids := grantsOf(d); d.Allowed && len(ids) > 0 {
		return ids, nil
	}
	// The grant has ended since it was checked, or does not tell its name.
	return nil, access.Denied(q, without.Assume(q, trust))
}
