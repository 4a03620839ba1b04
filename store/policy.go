package store

import (
	"context"
	"strconv"
	"strings"
	"time"

	"sallyport.dev/identity"
)

// policyVersions is how many versions of a managed policy are kept, as in IAM.
const policyVersions = 5

// ownerID returns the id of the user, group or role that owns policies.
func ownerID(t tx, o identity.Owner) (string, error) {
	table, ok := map[identity.OwnerKind]string{
		identity.OwnerUser:  "users",
		identity.OwnerGroup: "user_groups",
		identity.OwnerRole:  "roles",
	}[o.Kind]
	if !ok {
		return "", about("owner kind", string(o.Kind), identity.ErrNotFound)
	}
	return one(t, about(string(o.Kind), o.Name, identity.ErrNotFound), scanText,
		"SELECT id FROM "+table+" WHERE key = $1", key(o.Name))
}

// PutInlinePolicy implements identity.Store.
func (s *Store) PutInlinePolicy(ctx context.Context, p identity.InlinePolicy) error {
	return s.writeIdentity(ctx, "putting inline policy", func(t tx) error {
		id, err := ownerID(t, p.Owner)
		if err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO inline_policies (owner_kind, owner_id, key, name, document)
			VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (owner_kind, owner_id, key) DO UPDATE SET name = excluded.name, document = excluded.document`,
			p.Owner.Kind, id, key(p.Name), p.Name, p.Document)
		return err
	})
}

// scanInline reads inline policies of an owner.
func scanInline(o identity.Owner) func(row) (identity.InlinePolicy, error) {
	return func(r row) (identity.InlinePolicy, error) {
		p := identity.InlinePolicy{Owner: o}
		return p, r.Scan(&p.Name, &p.Document)
	}
}

// InlinePolicy implements identity.Store.
func (s *Store) InlinePolicy(ctx context.Context, o identity.Owner, name string) (identity.InlinePolicy, error) {
	t := s.read(ctx)
	id, err := ownerID(t, o)
	if err != nil {
		return identity.InlinePolicy{}, wrap("reading inline policy", err)
	}
	p, err := one(t, about("inline policy", name, identity.ErrNotFound), scanInline(o),
		"SELECT name, document FROM inline_policies WHERE owner_kind = $1 AND owner_id = $2 AND key = $3",
		o.Kind, id, key(name))
	return p, wrap("reading inline policy", err)
}

// InlinePolicies implements identity.Store.
func (s *Store) InlinePolicies(ctx context.Context, o identity.Owner) ([]identity.InlinePolicy, error) {
	t := s.read(ctx)
	id, err := ownerID(t, o)
	if err != nil {
		return nil, wrap("listing inline policies", err)
	}
	all, err := list(t, scanInline(o),
		"SELECT name, document FROM inline_policies WHERE owner_kind = $1 AND owner_id = $2 ORDER BY key", o.Kind, id)
	return all, wrap("listing inline policies", err)
}

// DeleteInlinePolicy implements identity.Store.
func (s *Store) DeleteInlinePolicy(ctx context.Context, o identity.Owner, name string) error {
	return s.writeIdentity(ctx, "deleting inline policy", func(t tx) error {
		id, err := ownerID(t, o)
		if err != nil {
			return err
		}
		return t.must(about("inline policy", name, identity.ErrNotFound),
			"DELETE FROM inline_policies WHERE owner_kind = $1 AND owner_id = $2 AND key = $3", o.Kind, id, key(name))
	})
}

const policyColumns = `policies.arn, policies.name, policies.id, policies.path, policies.description,
	policies.default_version, policies.created, policies.updated, policies.tags,
	(SELECT COUNT(*) FROM attachments uses WHERE uses.policy_arn = policies.arn)`

func scanPolicy(r row) (p identity.ManagedPolicy, err error) {
	var version int64
	err = r.Scan(&p.ARN, &p.Name, &p.ID, &p.Path, &p.Description, &version,
		stored{&p.Created}, stored{&p.Updated}, encoded{&p.Tags}, &p.Attachments)
	p.DefaultVersion = versionID(version)
	return p, err
}

// versionID is how IAM names the versions of policies: v1, v2, ….
func versionID(n int64) string { return "v" + strconv.FormatInt(n, 10) }

// versionNumber reads what versionID wrote; anything else is 0, which no version has.
func versionNumber(id string) int64 {
	n, err := strconv.ParseInt(strings.TrimPrefix(id, "v"), 10, 64)
	if err != nil || versionID(n) != id {
		return 0
	}
	return n
}

func policyByARN(t tx, arn string) (identity.ManagedPolicy, error) {
	return one(t, about("policy", arn, identity.ErrNotFound), scanPolicy,
		"SELECT "+policyColumns+" FROM policies WHERE arn = $1", arn)
}

// CreatePolicy implements identity.Store.
func (s *Store) CreatePolicy(ctx context.Context, p identity.ManagedPolicy, document string) error {
	return s.writeIdentity(ctx, "creating policy", func(t tx) error {
		_, err := t.exec(`INSERT INTO policies
			(arn, key, name, id, path, description, default_version, last_version, created, updated, tags)
			VALUES ($1, $2, $3, $4, $5, $6, 1, 1, $7, $8, $9)`,
			p.ARN, key(p.Name), p.Name, p.ID, p.Path, p.Description, micros(p.Created), micros(p.Updated), encode(p.Tags))
		if err != nil {
			return orExists(err, about("policy", p.Name, identity.ErrExists))
		}
		return insertVersion(t, p.ARN, 1, document, p.Created)
	})
}

func insertVersion(t tx, arn string, number int64, document string, at time.Time) error {
	_, err := t.exec("INSERT INTO policy_versions (policy_arn, number, document, created) VALUES ($1, $2, $3, $4)",
		arn, number, document, micros(at))
	return err
}

// Policy implements identity.Store.
func (s *Store) Policy(ctx context.Context, arn string) (identity.ManagedPolicy, error) {
	p, err := policyByARN(s.read(ctx), arn)
	return p, wrap("reading policy", err)
}

// Policies implements identity.Store.
func (s *Store) Policies(ctx context.Context, p identity.Page) ([]identity.ManagedPolicy, error) {
	page, args := paged("policies", p, where{})
	all, err := list(s.read(ctx), scanPolicy, "SELECT "+policyColumns+" FROM policies"+page, args...)
	return all, wrap("listing policies", err)
}

// DeletePolicy implements identity.Store. A policy is in use while it is attached,
// is a boundary, or has versions besides its default one.
func (s *Store) DeletePolicy(ctx context.Context, arn string) error {
	return s.writeIdentity(ctx, "deleting policy", func(t tx) error {
		if _, err := policyByARN(t, arn); err != nil {
			return err
		}
		err := t.unused(about("policy", arn, identity.ErrConflict), `
			SELECT (SELECT COUNT(*) FROM attachments WHERE policy_arn = $1)
			     + (SELECT COUNT(*) FROM users WHERE boundary = $1)
			     + (SELECT COUNT(*) FROM roles WHERE boundary = $1)
			     + (SELECT COUNT(*) - 1 FROM policy_versions WHERE policy_arn = $1)`, arn)
		if err != nil {
			return err
		}
		if _, err := t.exec("DELETE FROM policy_versions WHERE policy_arn = $1", arn); err != nil {
			return err
		}
		_, err = t.exec("DELETE FROM policies WHERE arn = $1", arn)
		return err
	})
}

// TagPolicy implements identity.Store.
func (s *Store) TagPolicy(ctx context.Context, arn string, change func(identity.Tags) (identity.Tags, error)) error {
	return s.writeIdentity(ctx, "tagging policy", func(t tx) error {
		p, err := policyByARN(t, arn)
		if err != nil {
			return err
		}
		tags, err := change(p.Tags)
		if err != nil {
			return err
		}
		_, err = t.exec("UPDATE policies SET tags = $1 WHERE arn = $2", encode(tags), arn)
		return err
	})
}

// CreatePolicyVersion implements identity.Store.
func (s *Store) CreatePolicyVersion(ctx context.Context, arn, document string, at time.Time, makeDefault bool) (identity.PolicyVersion, error) {
	v := identity.PolicyVersion{PolicyARN: arn, Document: document, Created: when(micros(at)), Default: makeDefault}
	err := s.writeIdentity(ctx, "creating policy version", func(t tx) error {
		number, err := addVersion(t, arn, document, at)
		v.ID = versionID(number)
		if err != nil || !makeDefault {
			return err
		}
		_, err = t.exec("UPDATE policies SET default_version = $1 WHERE arn = $2", number, arn)
		return err
	})
	if err != nil {
		return identity.PolicyVersion{}, err
	}
	return v, nil
}

// addVersion stores a version under the next number.
func addVersion(t tx, arn, document string, at time.Time) (int64, error) {
	last, err := one(t, about("policy", arn, identity.ErrNotFound), scanInt,
		"SELECT last_version FROM policies WHERE arn = $1", arn)
	if err != nil {
		return 0, err
	}
	kept, err := t.count("SELECT COUNT(*) FROM policy_versions WHERE policy_arn = $1", arn)
	if err != nil {
		return 0, err
	}
	if kept >= policyVersions {
		return 0, about("policy", arn, identity.ErrLimit)
	}
	if err := insertVersion(t, arn, last+1, document, at); err != nil {
		return 0, err
	}
	_, err = t.exec("UPDATE policies SET last_version = $1, updated = $2 WHERE arn = $3", last+1, micros(at), arn)
	return last + 1, err
}

const versionQuery = `SELECT v.policy_arn, v.number, v.document, v.created, v.number = policies.default_version
	FROM policy_versions v JOIN policies ON policies.arn = v.policy_arn WHERE v.policy_arn = $1`

func scanVersion(r row) (v identity.PolicyVersion, err error) {
	var number int64
	err = r.Scan(&v.PolicyARN, &number, &v.Document, stored{&v.Created}, &v.Default)
	v.ID = versionID(number)
	return v, err
}

// PolicyVersions implements identity.Store.
func (s *Store) PolicyVersions(ctx context.Context, arn string) ([]identity.PolicyVersion, error) {
	all, err := list(s.read(ctx), scanVersion, versionQuery+" ORDER BY v.number DESC", arn)
	if err == nil && len(all) == 0 {
		err = about("policy", arn, identity.ErrNotFound) // every policy has its default version
	}
	return all, wrap("listing policy versions", err)
}

// PolicyVersion implements identity.Store.
func (s *Store) PolicyVersion(ctx context.Context, arn, id string) (identity.PolicyVersion, error) {
	v, err := one(s.read(ctx), about("policy "+arn+" version", id, identity.ErrNotFound), scanVersion,
		versionQuery+" AND v.number = $2", arn, versionNumber(id))
	return v, wrap("reading policy version", err)
}

// SetDefaultPolicyVersion implements identity.Store.
func (s *Store) SetDefaultPolicyVersion(ctx context.Context, arn, id string) error {
	return s.writeIdentity(ctx, "setting default policy version", func(t tx) error {
		return t.must(about("policy "+arn+" version", id, identity.ErrNotFound), `
			UPDATE policies SET default_version = $1 WHERE arn = $2
			AND EXISTS (SELECT 1 FROM policy_versions WHERE policy_arn = $2 AND number = $1)`, versionNumber(id), arn)
	})
}

// DeletePolicyVersion implements identity.Store.
func (s *Store) DeletePolicyVersion(ctx context.Context, arn, id string) error {
	return s.writeIdentity(ctx, "deleting policy version", func(t tx) error {
		p, err := policyByARN(t, arn)
		if err != nil {
			return err
		}
		if p.DefaultVersion == id {
			return about("policy "+arn+" default version", id, identity.ErrConflict)
		}
		return t.must(about("policy "+arn+" version", id, identity.ErrNotFound),
			"DELETE FROM policy_versions WHERE policy_arn = $1 AND number = $2", arn, versionNumber(id))
	})
}

// AttachPolicy implements identity.Store.
func (s *Store) AttachPolicy(ctx context.Context, o identity.Owner, arn string, limit int) error {
	return s.writeIdentity(ctx, "attaching policy", func(t tx) error {
		id, err := ownerID(t, o)
		if err != nil {
			return err
		}
		if _, err := policyByARN(t, arn); err != nil {
			return err
		}
		others, err := t.count(`SELECT COUNT(*) FROM attachments
			WHERE owner_kind = $1 AND owner_id = $2 AND policy_arn <> $3`, o.Kind, id, arn)
		if err != nil {
			return err
		}
		if others >= int64(limit) {
			return about(string(o.Kind), o.Name, identity.ErrLimit)
		}
		_, err = t.exec(`INSERT INTO attachments (owner_kind, owner_id, policy_arn) VALUES ($1, $2, $3)
			ON CONFLICT DO NOTHING`, o.Kind, id, arn)
		return err
	})
}

// DetachPolicy implements identity.Store.
func (s *Store) DetachPolicy(ctx context.Context, o identity.Owner, arn string) error {
	return s.writeIdentity(ctx, "detaching policy", func(t tx) error {
		id, err := ownerID(t, o)
		if err != nil {
			return err
		}
		return t.must(about("attached policy", arn, identity.ErrNotFound),
			"DELETE FROM attachments WHERE owner_kind = $1 AND owner_id = $2 AND policy_arn = $3", o.Kind, id, arn)
	})
}

// AttachedPolicies implements identity.Store, in name order.
func (s *Store) AttachedPolicies(ctx context.Context, o identity.Owner) ([]identity.ManagedPolicy, error) {
	t := s.read(ctx)
	id, err := ownerID(t, o)
	if err != nil {
		return nil, wrap("listing attached policies", err)
	}
	all, err := list(t, scanPolicy, "SELECT "+policyColumns+` FROM policies
		JOIN attachments a ON a.policy_arn = policies.arn
		WHERE a.owner_kind = $1 AND a.owner_id = $2 ORDER BY policies.key`, o.Kind, id)
	return all, wrap("listing attached policies", err)
}

func scanOwner(r row) (o identity.Owner, err error) { return o, r.Scan(&o.Kind, &o.Name) }

// PolicyOwners implements identity.Store: groups, roles and users, each in name order.
func (s *Store) PolicyOwners(ctx context.Context, arn string) ([]identity.Owner, error) {
	t := s.read(ctx)
	if _, err := policyByARN(t, arn); err != nil {
		return nil, wrap("listing owners of a policy", err)
	}
	all, err := list(t, scanOwner, `
		SELECT kind, name FROM (
			SELECT a.owner_kind AS kind, o.name AS name, o.key AS key FROM attachments a
				JOIN users o ON a.owner_kind = 'user' AND o.id = a.owner_id WHERE a.policy_arn = $1
			UNION ALL SELECT a.owner_kind, o.name, o.key FROM attachments a
				JOIN user_groups o ON a.owner_kind = 'group' AND o.id = a.owner_id WHERE a.policy_arn = $1
			UNION ALL SELECT a.owner_kind, o.name, o.key FROM attachments a
				JOIN roles o ON a.owner_kind = 'role' AND o.id = a.owner_id WHERE a.policy_arn = $1
		) AS owners ORDER BY kind, key`, arn)
	return all, wrap("listing owners of a policy", err)
}
