package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/signin"
)

// signInHarness is a server at which people sign in.
type signInHarness struct {
	*harness
	service *signin.Service
}

func newSignInHarness(t *testing.T) *signInHarness {
	t.Helper()
	h := &signInHarness{}
	h.harness = newHarness(t, func(c *Config) {
		withKeeper(c)
		var err error
		h.service, err = signin.New(signin.Config{
			URL: "http://127.0.0.1:1", Realm: c.Realm, Store: c.Identities.(signin.Store), Identities: c.Identities, Audit: c.Audit,
			Sealer: c.Sealer.(signin.Sealer), Logger: c.Logger, Now: c.Now,
			Providers: []signin.Provider{{Name: "corp", Issuer: "https://id.example.com", ClientID: "us"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		c.SignIns, c.Ties = h.service, onlySignIns{h.service}
	})
	return h
}

// onlySignIns are ties of a server without grants.
type onlySignIns struct{ *signin.Service }

func (onlySignIns) Granted(context.Context, string, identity.GrantedRole) (string, error) {
	return "no grants", nil
}

// signIn signs a user in and returns credentials that come from it.
func (h *signInHarness) signIn(name string) (id string, c identity.Credentials) {
	h.t.Helper()
	ctx := context.Background()
	u, err := h.store.User(ctx, name)
	h.must(err)
	in := signin.SignIn{
		ID: signin.NewID(), User: u.ID, Kind: signin.KindCLI, Method: "oidc corp", Created: h.clock(), Used: h.clock(),
		Expires: h.clock().Add(8 * time.Hour), IP: "192.0.2.1", Secret: signin.Hash(signin.NewSecret()),
	}
	h.must(h.store.CreateSignIn(ctx, in))
	c, _, err = h.service.Credentials(ctx, in, 0)
	h.must(err)
	return in.ID, c
}

// works reports whether credentials still do.
func (h *signInHarness) works(c identity.Credentials) bool {
	return h.query(c, "sts", "GetCallerIdentity").status == http.StatusOK
}

const assumeAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}]}`

const trustEverybody = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::111111111111:root"}}]}`

// A sign-in that ends takes with it the credentials and the roles that come from it, at
// once, and nothing else of the person's.
func TestEndSignIn(t *testing.T) {
	h := newSignInHarness(t)
	key := h.user("alice", nil, assumeAll)
	h.role("deploy", trustEverybody)
	one, a := h.signIn("alice")
	_, b := h.signIn("alice")
	role := h.query(a, "sts", "AssumeRole", "RoleArn", "arn:aws:iam::111111111111:role/deploy", "RoleSessionName", "alice").credentials()
	if !h.works(a) || !h.works(b) || !h.works(role) {
		t.Fatal("the credentials do not work at first")
	}
	if got := h.json(role, "Sallyport.EndSignIn", endSignInInput{one}); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if h.works(a) || h.works(role) {
		t.Error("credentials of the sign-in that was ended still work")
	}
	if !h.works(b) || !h.works(key) {
		t.Error("other credentials do not work any more")
	}
	got := h.query(a, "sts", "GetCallerIdentity")
	if got.code() != "ExpiredToken" || !strings.Contains(got.message(), "the sign-in "+one+" was ended: by arn:aws:sts::111111111111:assumed-role/deploy/alice") {
		t.Errorf("got %s: %s", got.code(), got.message())
	}
	ended := 0
	for _, r := range h.audited(audit.EventSignIn) {
		if r.Action == "sallyport:EndSignIn" && r.Details["sign_in"] == one {
			ended++
		}
	}
	if ended != 1 {
		t.Errorf("audit: got %d records of the end, want 1", ended)
	}
}

// Everybody sees and ends what is theirs; what is others' is a matter of policy.
func TestOthersSignIns(t *testing.T) {
	h := newSignInHarness(t)
	h.user("alice", nil)
	bob, admin := h.user("bob", nil), h.user("admin", nil, allowAll)
	id, creds := h.signIn("alice")
	for _, refused := range []answer{
		h.json(bob, "Sallyport.EndSignIn", endSignInInput{id}),
		h.json(bob, "Sallyport.EndSignIn", endSignInInput{"si-0000000000000000"}),
		h.json(bob, "Sallyport.EndSignIns", personInput{"alice"}),
		h.json(bob, "Sallyport.EndSignIns", personInput{"nobody"}),
		h.json(bob, "Sallyport.ListSignIns", listSignInsInput{UserName: "alice"}),
		h.json(bob, "Sallyport.ListSignIns", listSignInsInput{Everyone: true}),
		h.json(bob, "Sallyport.ListAccounts", personInput{"alice"}),
		h.json(bob, "Sallyport.LinkAccount", linkInput{"bob", "corp", "1"}), // not even one's own
		h.json(bob, "Sallyport.LinkAccount", linkInput{"admin", "corp", "1"}),
		h.json(bob, "Sallyport.UnlinkAccount", linkInput{"alice", "corp", "1"}),
	} {
		if refused.code() != "AccessDeniedException" {
			t.Errorf("bob: got %d %s", refused.status, refused.body)
		}
	}
	if !h.works(creds) {
		t.Fatal("bob ended alice's sign-in")
	}
	list := func(c identity.Credentials, in listSignInsInput) string {
		t.Helper()
		var ids []string
		for _, s := range decodeInto[listSignInsOutput](t, h.json(c, "Sallyport.ListSignIns", in)).SignIns {
			ids = append(ids, fmt.Sprint(s.SignInID, " ", s.UserName, " ", s.Current))
		}
		return strings.Join(ids, ", ")
	}
	if got, want := list(creds, listSignInsInput{}), id+" alice true"; got != want {
		t.Errorf("alice's own: got %q, want %q", got, want)
	}
	for _, in := range []listSignInsInput{{UserName: "alice"}, {Everyone: true}} {
		if got, want := list(admin, in), id+" alice false"; got != want {
			t.Errorf("%+v: got %q, want %q", in, got, want)
		}
	}
	if got := list(bob, listSignInsInput{}); got != "" {
		t.Errorf("bob's own: got %q", got)
	}
	if got := decodeInto[endedOutput](t, h.json(admin, "Sallyport.EndSignIns", personInput{"alice"})); got.Ended != 1 {
		t.Errorf("ended %d, want 1", got.Ended)
	}
	if h.works(creds) {
		t.Error("alice's credentials still work")
	}
	if got := list(admin, listSignInsInput{UserName: "alice"}); got != "" {
		t.Errorf("afterwards: got %q", got)
	}
	if got, want := list(admin, listSignInsInput{UserName: "alice", Ended: true}), id+" alice false"; got != want {
		t.Errorf("with those that ended: got %q, want %q", got, want)
	}
}

// Who is enabled again is signed in nowhere.
func TestDisablingEndsSignIns(t *testing.T) {
	h := newSignInHarness(t)
	h.user("alice", nil)
	admin := h.user("admin", nil, allowAll)
	_, creds := h.signIn("alice")
	for _, operation := range []string{"DisableUser", "EnableUser"} {
		if got := h.json(admin, "Sallyport."+operation, userInput{UserName: "alice"}); got.status != 200 {
			t.Fatalf("%s: got %d %s", operation, got.status, got.body)
		}
		if h.works(creds) {
			t.Errorf("after %s: the credentials work", operation)
		}
	}
}

func TestAccounts(t *testing.T) {
	h := newSignInHarness(t)
	h.user("alice", nil)
	admin := h.user("admin", nil, allowAll)
	in := linkInput{"alice", "corp", "248289761001"}
	if got := h.json(admin, "Sallyport.LinkAccount", in); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	for _, wrong := range []linkInput{in, {"admin", "corp", "248289761001"}, {"alice", "nowhere", "1"}, {"nobody", "corp", "1"}} {
		if got := h.json(admin, "Sallyport.LinkAccount", wrong); got.code() != "ValidationException" {
			t.Errorf("%+v: got %d %s", wrong, got.status, got.body)
		}
	}
	got := decodeInto[accountsOutput](t, h.json(admin, "Sallyport.ListAccounts", personInput{"alice"})).Accounts
	want := []listedAccount{{Provider: "corp", Issuer: "https://id.example.com", Subject: "248289761001", By: "arn:aws:iam::111111111111:user/admin"}}
	for i := range got {
		got[i].Linked = want[0].Linked
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("accounts (-want +got)\n%s", diff)
	}
	_, signedIn := h.signIn("alice")
	for i, wantStatus := range []int{200, 400} {
		if got := h.json(admin, "Sallyport.UnlinkAccount", in); got.status != wantStatus {
			t.Errorf("unlinking, time %d: got %d %s", i+1, got.status, got.body)
		}
	}
	if h.works(signedIn) {
		t.Error("a sign-in outlives the account that it came by")
	}
}

func TestListAssumableRoles(t *testing.T) {
	h := newSignInHarness(t)
	alice, bob := h.user("alice", nil, assumeAll), h.user("bob", nil)
	h.role("deploy", trustEverybody)
	h.role("audit", strings.Replace(trustEverybody, "root", "user/bob", 1))
	h.role("nobody", strings.Replace(trustEverybody, "root", "user/carol", 1))
	for name, c := range map[string]struct {
		creds identity.Credentials
		want  string
	}{"alice": {alice, "deploy"}, "bob": {bob, "audit"}} {
		var names []string
		for _, r := range decodeInto[assumableOutput](t, h.json(c.creds, "Sallyport.ListAssumableRoles", struct{}{})).Roles {
			names = append(names, r.RoleName)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	for _, r := range h.audited(audit.EventDecision) {
		if r.Action == "sts:AssumeRole" {
			t.Errorf("audit: got %+v of a question", r)
		}
	}
}

// Without a sign_in block nothing of it works, and credentials that claim to come from one
// do not either.
func TestNoSignIns(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	for _, operation := range []string{"ListSignIns", "EndSignIns", "ListAccounts"} {
		got := h.json(admin, "Sallyport."+operation, struct{}{})
		if got.code() != "ValidationException" || !strings.Contains(got.message(), "sign_in") {
			t.Errorf("%s: got %d %s", operation, got.status, got.body)
		}
	}
	u, err := h.store.User(t.Context(), "admin")
	h.must(err)
	c, err := identity.NewIssuer(h.key).Issue(identity.Claims{
		Kind: identity.KindUser, Name: "admin", ID: u.ID, SignIn: "si-1", IssuedAt: h.clock(), ExpiresAt: h.clock().Add(time.Hour),
	})
	h.must(err)
	if got := h.query(c, "sts", "GetCallerIdentity"); got.code() != "ExpiredToken" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// Who has stolen a key, the token of an old sign-in or the credentials of a role enrols no
// first factor, sets no password and links no chat account of the person's: all that would
// outlast what was stolen.
func TestStolenBesideSignIn(t *testing.T) {
	h := newSignInHarness(t)
	key := h.user("alice", nil, assumeAll)
	h.role("deploy", trustEverybody)
	u, err := h.store.User(t.Context(), "alice")
	h.must(err)
	h.must(h.service.Link(t.Context(), "corp", "1", u.ID, "test"))
	const code = "ABCD-EFGH-IJKL-MNOP"
	h.chatCode("U1", code)
	refused := func(c identity.Credentials, because string) {
		t.Helper()
		h.refused(c, "AddFactor", map[string]string{}, because)
		h.refused(c, "LinkChat", codeInput{code, "U1"}, because)
	}
	refused(key, "because there is an account at a provider, so that the person must sign in first")
	_, in := h.signIn("alice")
	role := h.query(in, "sts", "AssumeRole", "RoleArn", "arn:aws:iam::111111111111:role/deploy", "RoleSessionName", "alice").credentials()
	const mayNot = "is not authorized to perform: sallyport:"
	h.refused(role, "AddFactor", map[string]string{}, mayNot)
	h.refused(role, "RemovePassword", map[string]string{}, mayNot)
	h.refused(role, "ChangePassword", map[string]string{"OldPassword": "x", "NewPassword": "a password of the thief's"}, mayNot)
	h.advance(16 * time.Minute)
	refused(in, "because the sign-in is not new: the person must sign in again first")
	_, in = h.signIn("alice")
	d := h.enrol(in)
	role = h.query(in, "sts", "AssumeRole", "RoleArn", "arn:aws:iam::111111111111:role/deploy", "RoleSessionName", "alice").credentials()
	h.refused(role, "RemoveFactor", map[string]string{"FactorId": d.id}, mayNot)
	refused(in, "because there is a second factor, which must be given first")
	h.chatCode("U1", code)
	strong := h.query(key, "sts", "GetSessionToken", h.mfa(d)...).credentials()
	h.call(strong, "LinkChat", codeInput{code, "U1"}, nil)
}
