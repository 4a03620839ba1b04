package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/store"
)

func user(name string) identity.User {
	return identity.User{Name: name, ID: "AIDA" + name, Path: "/", Created: at(1)}
}

func group(name string) identity.Group {
	return identity.Group{Name: name, ID: "AGPA" + name, Path: "/", Created: at(1)}
}

func role(name string) identity.Role {
	return identity.Role{Name: name, ID: "AROA" + name, Path: "/", Created: at(1), Trust: "{}", MaxDuration: time.Hour}
}

func policy(name string) identity.ManagedPolicy {
	return identity.ManagedPolicy{ARN: "arn:aws:iam::111111111111:policy/" + name, Name: name, ID: "ANPA" + name,
		Path: "/", Created: at(1), Updated: at(1), DefaultVersion: "v1"}
}

func userName(u identity.User) string            { return u.Name }
func groupName(g identity.Group) string          { return g.Name }
func policyName(p identity.ManagedPolicy) string { return p.Name }

func testUsers(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	alice := user("Alice")
	alice.Path = "/team/"
	alice.Tags = identity.Tags{"Team": "payments, search", "Empty": ""}
	alice.Boundary = "arn:aws:iam::111111111111:policy/limit"
	must(t, s.CreateUser(ctx, alice))

	wantSame(t, "user", get[identity.User](t)(s.User(ctx, "Alice")), alice)
	wantSame(t, "user by name in other case", get[identity.User](t)(s.User(ctx, "aLICE")), alice)
	wantSame(t, "user by id", get[identity.User](t)(s.UserByID(ctx, "AIDAAlice")), alice)
	again := user("ALICE")
	wantErr(t, "creating a name in other case", s.CreateUser(ctx, again), identity.ErrExists)
	_, err := s.User(ctx, "bob")
	wantErr(t, "unknown user", err, identity.ErrNotFound)
	_, err = s.UserByID(ctx, "AIDAx")
	wantErr(t, "unknown id", err, identity.ErrNotFound)

	must(t, s.CreateUser(ctx, user("bob")))
	rename := func(to string) func(*identity.User) error {
		return func(u *identity.User) error { u.Name = to; return nil }
	}
	wantErr(t, "renaming to a taken name", s.UpdateUser(ctx, "bob", rename("alice")), identity.ErrExists)
	must(t, s.UpdateUser(ctx, "Alice", rename("ALICE")))
	must(t, s.CreateAccessKey(ctx, identity.AccessKey{ID: "AKIA1", User: "alice", Sealed: []byte{1}}, 2))
	must(t, s.UpdateUser(ctx, "alice", func(u *identity.User) error {
		u.Name, u.ID, u.Disabled, u.Tags = "carol", "AIDAforged", true, nil
		return nil
	}))
	want := alice
	want.Name, want.Disabled, want.Tags = "carol", true, nil
	wantSame(t, "renamed user", get[identity.User](t)(s.User(ctx, "Carol")), want)
	wantSame(t, "owner of the key after renaming", get[identity.AccessKey](t)(s.AccessKey(ctx, "AKIA1")).User, "carol")
	_, err = s.User(ctx, "alice")
	wantErr(t, "old name", err, identity.ErrNotFound)

	refuse := errors.New("no")
	wantErr(t, "a change that refuses", s.UpdateUser(ctx, "carol", func(u *identity.User) error {
		u.Path = "/changed/"
		return refuse
	}), refuse)
	wantSame(t, "user after a refused change", get[identity.User](t)(s.User(ctx, "carol")), want)
	wantErr(t, "changing an unknown user", s.UpdateUser(ctx, "x", rename("y")), identity.ErrNotFound)

	must(t, s.DeleteUser(ctx, "BOB"))
	wantErr(t, "deleting twice", s.DeleteUser(ctx, "bob"), identity.ErrNotFound)
}

