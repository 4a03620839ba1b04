package member

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/internal/seal"
	"sallyport.dev/node"
	"sallyport.dev/policy"
	"sallyport.dev/store"
)

// State is what a member keeps: the store, the master key, and the audit log. It can
// be opened without a server, to prepare one.
type State struct {
	Store *store.Store
	Key   *seal.Key
	Audit *audit.Log

	cfg Config
}

// OpenState opens a member's state, making what is missing. The configuration must
// have been checked.
func OpenState(ctx context.Context, cfg Config) (*State, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	key, err := seal.LoadOrCreate(cfg.MasterKeyFile)
	if err != nil {
		return nil, fmt.Errorf("master_key_file: %w", err)
	}
	st, err := store.Open(ctx, cfg.Store, store.Options{Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	log, err := audit.New(ctx, st, cfg.Member, cfg.Now, cfg.Logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening audit log: %w", err), st.Close())
	}
	return &State{Store: st, Key: key, Audit: log, cfg: cfg}, nil
}

// Close writes out what is still waiting and closes the store.
func (s *State) Close() error { return errors.Join(s.Audit.Close(), s.Store.Close()) }

// changed records a change that was made on the server itself, before making it.
func (s *State) changed(ctx context.Context, action, resource string) error {
	_, err := s.Audit.Append(ctx, audit.Record{
		Event:     audit.EventChange,
		Principal: "local",
		Action:    action,
		Resources: []string{resource},
		Reason:    "made on the server itself",
	})
	return err
}

// CreateUser makes a user and, unless group is empty, a member of it.
func (s *State) CreateUser(ctx context.Context, name string, tags identity.Tags, group string) error {
	if err := s.changed(ctx, "iam:CreateUser", s.cfg.Realm().IAM("user", "/", name)); err != nil {
		return err
	}
	err := s.Store.CreateUser(ctx, identity.User{
		Name: name, ID: identity.NewUserID(), Path: "/", Created: s.cfg.Now(), Tags: tags,
	})
	if err != nil || group == "" {
		return err
	}
	return s.Store.AddMember(ctx, group, name)
}

// CreateGroup makes a group.
func (s *State) CreateGroup(ctx context.Context, name string) error {
	if err := s.changed(ctx, "iam:CreateGroup", s.cfg.Realm().IAM("group", "/", name)); err != nil {
		return err
	}
	return s.Store.CreateGroup(ctx, identity.Group{
		Name: name, ID: identity.NewGroupID(), Path: "/", Created: s.cfg.Now(),
	})
}

// CreateRole makes a role with a trust policy.
func (s *State) CreateRole(ctx context.Context, name, trust string) error {
	if _, err := policy.ParseTrust([]byte(trust)); err != nil {
		return fmt.Errorf("trust policy of role %s: %w", name, err)
	}
	if err := s.changed(ctx, "iam:CreateRole", s.cfg.Realm().IAM("role", "/", name)); err != nil {
		return err
	}
	return s.Store.CreateRole(ctx, identity.Role{
		Name: name, ID: identity.NewRoleID(), Path: "/", Created: s.cfg.Now(), Trust: trust,
		MaxDuration: defaultRoleDuration,
	})
}

// PutInlinePolicy embeds a policy in a user, group or role.
func (s *State) PutInlinePolicy(ctx context.Context, owner identity.Owner, name, document string) error {
	if _, err := policy.Parse([]byte(document)); err != nil {
		return fmt.Errorf("policy %s: %w", name, err)
	}
	resource := s.cfg.Realm().IAM(string(owner.Kind), "/", owner.Name)
	if err := s.changed(ctx, "iam:Put"+policyKind[owner.Kind]+"Policy", resource); err != nil {
		return err
	}
	return s.Store.PutInlinePolicy(ctx, identity.InlinePolicy{Owner: owner, Name: name, Document: document})
}

var policyKind = map[identity.OwnerKind]string{
	identity.OwnerUser: "User", identity.OwnerGroup: "Group", identity.OwnerRole: "Role",
}

// CreateAccessKey makes an access key and returns its id and secret.
func (s *State) CreateAccessKey(ctx context.Context, user string) (id, secret string, err error) {
	if err := s.changed(ctx, "iam:CreateAccessKey", s.cfg.Realm().IAM("user", "/", user)); err != nil {
		return "", "", err
	}
	key, secret := identity.NewAccessKey(s.Key, user, s.cfg.Now())
	if err := s.Store.CreateAccessKey(ctx, key, maxAccessKeys); err != nil {
		return "", "", err
	}
	return key.ID, secret, nil
}

// CreateActivation makes an activation for as many nodes as there are ids, and
// returns its id and code.
func (s *State) CreateActivation(ctx context.Context, name string, tags identity.Tags, ids []string) (id, code string, err error) {
	now := s.cfg.Now()
	code, hash := node.NewCode()
	a := node.Activation{
		ID: node.NewActivationID(), CodeHash: hash, DefaultName: name, IAMRole: "local",
		Limit: len(ids), Created: now, Expires: now.Add(node.DefaultLifetime), Tags: tags, NodeIDs: ids,
	}
	if err := a.Check(now); err != nil {
		return "", "", err
	}
	if err := s.changed(ctx, "ssm:CreateActivation", "activation/"+a.ID); err != nil {
		return "", "", err
	}
	if err := s.Store.CreateActivation(ctx, a); err != nil {
		return "", "", err
	}
	return a.ID, code, nil
}

// RegisterSSHKey registers an SSH public key, a line as in authorized_keys, for a user.
func (s *State) RegisterSSHKey(ctx context.Context, user, line string) error {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return fmt.Errorf("reading the public key of %s: %w", user, err)
	}
	if err := s.changed(ctx, "iam:UploadSSHPublicKey", s.cfg.Realm().IAM("user", "/", user)); err != nil {
		return err
	}
	return s.Store.CreateSSHKey(ctx, identity.SSHPublicKey{
		ID: identity.NewSSHKeyID(), User: user, Body: line,
		Fingerprint: ssh.FingerprintLegacyMD5(key), Active: true, Uploaded: s.cfg.Now(),
	}, maxSSHKeys)
}
