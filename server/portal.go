package server

import (
	"errors"
	"net/http"

	"sallyport.dev/identity"
)

// Roles for people who are signed in but hold no credentials yet: AWS's sign-in portal.

// callFor makes a call of an operation for a principal who is known by something else than a
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

// AssumableBy lists the names of the roles that a principal may assume at this moment, in
// their order.
func (s *Server) AssumableBy(r *http.Request, p identity.Principal) ([]string, error) {
	roles, err := s.AssumableRoles(r.Context(), p, s.origin(r))
	names := make([]string, len(roles))
	for i, role := range roles {
		names[i] = role.Name
	}
	return names, err
}
