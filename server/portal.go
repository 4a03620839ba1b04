package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/policy"
)

// Roles for people who are signed in but hold no credentials yet: AWS's sign-in portal.

// call makes a call of an operation for a principal who is known by something else than a
// signature.
func (s *Server) callFor(r *http.Request, p identity.Principal, service, operation string) *Call {
	return &Call{Server: s, Operation: s.table.operations[service][operation], Principal: p, Origin: s.origin(r), Host: r.Host}
}

// AssumeRole is sts:AssumeRole for a principal who is signed in in some other way than by
// a signature. A refusal is an *access.DeniedError.
func (s *Server) AssumeRole(r *http.Request, p identity.Principal, role, session string) (identity.Credentials, error) {
	ctx := r.Context()
	c := s.callFor(r, p, "sts", "AssumeRole")
	in := &assumeRoleInput{RoleARN: s.config.Realm.IAM("role", "/", role), RoleSessionName: session}
	found, err := s.config.Identities.Role(ctx, role)
	if err == nil {
		in.RoleARN = s.config.Realm.IAM("role", found.Path, found.Name)
	} else if !errors.Is(err, identity.ErrNotFound) {
		return identity.Credentials{}, err
	}
	c.input = in
	out, err := assumeRole(ctx, c, in)
	if err != nil {
		return identity.Credentials{}, err
	}
	return identity.Credentials{
		AccessKeyID: out.Credentials.AccessKeyID, SecretAccessKey: out.Credentials.SecretAccessKey,
		SessionToken: out.Credentials.SessionToken, Expires: out.Credentials.Expiration.Time,
	}, nil
}

// AssumableRoles lists the names of the roles that a principal may assume at this moment.
// It records nothing.
func (s *Server) AssumableRoles(r *http.Request, p identity.Principal) ([]string, error) {
	ctx := r.Context()
	all, err := s.config.Identities.Roles(ctx, identity.Page{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, role := range all {
		may, err := s.mayAssume(ctx, s.callFor(r, p, "sts", "AssumeRole"), role)
		if err != nil {
			return nil, err
		}
		if may {
			names = append(names, role.Name)
		}
	}
	return names, nil
}

func (s *Server) mayAssume(ctx context.Context, c *Call, role identity.Role) (bool, error) {
	trust, err := policy.ParseTrust([]byte(role.Trust))
	if err != nil {
		return false, fmt.Errorf("trust policy of role %s: %v", role.Name, err)
	}
	c.assumeContext(&assumeRoleInput{RoleSessionName: c.Principal.Name}, identity.Claims{})
	q := c.query("sts:AssumeRole", []access.Resource{{ARN: s.config.Realm.IAM("role", role.Path, role.Name), Tags: role.Tags}})
	q.NoAudit = true
	_, err = s.checker.CheckAssume(ctx, q, trust)
	denied := (*access.DeniedError)(nil)
	if errors.As(err, &denied) {
		return false, nil
	}
	return err == nil, err
}