func testPages(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	for _, n := range []struct{ name, path string }{
		{"b", "/"}, {"A", "/x/"}, {"c-1", "/x/y/"}, {"C", "/X/"}, {"_d", "/x%/"}, {"c.2", "/x_y/"},
	} {
		u := user(n.name)
		u.Path = n.path
		must(t, s.CreateUser(ctx, u))
	}
	tests := []struct {
		name string
		page identity.Page
		want string
	}{
		{"all, in bytewise order of lower case", identity.Page{}, "_d A b C c-1 c.2"},
		{"the first two", identity.Page{Limit: 2}, "_d A"},
		{"after a name, in any case", identity.Page{After: "B", Limit: 2}, "C c-1"},
		{"after a name that is not there", identity.Page{After: "bb"}, "C c-1 c.2"},
		{"after the last", identity.Page{After: "z"}, ""},
		{"by path", identity.Page{PathPrefix: "/x/"}, "A c-1"},
		{"by path with a percent sign", identity.Page{PathPrefix: "/x%"}, "_d"},
		{"by path with an underscore", identity.Page{PathPrefix: "/x_"}, "c.2"},
		{"root path", identity.Page{PathPrefix: "/", Limit: 3}, "_d A b"},
	}
	for _, tt := range tests {
		got := names(get[[]identity.User](t)(s.Users(ctx, tt.page)), userName)
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func testGroups(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	dev := group("Dev")
	must(t, s.CreateGroup(ctx, dev))
	wantSame(t, "group", get[identity.Group](t)(s.Group(ctx, "dev")), dev)
	wantErr(t, "taken name", s.CreateGroup(ctx, group("DEV")), identity.ErrExists)
	must(t, s.CreateGroup(ctx, group("ops")))
	for _, u := range []string{"bob", "alice", "carol"} {
		must(t, s.CreateUser(ctx, user(u)))
	}
	for _, u := range []string{"bob", "ALICE", "bob"} {
		must(t, s.AddMember(ctx, "dev", u))
	}
	must(t, s.AddMember(ctx, "ops", "alice"))
	members := func(g string, p identity.Page) string {
		return names(get[[]identity.User](t)(s.Members(ctx, g, p)), userName)
	}
	wantSame(t, "members", members("DEV", identity.Page{}), "alice bob")
	wantSame(t, "first member", members("dev", identity.Page{Limit: 1}), "alice")
	wantSame(t, "next member", members("dev", identity.Page{After: "alice"}), "bob")
	wantSame(t, "groups of alice", names(get[[]identity.Group](t)(s.GroupsOf(ctx, "Alice", identity.Page{})), groupName), "Dev ops")
	wantSame(t, "groups of carol", names(get[[]identity.Group](t)(s.GroupsOf(ctx, "carol", identity.Page{})), groupName), "")

	wantErr(t, "adding to an unknown group", s.AddMember(ctx, "x", "alice"), identity.ErrNotFound)
	wantErr(t, "adding an unknown user", s.AddMember(ctx, "dev", "x"), identity.ErrNotFound)
	wantErr(t, "removing one who is not in it", s.RemoveMember(ctx, "dev", "carol"), identity.ErrNotFound)
	_, err := s.Members(ctx, "x", identity.Page{})
	wantErr(t, "members of an unknown group", err, identity.ErrNotFound)
	_, err = s.GroupsOf(ctx, "x", identity.Page{})
	wantErr(t, "groups of an unknown user", err, identity.ErrNotFound)

	must(t, s.UpdateGroup(ctx, "dev", func(g *identity.Group) error { g.Name = "Builders"; return nil }))
	wantSame(t, "members after renaming", members("builders", identity.Page{}), "alice bob")
	must(t, s.RemoveMember(ctx, "builders", "BOB"))
	wantSame(t, "members after removing", members("builders", identity.Page{}), "alice")
	wantSame(t, "groups", names(get[[]identity.Group](t)(s.Groups(ctx, identity.Page{})), groupName), "Builders ops")
}

func testRoles(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	r := identity.Role{Name: "Front", ID: "AROA1", Path: "/", Created: at(1), Description: "d", Trust: `{"a":1}`,
		MaxDuration: 90 * time.Minute, Tags: identity.Tags{"k": "v"}, Boundary: "arn"}
	must(t, s.CreateRole(ctx, r))
	wantSame(t, "role", get[identity.Role](t)(s.Role(ctx, "fRONT")), r)
	wantErr(t, "taken name", s.CreateRole(ctx, role("front")), identity.ErrExists)
	must(t, s.UpdateRole(ctx, "front", func(r *identity.Role) error { r.Trust, r.MaxDuration = "{}", time.Hour; return nil }))
	r.Trust, r.MaxDuration = "{}", time.Hour
	wantSame(t, "changed role", get[[]identity.Role](t)(s.Roles(ctx, identity.Page{})), []identity.Role{r})
	must(t, s.DeleteRole(ctx, "front"))
	_, err := s.Role(ctx, "front")
	wantErr(t, "deleted role", err, identity.ErrNotFound)
}

func testAccessKeys(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.CreateUser(ctx, user("alice")))
	must(t, s.CreateUser(ctx, user("bob")))
	k := identity.AccessKey{ID: "AKIA1", User: "alice", Sealed: []byte{0, 255, 'x'}, Active: true, Created: at(1)}
	must(t, s.CreateAccessKey(ctx, k, 2))
	wantSame(t, "key", get[identity.AccessKey](t)(s.AccessKey(ctx, "AKIA1")), k)
	k2 := identity.AccessKey{ID: "AKIA2", User: "alice", Sealed: []byte{1}, Created: at(2)}
	must(t, s.CreateAccessKey(ctx, k2, 2))
	wantErr(t, "a third key", s.CreateAccessKey(ctx, identity.AccessKey{ID: "AKIA3", User: "alice", Sealed: []byte{1}}, 2), identity.ErrLimit)
	wantErr(t, "a key of an unknown user", s.CreateAccessKey(ctx, identity.AccessKey{ID: "AKIA3", User: "x", Sealed: []byte{1}}, 2), identity.ErrNotFound)
	wantErr(t, "a taken id", s.CreateAccessKey(ctx, identity.AccessKey{ID: "AKIA1", User: "bob", Sealed: []byte{1}}, 2), identity.ErrExists)
	wantSame(t, "keys", get[[]identity.AccessKey](t)(s.AccessKeys(ctx, "ALICE")), []identity.AccessKey{k, k2})
	wantSame(t, "keys of one without", get[[]identity.AccessKey](t)(s.AccessKeys(ctx, "bob")), []identity.AccessKey(nil))

	wantErr(t, "deactivating as another user's", s.UpdateAccessKey(ctx, "bob", "AKIA1", false), identity.ErrNotFound)
	must(t, s.UpdateAccessKey(ctx, "alice", "AKIA1", false))
	must(t, s.TouchAccessKey(ctx, "AKIA1", at(9)))
	must(t, s.TouchAccessKey(ctx, "AKIA1", at(5))) // late, from another member
	k.Active, k.LastUsed = false, at(9)
	wantSame(t, "key after use", get[identity.AccessKey](t)(s.AccessKey(ctx, "AKIA1")), k)
	wantErr(t, "deleting as another user's", s.DeleteAccessKey(ctx, "bob", "AKIA1"), identity.ErrNotFound)
	must(t, s.DeleteAccessKey(ctx, "alice", "AKIA1"))
	_, err := s.AccessKey(ctx, "AKIA1")
	wantErr(t, "deleted key", err, identity.ErrNotFound)
	wantErr(t, "touching a deleted key", s.TouchAccessKey(ctx, "AKIA1", at(9)), identity.ErrNotFound)
}

func testSSHKeys(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.CreateUser(ctx, user("alice")))
	must(t, s.CreateUser(ctx, user("bob")))
	k := identity.SSHPublicKey{ID: "APKA1", User: "alice", Body: "ssh-ed25519 AAAA laptop", Fingerprint: "aa:bb", Active: true, Uploaded: at(1)}
	must(t, s.CreateSSHKey(ctx, k, 2))
	wantSame(t, "key", get[identity.SSHPublicKey](t)(s.SSHKey(ctx, "Alice", "APKA1")), k)
	same := k
	same.ID, same.Body = "APKA2", "ssh-ed25519 AAAA other comment"
	wantErr(t, "the same key with another comment", s.CreateSSHKey(ctx, same, 2), identity.ErrExists)
	wantErr(t, "the same key at the limit", s.CreateSSHKey(ctx, same, 1), identity.ErrExists)
	other := k
	other.ID, other.Body = "APKA3", "ssh-ed25519 BBBB"
	wantErr(t, "at the limit", s.CreateSSHKey(ctx, other, 1), identity.ErrLimit)
	bobs := same
	bobs.User = "bob"
	must(t, s.CreateSSHKey(ctx, bobs, 2)) // two people may share a machine
	_, err := s.SSHKey(ctx, "bob", "APKA1")
	wantErr(t, "another user's key", err, identity.ErrNotFound)
	wantSame(t, "by fingerprint", get[[]identity.SSHPublicKey](t)(s.SSHKeysByFingerprint(ctx, "aa:bb")), []identity.SSHPublicKey{k, bobs})
	wantErr(t, "deactivating as another's", s.UpdateSSHKey(ctx, "bob", "APKA1", false), identity.ErrNotFound)
	must(t, s.UpdateSSHKey(ctx, "alice", "APKA1", false))
	k.Active = false
	wantSame(t, "keys", get[[]identity.SSHPublicKey](t)(s.SSHKeys(ctx, "alice")), []identity.SSHPublicKey{k})
	wantErr(t, "deleting as another's", s.DeleteSSHKey(ctx, "bob", "APKA1"), identity.ErrNotFound)
	must(t, s.DeleteSSHKey(ctx, "alice", "APKA1"))
	wantSame(t, "keys after deleting", get[[]identity.SSHPublicKey](t)(s.SSHKeys(ctx, "alice")), []identity.SSHPublicKey(nil))
}

