package storetest

import (
	"fmt"
	"sync"
	"testing"

	"sallyport.dev/identity"
)

func authority(id string, kind identity.SSHAuthorityKind, second int) identity.SSHAuthority {
	return identity.SSHAuthority{ID: id, Kind: kind, PublicKey: "ssh-ed25519 " + id, Sealed: []byte(id), Signing: true, Created: at(second)}
}

func testSSHAuthorities(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	list := func(kind identity.SSHAuthorityKind) []identity.SSHAuthority {
		t.Helper()
		return get[[]identity.SSHAuthority](t)(s.SSHAuthorities(ctx, kind))
	}
	if got := list(identity.SSHUsers); len(got) != 0 {
		t.Errorf("at first: got %v", got)
	}
	a, b, host := authority("a", identity.SSHUsers, 1), authority("b", identity.SSHUsers, 2), authority("h", identity.SSHHosts, 1)
	must(t, s.ReplaceSSHAuthority(ctx, a, ""))
	must(t, s.ReplaceSSHAuthority(ctx, host, ""))
	wantErr(t, "a second first one", s.ReplaceSSHAuthority(ctx, b, ""), identity.ErrConflict)
	wantErr(t, "in place of one that does not sign", s.ReplaceSSHAuthority(ctx, b, "x"), identity.ErrConflict)
	wantErr(t, "in place of another kind's", s.ReplaceSSHAuthority(ctx, b, "h"), identity.ErrConflict)
	must(t, s.ReplaceSSHAuthority(ctx, b, "a"))
	old := a
	old.Signing = false
	wantSame(t, "after rotating", list(identity.SSHUsers), []identity.SSHAuthority{b, old})
	wantSame(t, "the other kind", list(identity.SSHHosts), []identity.SSHAuthority{host})

	wantErr(t, "deleting one that signs", s.DeleteSSHAuthority(ctx, "b"), identity.ErrConflict)
	must(t, s.DeleteSSHAuthority(ctx, "a"))
	wantErr(t, "deleting twice", s.DeleteSSHAuthority(ctx, "a"), identity.ErrNotFound)
	wantSame(t, "after deleting", list(identity.SSHUsers), []identity.SSHAuthority{b})
}

// Of members that make the first authority at the same time, one does.
func testSSHAuthorityRace(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 8 {
		wg.Go(func() {
			if s.ReplaceSSHAuthority(ctx, authority(fmt.Sprint("a", i), identity.SSHHosts, 1), "") == nil {
				mu.Lock()
				made++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got := get[[]identity.SSHAuthority](t)(s.SSHAuthorities(ctx, identity.SSHHosts)); made != 1 || len(got) != 1 {
		t.Errorf("%d were made, %d are there, want 1", made, len(got))
	}
}

func testGroupSSHKeys(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.CreateGroup(ctx, group("Ops")))
	must(t, s.CreateGroup(ctx, group("web")))
	key := func(id, user string, active bool) identity.SSHPublicKey {
		return identity.SSHPublicKey{ID: id, User: user, Body: "ssh-ed25519 " + id + " x", Fingerprint: id, Active: active, Uploaded: at(1)}
	}
	for _, name := range []string{"bob", "Alice", "carol", "dave"} {
		must(t, s.CreateUser(ctx, user(name)))
		must(t, s.CreateSSHKey(ctx, key("k"+name, name, true), 5))
	}
	must(t, s.CreateSSHKey(ctx, key("off", "bob", false), 5))
	must(t, s.AddMember(ctx, "ops", "bob"))
	must(t, s.AddMember(ctx, "ops", "alice"))
	must(t, s.AddMember(ctx, "ops", "dave"))
	must(t, s.AddMember(ctx, "web", "bob"))
	must(t, s.UpdateUser(ctx, "dave", func(u *identity.User) error { u.Disabled = true; return nil }))

	wantSame(t, "keys of the group", get[[]identity.SSHPublicKey](t)(s.GroupSSHKeys(ctx, "OPS")),
		[]identity.SSHPublicKey{key("kAlice", "Alice", true), key("kbob", "bob", true)})
	_, err := s.GroupSSHKeys(ctx, "nobody")
	wantErr(t, "keys of no group", err, identity.ErrNotFound)
	wantSame(t, "keys of all groups", get[[]identity.GroupSSHKey](t)(s.GroupsWithSSHKeys(ctx)), []identity.GroupSSHKey{
		{Group: "ops", User: "Alice", KeyID: "kAlice"}, {Group: "ops", User: "bob", KeyID: "kbob"}, {Group: "web", User: "bob", KeyID: "kbob"},
	})
	must(t, s.RemoveMember(ctx, "ops", "alice"))
	must(t, s.UpdateSSHKey(ctx, "bob", "kbob", false))
	if got := get[[]identity.SSHPublicKey](t)(s.GroupSSHKeys(ctx, "ops")); len(got) != 0 {
		t.Errorf("after leaving and making inactive: got %v", got)
	}
}
