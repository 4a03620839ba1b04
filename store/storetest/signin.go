package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/signin"
)

func signIn(id, user string, second int) signin.SignIn {
	return signin.SignIn{
		ID: id, User: user, Kind: signin.KindCLI, Method: "local", Factor: "totp", FactorAt: at(second), Computer: "laptop",
		Created: at(second), Used: at(second), Expires: at(second).Add(time.Hour), IP: "192.0.2.1", Agent: "sallyport/1", Secret: "s" + id,
	}
}

func testSignIns(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	a, b, c := signIn("a", "U1", 1), signIn("b", "U1", 2), signIn("c", "U2", 2)
	for _, in := range []signin.SignIn{a, b, c} {
		must(t, s.CreateSignIn(ctx, in))
	}
	wantErr(t, "the same id again", s.CreateSignIn(ctx, a), identity.ErrExists)
	twin := signIn("d", "U1", 3)
	twin.Secret = a.Secret
	wantErr(t, "the same secret again", s.CreateSignIn(ctx, twin), identity.ErrExists)
	wantSame(t, "reading", get[signin.SignIn](t)(s.SignIn(ctx, "a")), a)
	wantSame(t, "by secret", get[signin.SignIn](t)(s.SignInBySecret(ctx, "sa")), a)
	_, err := s.SignIn(ctx, "A")
	wantErr(t, "another case", err, identity.ErrNotFound)
	_, err = s.SignInBySecret(ctx, "")
	wantErr(t, "no secret", err, identity.ErrNotFound)

	a.Secret, a.Spent = "next", []string{"sa"}
	got, err := s.UpdateSignIn(ctx, "a", func(in *signin.SignIn) error {
		in.Secret, in.Spent = "next", append(in.Spent, in.Secret)
		return nil
	})
	must(t, err)
	wantSame(t, "changed", got, a)
	_, err = s.SignInBySecret(ctx, "sa")
	wantErr(t, "by a spent secret", err, identity.ErrNotFound)
	wantSame(t, "by the new secret", get[signin.SignIn](t)(s.SignInBySecret(ctx, "next")), a)
	refusal := errors.New("no")
	_, err = s.UpdateSignIn(ctx, "a", func(in *signin.SignIn) error { in.Secret = "x"; return refusal })
	wantErr(t, "a change that is refused", err, refusal)
	wantSame(t, "after it", get[signin.SignIn](t)(s.SignIn(ctx, "a")), a)

	list := func(f signin.Filter) string {
		t.Helper()
		return names(get[[]signin.SignIn](t)(s.SignIns(ctx, f)), func(in signin.SignIn) string { return in.ID })
	}
	for _, want := range []struct {
		filter signin.Filter
		ids    string
	}{
		{signin.Filter{}, "c b a"},
		{signin.Filter{User: "U1"}, "b a"},
		{signin.Filter{Limit: 1}, "c"},
		{signin.Filter{After: "c", Limit: 1}, "b"},
		{signin.Filter{After: "a"}, ""},
		{signin.Filter{Live: true, Now: at(1).Add(time.Hour)}, "c b"},
	} {
		if got := list(want.filter); got != want.ids {
			t.Errorf("%+v: got %q, want %q", want.filter, got, want.ids)
		}
	}

	n, err := s.EndSignIns(ctx, "U1", "disabled", at(9))
	must(t, err)
	again, err := s.EndSignIns(ctx, "U1", "again", at(10))
	must(t, err)
	if n != 2 || again != 0 {
		t.Errorf("ended %d and then %d, want 2 and 0", n, again)
	}
	ended := get[signin.SignIn](t)(s.SignIn(ctx, "b"))
	if !ended.Ended.Equal(at(9)) || ended.Because != "disabled" {
		t.Errorf("got %v %q, want it ended", ended.Ended, ended.Because)
	}
	if got, want := list(signin.Filter{Live: true, Now: at(10)}), "c"; got != want {
		t.Errorf("live: got %q, want %q", got, want)
	}
	must(t, s.DeleteSignIns(ctx, at(10)))
	if got, want := list(signin.Filter{}), "c"; got != want {
		t.Errorf("after forgetting: got %q, want %q", got, want)
	}
}

func waiting(id, code string, second int) signin.Pairing {
	return signin.Pairing{
		ID: id, UserCode: code, Client: "sallyport", Kind: signin.KindCLI, Computer: "laptop", Redirect: "http://127.0.0.1:1/",
		Challenge: "c", IP: "192.0.2.1", Agent: "x", Created: at(second), Expires: at(second).Add(time.Minute), State: signin.PairingWaiting,
	}
}