// owners creates a user, a group and a role with the same name.
func owners(t *testing.T, s *store.Store) []identity.Owner {
	ctx := t.Context()
	must(t, s.CreateUser(ctx, user("x")))
	must(t, s.CreateGroup(ctx, group("x")))
	must(t, s.CreateRole(ctx, role("x")))
	return []identity.Owner{{Kind: identity.OwnerUser, Name: "x"}, {Kind: identity.OwnerGroup, Name: "x"}, {Kind: identity.OwnerRole, Name: "x"}}
}

func testInlinePolicies(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	for _, o := range owners(t, s) {
		p := identity.InlinePolicy{Owner: o, Name: "Zed", Document: `{"of":"` + string(o.Kind) + `"}`}
		must(t, s.PutInlinePolicy(ctx, p))
		wantSame(t, "policy", get[identity.InlinePolicy](t)(s.InlinePolicy(ctx, o, "zed")), p)
		p.Name, p.Document = "ZED", "{}"
		must(t, s.PutInlinePolicy(ctx, p))
		a := identity.InlinePolicy{Owner: o, Name: "a", Document: "{}"}
		must(t, s.PutInlinePolicy(ctx, a))
		wantSame(t, "policies", get[[]identity.InlinePolicy](t)(s.InlinePolicies(ctx, o)), []identity.InlinePolicy{a, p})
		must(t, s.DeleteInlinePolicy(ctx, o, "zed"))
		wantErr(t, "deleting twice", s.DeleteInlinePolicy(ctx, o, "zed"), identity.ErrNotFound)
		_, err := s.InlinePolicy(ctx, o, "zed")
		wantErr(t, "deleted policy", err, identity.ErrNotFound)
	}
	for _, o := range []identity.Owner{{Kind: identity.OwnerUser, Name: "none"}, {Kind: "planet", Name: "x"}, {}} {
		wantErr(t, "unknown owner", s.PutInlinePolicy(ctx, identity.InlinePolicy{Owner: o, Name: "p"}), identity.ErrNotFound)
		_, err := s.InlinePolicies(ctx, o)
		wantErr(t, "unknown owner", err, identity.ErrNotFound)
	}
}

func testManagedPolicies(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	p := policy("Front")
	p.Description, p.Tags = "d", identity.Tags{"k": "v"}
	must(t, s.CreatePolicy(ctx, p, "one"))
	wantSame(t, "policy", get[identity.ManagedPolicy](t)(s.Policy(ctx, p.ARN)), p)
	twin := policy("FRONT")
	wantErr(t, "taken name", s.CreatePolicy(ctx, twin, "x"), identity.ErrExists)

	version := func(document string, makeDefault bool) identity.PolicyVersion {
		return get[identity.PolicyVersion](t)(s.CreatePolicyVersion(ctx, p.ARN, document, at(5), makeDefault))
	}
	v2 := version("two", true)
	wantSame(t, "new version", v2, identity.PolicyVersion{PolicyARN: p.ARN, ID: "v2", Document: "two", Created: at(5), Default: true})
	version("three", false)
	version("four", false)
	version("five", false)
	_, err := s.CreatePolicyVersion(ctx, p.ARN, "six", at(6), false)
	wantErr(t, "a sixth version", err, identity.ErrLimit)
	wantErr(t, "deleting the default", s.DeletePolicyVersion(ctx, p.ARN, "v2"), identity.ErrConflict)
	must(t, s.DeletePolicyVersion(ctx, p.ARN, "v5"))
	wantSame(t, "a number is not used twice", version("six", false).ID, "v6")
	ids := func() string {
		return names(get[[]identity.PolicyVersion](t)(s.PolicyVersions(ctx, p.ARN)), func(v identity.PolicyVersion) string {
			if v.Default {
				return v.ID + "*"
			}
			return v.ID
		})
	}
	wantSame(t, "versions", ids(), "v6 v4 v3 v2* v1")
	must(t, s.SetDefaultPolicyVersion(ctx, p.ARN, "v3"))
	wantSame(t, "versions", ids(), "v6 v4 v3* v2 v1")
	for _, id := range []string{"v5", "v9", "3", "v03", "v-3", "", "v", "v3 "} {
		wantErr(t, "setting default "+id, s.SetDefaultPolicyVersion(ctx, p.ARN, id), identity.ErrNotFound)
		wantErr(t, "deleting version "+id, s.DeletePolicyVersion(ctx, p.ARN, id), identity.ErrNotFound)
		_, err := s.PolicyVersion(ctx, p.ARN, id)
		wantErr(t, "version "+id, err, identity.ErrNotFound)
	}
	wantSame(t, "a version", get[identity.PolicyVersion](t)(s.PolicyVersion(ctx, p.ARN, "v1")),
		identity.PolicyVersion{PolicyARN: p.ARN, ID: "v1", Document: "one", Created: at(1)})

	must(t, s.TagPolicy(ctx, p.ARN, func(tags identity.Tags) (identity.Tags, error) {
		tags["more"] = "m"
		return tags, nil
	}))
	p.Tags["more"], p.DefaultVersion, p.Updated = "m", "v3", at(5)
	wantSame(t, "policies", get[[]identity.ManagedPolicy](t)(s.Policies(ctx, identity.Page{})), []identity.ManagedPolicy{p})

	wantErr(t, "deleting with versions", s.DeletePolicy(ctx, p.ARN), identity.ErrConflict)
	for _, id := range []string{"v1", "v2", "v4", "v6"} {
		must(t, s.DeletePolicyVersion(ctx, p.ARN, id))
	}
	must(t, s.DeletePolicy(ctx, p.ARN))
	_, err = s.Policy(ctx, p.ARN)
	wantErr(t, "deleted policy", err, identity.ErrNotFound)
	_, err = s.PolicyVersions(ctx, p.ARN)
	wantErr(t, "versions of a deleted policy", err, identity.ErrNotFound)
	_, err = s.CreatePolicyVersion(ctx, p.ARN, "x", at(1), true)
	wantErr(t, "new version of a deleted policy", err, identity.ErrNotFound)
}