func testPairings(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	a := waiting("a", "AAAA", 1)
	must(t, s.CreatePairing(ctx, a, 2))
	wantErr(t, "the same code", s.CreatePairing(ctx, waiting("b", "AAAA", 1), 9), identity.ErrExists)
	must(t, s.CreatePairing(ctx, waiting("b", "", 1), 2))
	wantErr(t, "one too many", s.CreatePairing(ctx, waiting("c", "", 1), 2), identity.ErrLimit)
	must(t, s.CreatePairing(ctx, waiting("c", "", 62), 1)) // the others have expired
	wantSame(t, "reading", get[signin.Pairing](t)(s.Pairing(ctx, "a")), a)
	wantSame(t, "by code", get[signin.Pairing](t)(s.PairingByUserCode(ctx, "AAAA")), a)
	_, err := s.PairingByUserCode(ctx, "")
	wantErr(t, "no code", err, identity.ErrNotFound)

	a.State, a.User, a.By, a.Method, a.Factor, a.FactorAt = signin.PairingConfirmed, "U1", "si-1", "oidc x", "webauthn", at(3)
	must(t, s.UpdatePairing(ctx, "a", func(p *signin.Pairing) error { *p = a; return nil }))
	wantSame(t, "confirmed", get[signin.Pairing](t)(s.Pairing(ctx, "a")), a)
	refusal := errors.New("no")
	_, err = s.Redeem(ctx, "a", func(signin.Pairing) (signin.SignIn, error) { return signin.SignIn{}, refusal })
	wantErr(t, "redeeming refused", err, refusal)
	in := get[signin.SignIn](t)(s.Redeem(ctx, "a", func(p signin.Pairing) (signin.SignIn, error) {
		wantSame(t, "when redeeming", p, a)
		return signIn("si-2", p.User, 4), nil
	}))
	wantSame(t, "redeemed", get[signin.SignIn](t)(s.SignIn(ctx, "si-2")), in)
	a.State, a.SignIn = signin.PairingUsed, "si-2"
	wantSame(t, "used", get[signin.Pairing](t)(s.Pairing(ctx, "a")), a)
	must(t, s.DeletePairings(ctx, at(62)))
	_, err = s.Pairing(ctx, "a")
	wantErr(t, "forgotten", err, identity.ErrNotFound)
	get[signin.Pairing](t)(s.Pairing(ctx, "c"))
}

// Of programs that redeem a pairing at the same moment one gets a sign-in.
func testRedeemRace(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.CreatePairing(ctx, waiting("a", "AAAA", 1), 9))
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 8 {
		wg.Go(func() {
			_, err := s.Redeem(ctx, "a", func(p signin.Pairing) (signin.SignIn, error) {
				if p.State == signin.PairingUsed {
					return signin.SignIn{}, signin.ErrReused
				}
				return signIn(fmt.Sprint("si-", i), "U1", 2), nil
			})
			if err == nil {
				mu.Lock()
				made++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got := get[[]signin.SignIn](t)(s.SignIns(ctx, signin.Filter{})); made != 1 || len(got) != 1 {
		t.Errorf("%d were made, %d are there, want 1", made, len(got))
	}
}

func testAccounts(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	u := user("Alice")
	l := signin.Account{Issuer: "https://id.example.com", Subject: "1", User: u.ID, Provider: "corp", Name: "alice@example.com", Linked: at(1)}
	must(t, s.Enrol(ctx, u, l))
	wantSame(t, "linked", get[signin.Account](t)(s.Account(ctx, l.Issuer, "1")), l)
	wantSame(t, "the person", get[identity.User](t)(s.User(ctx, "alice")), u)
	_, err := s.Account(ctx, "https://other.example.com", "1")
	wantErr(t, "another issuer", err, identity.ErrNotFound)

	other := user("bob")
	again := l
	again.User = other.ID
	wantErr(t, "an account that is linked", s.Enrol(ctx, other, again), identity.ErrExists)
	_, err = s.User(ctx, "bob")
	wantErr(t, "its user", err, identity.ErrNotFound)
	namesake := user("ALICE")
	namesake.ID = "AIDAOTHER"
	second := signin.Account{Issuer: l.Issuer, Subject: "2", User: namesake.ID, Linked: at(2)}
	wantErr(t, "a name that is taken", s.Enrol(ctx, namesake, second), identity.ErrExists)
	_, err = s.Account(ctx, l.Issuer, "2")
	wantErr(t, "its link", err, identity.ErrNotFound)

	wantErr(t, "linking nobody", s.LinkAccount(ctx, second), identity.ErrNotFound)
	second.User, second.By = u.ID, "arn:aws:iam::000000000000:user/admin"
	must(t, s.LinkAccount(ctx, second))
	wantErr(t, "linking twice", s.LinkAccount(ctx, second), identity.ErrExists)
	wantSame(t, "both", get[[]signin.Account](t)(s.Accounts(ctx, u.ID)), []signin.Account{l, second})
	must(t, s.UnlinkAccount(ctx, l.Issuer, "2"))
	wantErr(t, "unlinking twice", s.UnlinkAccount(ctx, l.Issuer, "2"), identity.ErrNotFound)

	must(t, s.CreateSignIn(ctx, signIn("si-1", u.ID, 1)))
	must(t, s.DeleteUser(ctx, "alice"))
	_, err = s.Account(ctx, l.Issuer, "1")
	wantErr(t, "the link of who was deleted", err, identity.ErrNotFound)
	_, err = s.SignIn(ctx, "si-1")
	wantErr(t, "the sign-in of who was deleted", err, identity.ErrNotFound)
}