func testAttachments(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	all := owners(t, s)
	a, b, c := policy("a"), policy("B"), policy("c")
	for _, p := range []identity.ManagedPolicy{b, c, a} {
		must(t, s.CreatePolicy(ctx, p, "{}"))
	}
	for _, o := range all {
		must(t, s.AttachPolicy(ctx, o, b.ARN, 2))
		must(t, s.AttachPolicy(ctx, o, a.ARN, 2))
		must(t, s.AttachPolicy(ctx, o, a.ARN, 2)) // once more, at the limit
		wantErr(t, "over the limit", s.AttachPolicy(ctx, o, c.ARN, 2), identity.ErrLimit)
		wantSame(t, "attached", names(get[[]identity.ManagedPolicy](t)(s.AttachedPolicies(ctx, o)), policyName), "a B")
	}
	wantSame(t, "count of attachments", get[identity.ManagedPolicy](t)(s.Policy(ctx, a.ARN)).Attachments, 3)
	wantSame(t, "owners", names(get[[]identity.Owner](t)(s.PolicyOwners(ctx, a.ARN)), func(o identity.Owner) string {
		return string(o.Kind) + "/" + o.Name
	}), "group/x role/x user/x")
	must(t, s.DetachPolicy(ctx, all[0], a.ARN))
	wantErr(t, "detaching twice", s.DetachPolicy(ctx, all[0], a.ARN), identity.ErrNotFound)
	wantSame(t, "attached", names(get[[]identity.ManagedPolicy](t)(s.AttachedPolicies(ctx, all[0])), policyName), "B")
	wantSame(t, "count of attachments", get[identity.ManagedPolicy](t)(s.Policy(ctx, a.ARN)).Attachments, 2)
	wantErr(t, "attaching an unknown policy", s.AttachPolicy(ctx, all[0], "arn:none", 2), identity.ErrNotFound)
	wantErr(t, "attaching to an unknown owner", s.AttachPolicy(ctx, identity.Owner{Kind: identity.OwnerRole, Name: "y"}, a.ARN, 2), identity.ErrNotFound)
	_, err := s.PolicyOwners(ctx, "arn:none")
	wantErr(t, "owners of an unknown policy", err, identity.ErrNotFound)
}

// testConflicts: what is in use cannot be deleted until the last use is gone.
func testConflicts(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	p := policy("p")
	must(t, s.CreatePolicy(ctx, p, "{}"))
	u, g, r := identity.Owner{Kind: identity.OwnerUser, Name: "u"}, identity.Owner{Kind: identity.OwnerGroup, Name: "g"}, identity.Owner{Kind: identity.OwnerRole, Name: "r"}
	must(t, s.CreateUser(ctx, user("u")))
	must(t, s.CreateGroup(ctx, group("g")))
	must(t, s.CreateRole(ctx, role("r")))
	deleteUser := func() error { return s.DeleteUser(ctx, "u") }
	deleteGroup := func() error { return s.DeleteGroup(ctx, "g") }
	deleteRole := func() error { return s.DeleteRole(ctx, "r") }
	deletePolicy := func() error { return s.DeletePolicy(ctx, p.ARN) }
	bound := func(arn string) func() error {
		return func() error {
			return s.UpdateUser(ctx, "u", func(u *identity.User) error { u.Boundary = arn; return nil })
		}
	}
	boundRole := func(arn string) func() error {
		return func() error {
			return s.UpdateRole(ctx, "r", func(r *identity.Role) error { r.Boundary = arn; return nil })
		}
	}
	inline := func(o identity.Owner) func() error {
		return func() error {
			return s.PutInlinePolicy(ctx, identity.InlinePolicy{Owner: o, Name: "i", Document: "{}"})
		}
	}
	noInline := func(o identity.Owner) func() error { return func() error { return s.DeleteInlinePolicy(ctx, o, "i") } }
	attach := func(o identity.Owner) func() error { return func() error { return s.AttachPolicy(ctx, o, p.ARN, 10) } }
	detach := func(o identity.Owner) func() error { return func() error { return s.DetachPolicy(ctx, o, p.ARN) } }
	tests := []struct {
		name     string
		use, end func() error
		refused  []func() error
	}{
		{"membership", func() error { return s.AddMember(ctx, "g", "u") }, func() error { return s.RemoveMember(ctx, "g", "u") }, []func() error{deleteUser, deleteGroup}},
		{"access key", func() error {
			return s.CreateAccessKey(ctx, identity.AccessKey{ID: "AKIA", User: "u", Sealed: []byte{1}}, 2)
		}, func() error { return s.DeleteAccessKey(ctx, "u", "AKIA") }, []func() error{deleteUser}},
		{"SSH key", func() error {
			return s.CreateSSHKey(ctx, identity.SSHPublicKey{ID: "APKA", User: "u", Body: "a b"}, 5)
		}, func() error { return s.DeleteSSHKey(ctx, "u", "APKA") }, []func() error{deleteUser}},
		{"inline policy of a user", inline(u), noInline(u), []func() error{deleteUser}},
		{"inline policy of a group", inline(g), noInline(g), []func() error{deleteGroup}},
		{"inline policy of a role", inline(r), noInline(r), []func() error{deleteRole}},
		{"policy of a user", attach(u), detach(u), []func() error{deleteUser, deletePolicy}},
		{"policy of a group", attach(g), detach(g), []func() error{deleteGroup, deletePolicy}},
		{"policy of a role", attach(r), detach(r), []func() error{deleteRole, deletePolicy}},
		{"boundary of a user", bound(p.ARN), bound(""), []func() error{deletePolicy}},
		{"boundary of a role", boundRole(p.ARN), boundRole(""), []func() error{deletePolicy}},
	}
	for _, tt := range tests {
		must(t, tt.use())
		for _, del := range tt.refused {
			wantErr(t, tt.name, del(), identity.ErrConflict)
		}
		must(t, tt.end())
	}
	for _, del := range []func() error{deleteUser, deleteGroup, deleteRole, deletePolicy} {
		must(t, del())
	}
}

// testRevision: every change bumps the revision; reading, failing, and noting a
// key's use do not.
func testRevision(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	revision := func() int64 { return get[int64](t)(s.Revision(ctx)) }
	u := identity.Owner{Kind: identity.OwnerUser, Name: "u"}
	p := policy("p")
	steps := []struct {
		name  string
		bumps bool
		do    func() error
	}{
		{"CreateUser", true, func() error { return s.CreateUser(ctx, user("u")) }},
		{"CreateUser, taken", false, func() error { return ignore(s.CreateUser(ctx, user("u"))) }},
		{"UpdateUser", true, func() error {
			return s.UpdateUser(ctx, "u", func(u *identity.User) error { u.Disabled = true; return nil })
		}},
		{"CreateGroup", true, func() error { return s.CreateGroup(ctx, group("g")) }},
		{"UpdateGroup", true, func() error { return s.UpdateGroup(ctx, "g", func(g *identity.Group) error { return nil }) }},
		{"AddMember", true, func() error { return s.AddMember(ctx, "g", "u") }},
		{"CreateRole", true, func() error { return s.CreateRole(ctx, role("r")) }},
		{"UpdateRole", true, func() error { return s.UpdateRole(ctx, "r", func(r *identity.Role) error { return nil }) }},
		{"CreateAccessKey", true, func() error {
			return s.CreateAccessKey(ctx, identity.AccessKey{ID: "AKIA", User: "u", Sealed: []byte{1}}, 2)
		}},
		{"UpdateAccessKey", true, func() error { return s.UpdateAccessKey(ctx, "u", "AKIA", false) }},
		{"TouchAccessKey", false, func() error { return s.TouchAccessKey(ctx, "AKIA", at(3)) }},
		{"CreateSSHKey", true, func() error {
			return s.CreateSSHKey(ctx, identity.SSHPublicKey{ID: "APKA", User: "u", Body: "a b"}, 5)
		}},
		{"UpdateSSHKey", true, func() error { return s.UpdateSSHKey(ctx, "u", "APKA", false) }},
		{"PutInlinePolicy", true, func() error { return s.PutInlinePolicy(ctx, identity.InlinePolicy{Owner: u, Name: "i"}) }},
		{"CreatePolicy", true, func() error { return s.CreatePolicy(ctx, p, "{}") }},
		{"CreatePolicyVersion", true, func() error { _, err := s.CreatePolicyVersion(ctx, p.ARN, "{}", at(2), false); return err }},
		{"SetDefaultPolicyVersion", true, func() error { return s.SetDefaultPolicyVersion(ctx, p.ARN, "v2") }},
		{"TagPolicy", true, func() error {
			return s.TagPolicy(ctx, p.ARN, func(identity.Tags) (identity.Tags, error) { return nil, nil })
		}},
		{"AttachPolicy", true, func() error { return s.AttachPolicy(ctx, u, p.ARN, 10) }},
		{"reading", false, func() error { _, err := s.AttachedPolicies(ctx, u); return err }},
		{"DetachPolicy", true, func() error { return s.DetachPolicy(ctx, u, p.ARN) }},
		{"DeletePolicyVersion", true, func() error { return s.DeletePolicyVersion(ctx, p.ARN, "v1") }},
		{"DeletePolicy", true, func() error { return s.DeletePolicy(ctx, p.ARN) }},
		{"DeleteInlinePolicy", true, func() error { return s.DeleteInlinePolicy(ctx, u, "i") }},
		{"DeleteSSHKey", true, func() error { return s.DeleteSSHKey(ctx, "u", "APKA") }},
		{"DeleteAccessKey", true, func() error { return s.DeleteAccessKey(ctx, "u", "AKIA") }},
		{"RemoveMember", true, func() error { return s.RemoveMember(ctx, "g", "u") }},
		{"DeleteRole", true, func() error { return s.DeleteRole(ctx, "r") }},
		{"DeleteGroup", true, func() error { return s.DeleteGroup(ctx, "g") }},
		{"DeleteUser", true, func() error { return s.DeleteUser(ctx, "u") }},
		{"DeleteUser, unknown", false, func() error { return ignore(s.DeleteUser(ctx, "u")) }},
	}
	before := revision()
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if after := revision(); (after > before) != step.bumps {
			t.Errorf("%s: revision went from %d to %d, want a bump: %v", step.name, before, after, step.bumps)
		}
		before = revision()
	}
}

// ignore takes an error that the step is meant to have.
func ignore(err error) error {
	if err == nil {
		return errors.New("got no error")
	}
	return nil
}

// testHostileText: text is data, whatever it looks like.
func testHostileText(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	hostile := []string{`'; DROP TABLE users; --`, `" OR 1=1`, `$1`, `?`, `%`, `_`, `\`, `a\'b`, "tab\tnewline\n", "ünïcode 💥", "[]", "null", `{"a":1}`}
	for i, text := range hostile {
		u := user(fmt.Sprint("u", i))
		u.Name, u.Path, u.Boundary = text, "/"+text+"/", text
		u.Tags = identity.Tags{text: text}
		must(t, s.CreateUser(ctx, u))
		wantSame(t, text, get[identity.User](t)(s.User(ctx, text)), u)
		found := get[[]identity.User](t)(s.Users(ctx, identity.Page{PathPrefix: u.Path}))
		wantSame(t, "by path "+text, found, []identity.User{u})
	}
	_, err := s.User(ctx, "x' OR 'a'='a")
	wantErr(t, "injected condition", err, identity.ErrNotFound)
	wantSame(t, "users", len(get[[]identity.User](t)(s.Users(ctx, identity.Page{}))), len(hostile))
}
