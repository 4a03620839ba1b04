package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/node"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

const (
	firstGrant  = "oi-0123456789ab"
	secondGrant = "oi-ba9876543210"
)

var (
	frontEnd = allow("ssm:StartSession", "*", `{"StringEquals":{"ssm:resourceTag/Department":"FrontEnd"}}`)
	mayRoles = allow("sts:AssumeRole", "arn:aws:iam::111111111111:role/*", "")
)

// enforced is a system whose sessions are decided on again.
type enforced struct {
	*restricted
	held *holdings
}

func newEnforced(t *testing.T) *enforced {
	e := &enforced{held: newHoldings(t)}
	e.restricted = newRestricted(t, e.held.use)
	return e
}

func (e *enforced) person(name string) identity.User {
	e.t.Helper()
	u, err := e.store.User(context.Background(), name)
	e.must(err)
	return u
}

// watched is a session with its client.
type watched struct {
	id     string
	client *websocket.Conn
}

func (e *enforced) open(c identity.Credentials) watched {
	e.t.Helper()
	got := e.startSession(c, `{"Target":"NODE"}`)
	if got.status != 200 {
		e.t.Fatalf("starting: %d %s", got.status, got.body)
	}
	started := decodeInto[sessionOutput](e.t, got)
	path := "/v1/data-channel/" + started.SessionID + "?role=publish_subscribe"
	return watched{started.SessionID, e.relayed.open(identity.Credentials{}, path, wire.Opening{TokenValue: started.TokenValue})}
}

// wantEnd waits for the end of a session, which its client is told of within five
// seconds. The agent never says a word.
func (e *enforced) wantEnd(w watched, text string) {
	e.t.Helper()
	began := time.Now()
	m := e.read(w.client, wire.TypeChannelClosed)
	if took := time.Since(began); took > 5*time.Second {
		e.t.Errorf("the end took %v", took)
	}
	if !strings.Contains(string(m.Payload), text) {
		e.t.Errorf("the person was told %s, want %q", m.Payload, text)
	}
	w.client.Abort()
	var row session.Session
	for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(10 * time.Millisecond) {
		if row, _ = e.store.Session(context.Background(), w.id); !row.State.Active() {
			break
		}
	}
	if row.State.Active() || !strings.Contains(row.EndReason, session.ReasonAccess) {
		e.t.Errorf("the row says %s: %q", row.State, row.EndReason)
	}
}

// wantAlive looks twice, after more than a round, that a session goes on.
func (e *enforced) wantAlive(w watched) {
	e.t.Helper()
	time.Sleep(2 * keepEvery)
	if row, err := e.store.Session(context.Background(), w.id); err != nil || !row.State.Active() || row.State == session.StateTerminating {
		e.t.Errorf("the session is %s: %q, %v", row.State, row.EndReason, err)
	}
}

// TestSessionEndsWithItsPermission takes permission away in every way there is, most of
// them past the API, as another member would.
func TestSessionEndsWithItsPermission(t *testing.T) {
	ctx := context.Background()
	for _, test := range []struct {
		name   string
		setUp  func(e *enforced) identity.Credentials
		take   func(e *enforced)
		expect string
	}{
		{"a grant is revoked", granted, func(e *enforced) { e.held.revoke(firstGrant) },
			"Your access ended: grant oi-0123456789ab was revoked by bob."},
		{"for a reason that would act on a terminal", granted, func(e *enforced) {
			e.held.change(firstGrant, func(r *grant.Request) { r.State, r.EndedBy, r.Because = grant.Revoked, "user/bob", "\x1b[2Jbad" })
		}, "was revoked by bob: \ufffd[2Jbad."},
		{"a grant is over", granted, func(e *enforced) { e.advance(2 * time.Hour) },
			"Your access ended: grant oi-0123456789ab is over, its time was up."},
		{"a grant is given back", granted, func(e *enforced) {
			e.held.change(firstGrant, func(r *grant.Request) { r.State, r.EndedBy = grant.Released, "arn:aws:iam::111111111111:user/carol" })
		}, "was given back by carol."},
		{"a policy is deleted", standing, func(e *enforced) {
			e.must(e.store.DeleteInlinePolicy(ctx, identity.Owner{Kind: identity.OwnerUser, Name: "carol"}, "p0"))
		}, "Your access ended: a policy change took it away: User: arn:aws:iam::111111111111:user/carol is not authorized to perform: ssm:StartSession on resource: arn:aws:ec2:us-east-1:111111111111:instance/" + channelNode + " because no identity-based policy allows the ssm:StartSession action."},
		{"a policy denies", granted, func(e *enforced) {
			e.inline(identity.Owner{Kind: identity.OwnerUser, Name: "carol"}, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"ssm:*","Resource":"*"}]}`)
		}, "with an explicit deny in an identity-based policy"},
		{"a boundary is set", standing, func(e *enforced) {
			e.must(e.store.UpdateUser(ctx, "carol", func(u *identity.User) error { u.Boundary = "arn:aws:iam::111111111111:policy/none"; return nil }))
		}, "because no permissions boundary allows the ssm:StartSession action"},
		{"a tag of the node changes", standing, func(e *enforced) {
			e.must(e.store.UpdateNode(ctx, channelNode, func(n *node.Node) error { n.Tags = identity.Tags{"Department": "BackEnd"}; return nil }))
		}, "a policy change took it away"},
		{"the group is left", inGroup, func(e *enforced) { e.must(e.store.RemoveMember(ctx, "FrontEnd", "carol")) }, "a policy change took it away"},
		{"the person is disabled", standing, func(e *enforced) {
			e.must(e.store.UpdateUser(ctx, "carol", func(u *identity.User) error { u.Disabled = true; return nil }))
		}, "Your access ended: the user carol was disabled."},
		{"who assumed the role is disabled", inRole, func(e *enforced) {
			e.must(e.store.UpdateUser(ctx, "carol", func(u *identity.User) error { u.Disabled = true; return nil }))
		}, "Your access ended: the user carol was disabled."},
		{"the role is deleted", inRole, func(e *enforced) {
			e.must(e.store.DeleteInlinePolicy(ctx, identity.Owner{Kind: identity.OwnerRole, Name: "Ops"}, "p0"))
			e.must(e.store.DeleteRole(ctx, "Ops"))
		}, "Your access ended: "},
		{"the grant of the role is revoked", inGrantedRole, func(e *enforced) { e.held.revoke(firstGrant) },
			"Your access ended: grant oi-0123456789ab was revoked by bob."},
		{"the grant of a role before is revoked", inChainedRole, func(e *enforced) { e.held.revoke(firstGrant) },
			"Your access ended: grant oi-0123456789ab was revoked by bob."},
		{"the sign-in is ended", signedIn, func(e *enforced) {
			e.held.mu.Lock()
			defer e.held.mu.Unlock()
			e.held.signedOut = true
		}, "Your access ended: the sign-in was ended by bob."},
		{"the time of a policy is up", timely, func(e *enforced) { e.advance(2 * time.Hour) }, "a policy change took it away"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := newEnforced(t)
			w := e.open(test.setUp(e))
			e.wantAlive(w)
			before := len(e.audited("decision"))
			test.take(e)
			e.wantEnd(w, test.expect)
			if after := len(e.audited("decision")); after != before {
				t.Errorf("deciding again left %d audit records", after-before)
			}
		})
	}
}

// Ways in which carol may start sessions.

func standing(e *enforced) identity.Credentials { return e.user("carol", nil, frontEnd) }

func granted(e *enforced) identity.Credentials {
	c := e.user("carol", nil)
	e.held.give(firstGrant, e.person("carol"), time.Hour, frontEnd)
	return c
}

func inGroup(e *enforced) identity.Credentials {
	c := e.user("carol", nil)
	ctx := context.Background()
	e.must(e.store.CreateGroup(ctx, identity.Group{Name: "FrontEnd", ID: identity.NewGroupID(), Path: "/", Created: e.clock()}))
	e.inline(identity.Owner{Kind: identity.OwnerGroup, Name: "FrontEnd"}, frontEnd)
	e.must(e.store.AddMember(ctx, "FrontEnd", "carol"))
	return c
}

func inRole(e *enforced) identity.Credentials {
	c := e.user("carol", nil, mayRoles)
	e.role("Ops", trustAccount, frontEnd)
	return e.assumed(c, "Ops", "carol")
}

// inGrantedRole has a grant to thank for the role, and the role for the session.
func inGrantedRole(e *enforced) identity.Credentials {
	c := e.user("carol", nil)
	e.role("Ops", trustAccount, frontEnd, mayRoles)
	e.held.give(firstGrant, e.person("carol"), time.Hour, mayRoles, flow.Target{Name: "ops", Kind: flow.TargetRole, Role: "Ops"})
	return e.assumed(c, "Ops", "carol")
}

func inChainedRole(e *enforced) identity.Credentials {
	e.role("Further", trustAccount, frontEnd)
	return e.assumed(inGrantedRole(e), "Further", "carol")
}

func signedIn(e *enforced) identity.Credentials {
	e.user("carol", nil, frontEnd)
	c, err := e.server.issuer.Issue(identity.Claims{
		Kind: identity.KindUser, Name: "carol", ID: e.person("carol").ID, SignIn: "si-1",
		IssuedAt: e.clock(), ExpiresAt: e.clock().Add(time.Hour),
	})
	e.must(err)
	return c
}

func timely(e *enforced) identity.Credentials {
	until := e.clock().Add(time.Hour).UTC().Format(time.RFC3339)
	return e.user("carol", nil, allow("ssm:StartSession", "*", `{"DateLessThan":{"aws:CurrentTime":"`+until+`"}}`))
}

// What is still allowed goes on: by another grant, by standing permission, after the
// credentials have expired, and beyond changes that have nothing to do with it.
func TestSessionGoesOn(t *testing.T) {
	ctx := context.Background()
	for _, test := range []struct {
		name   string
		setUp  func(e *enforced) identity.Credentials
		change func(e *enforced)
	}{
		{"another grant still allows it", func(e *enforced) identity.Credentials {
			c := granted(e)
			e.held.give(secondGrant, e.person("carol"), time.Hour, frontEnd)
			return c
		}, func(e *enforced) { e.held.revoke(firstGrant) }},
		{"standing permission came meanwhile", granted, func(e *enforced) {
			e.inline(identity.Owner{Kind: identity.OwnerUser, Name: "carol"}, frontEnd)
			e.held.revoke(firstGrant)
		}},
		{"standing permission was there", func(e *enforced) identity.Credentials {
			c := standing(e)
			e.held.give(firstGrant, e.person("carol"), time.Hour, frontEnd)
			return c
		}, func(e *enforced) { e.held.revoke(firstGrant) }},
		{"another's grant is revoked", func(e *enforced) identity.Credentials {
			e.user("dave", nil)
			e.held.give(secondGrant, e.person("dave"), time.Hour, frontEnd)
			return granted(e)
		}, func(e *enforced) { e.held.revoke(secondGrant) }},
		{"the credentials have expired", inRole, func(e *enforced) { e.advance(3 * time.Hour) }},
		{"another grant gives the role", inGrantedRole, func(e *enforced) {
			e.held.give(secondGrant, e.person("carol"), time.Hour, mayRoles, flow.Target{Name: "ops", Kind: flow.TargetRole, Role: "Ops"})
			e.held.revoke(firstGrant)
		}},
		{"another node changes", standing, func(e *enforced) {
			e.must(e.store.UpdateNode(ctx, otherNode, func(n *node.Node) error { n.Tags = nil; return nil }))
		}},
		{"the second factor ages", func(e *enforced) identity.Credentials {
			e.user("carol", nil, allow("ssm:StartSession", "*", `{"NumericLessThan":{"aws:MultiFactorAuthAge":"600"}}`))
			c, err := e.server.issuer.Issue(identity.Claims{
				Kind: identity.KindUser, Name: "carol", ID: e.person("carol").ID, MFA: true, MFAAt: e.clock(),
				IssuedAt: e.clock(), ExpiresAt: e.clock().Add(time.Hour),
			})
			e.must(err)
			return c
		}, func(e *enforced) { e.advance(20 * time.Minute); e.user("dave", nil) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := newEnforced(t)
			w := e.open(test.setUp(e))
			e.wantAlive(w)
			test.change(e)
			e.wantAlive(w)
		})
	}
}

// A session whose grant ends while it starts is not there afterwards, however it falls:
// the one who starts it looks again, and so does its home.
func TestGrantEndsWhileSessionStarts(t *testing.T) {
	e := newEnforced(t)
	c := granted(e)
	w := e.open(c)
	row, err := e.store.Session(context.Background(), w.id)
	e.must(err)
	e.held.revoke(firstGrant)
	call := &Call{Server: e.server, Principal: e.harness.principal(c)}
	if err := call.checkStillAllowed(context.Background(), e.gateway, row); err == nil || !strings.Contains(err.Error(), "was revoked by bob") {
		t.Errorf("got %v, want that it was revoked", err)
	}
	e.wantEnd(w, "was revoked by bob")
}

// faked is what a keeper does to sessions that are none.
type faked struct {
	live      []session.Session
	deadlines map[string]session.Deadline
	ended     map[string]*session.Cause
	told      []string
	asked     []string
	keeper    session.Keeper
}

func (f *faked) Live() []session.Session                   { return f.live }
func (f *faked) Opened() int64                             { return int64(len(f.live)) }
func (f *faked) SetDeadline(id string, d session.Deadline) { f.deadlines[id] = d }
func (f *faked) Tell(_, text string)                       { f.told = append(f.told, text) }
func (f *faked) Asked(_, request string)                   { f.asked = append(f.asked, request) }
func (f *faked) Keep(k session.Keeper)                     { f.keeper = k }
func (f *faked) Terminate(_ context.Context, id string, cause *session.Cause) error {
	f.ended[id] = cause
	return nil
}

// kept is a keeper that looks when it is told to, at one session of carol's.
func (e *enforced) keeping(c identity.Credentials) (*keeper, *faked, string) {
	e.t.Helper()
	w := e.open(c)
	row, err := e.store.Session(context.Background(), w.id)
	e.must(err)
	f := &faked{live: []session.Session{row}, deadlines: map[string]session.Deadline{}, ended: map[string]*session.Cause{}}
	k := &keeper{server: e.server, sessions: f, patience: blindFor, wake: make(chan struct{}, 1), kept: map[string]*kept{}, commands: map[string]*kept{}, asked: map[string]string{}}
	return k, f, w.id
}

func TestDeadlines(t *testing.T) {
	e := newEnforced(t)
	c := granted(e)
	began := e.clock()
	e.held.give(secondGrant, e.person("carol"), 3*time.Hour, frontEnd)
	e.held.give("oi-000000000000", e.person("carol"), 9*time.Hour, allow("ssm:StartSession", "*", `{"StringEquals":{"ssm:resourceTag/Department":"BackEnd"}}`))
	k, f, id := e.keeping(c)
	want := func(what, grant string, after, whole time.Duration) {
		t.Helper()
		e.must(k.look(t.Context()))
		got := f.deadlines[id]
		if got.Grant != grant || !got.At.Equal(began.Add(after)) || got.Whole != whole {
			t.Errorf("%s: got the deadline %+v, want %v after the start, of %v, with %s", what, got, after, whole, grant)
		}
	}
	want("of two that allow the later one", secondGrant, 3*time.Hour, 3*time.Hour)
	e.held.change(secondGrant, func(r *grant.Request) { r.EndsAt = r.EndsAt.Add(time.Hour) })
	want("extended", secondGrant, 4*time.Hour, 4*time.Hour)
	e.held.revoke(secondGrant)
	want("the first", firstGrant, time.Hour, time.Hour)
	e.inline(identity.Owner{Kind: identity.OwnerUser, Name: "carol"}, frontEnd)
	e.must(k.look(t.Context()))
	if got := f.deadlines[id]; !got.At.IsZero() {
		t.Errorf("with standing permission: got the deadline %+v", got)
	}
	e.must(e.store.DeleteInlinePolicy(t.Context(), identity.Owner{Kind: identity.OwnerUser, Name: "carol"}, "p0"))
	want("without it again", firstGrant, time.Hour, time.Hour)
	e.advance(59 * time.Minute)
	e.must(k.look(t.Context()))
	if f.ended[id] != nil {
		t.Errorf("ended early: %v", f.ended[id])
	}
	e.advance(time.Minute)
	e.must(k.look(t.Context()))
	if cause := f.ended[id]; cause == nil || cause.Grant != firstGrant {
		t.Errorf("got the cause %v at the end", cause)
	}
}

// The session of a role has the deadline of the grant that gives the role.
func TestDeadlineOfRole(t *testing.T) {
	e := newEnforced(t)
	began := e.clock()
	k, f, id := e.keeping(inGrantedRole(e))
	e.must(k.look(t.Context()))
	if got := f.deadlines[id]; got.Grant != firstGrant || !got.At.Equal(began.Add(time.Hour)) {
		t.Errorf("got the deadline %+v", got)
	}
}

// The grant that is named at the end is the one that gave the role last, not the one that
// the role was assumed with.
func TestCauseOfRole(t *testing.T) {
	e := newEnforced(t)
	k, f, id := e.keeping(inGrantedRole(e))
	e.held.give(secondGrant, e.person("carol"), 2*time.Hour, mayRoles, flow.Target{Name: "ops", Kind: flow.TargetRole, Role: "Ops"})
	e.held.change(firstGrant, func(r *grant.Request) { r.State, r.EndedAt, r.EndedBy = grant.Released, e.clock(), "user/carol" })
	e.must(k.look(t.Context()))
	if cause := f.ended[id]; cause != nil {
		t.Fatalf("got the cause %v while another grant gives the role", cause)
	}
	e.advance(2 * time.Hour)
	e.must(k.look(t.Context()))
	if cause := f.ended[id]; cause == nil || cause.Grant != secondGrant {
		t.Errorf("got the cause %v, want the end of %s", cause, secondGrant)
	}
}

// While nothing can be read sessions go on for a while, and then end: nobody could take
// them away any more.
func TestBlindKeeper(t *testing.T) {
	e := newEnforced(t)
	k, f, id := e.keeping(granted(e))
	e.must(k.look(t.Context()))
	e.held.fail(errors.New("away"))
	for _, step := range []time.Duration{0, time.Second, blindFor - 2*time.Second} {
		e.advance(step)
		if err := k.look(t.Context()); err == nil {
			t.Error("got no error")
		}
		if f.ended[id] != nil {
			t.Fatalf("ended after %v: %v", step, f.ended[id])
		}
	}
	e.held.fail(nil)
	e.must(k.look(t.Context())) // back: the time counts anew
	e.held.fail(errors.New("away"))
	_ = k.look(t.Context())
	e.advance(blindFor - time.Second)
	_ = k.look(t.Context())
	if f.ended[id] != nil {
		t.Fatalf("ended early: %v", f.ended[id])
	}
	e.advance(time.Second)
	_ = k.look(t.Context())
	if cause := f.ended[id]; cause == nil || !strings.Contains(cause.Terminal, "for 2m0s the server could not read whether you still have it") {
		t.Errorf("got the cause %v", cause)
	}
}

// What a session was allowed on and cannot be read any more allows nothing.
func TestUnreadableAuthority(t *testing.T) {
	e := newEnforced(t)
	k, f, id := e.keeping(granted(e))
	f.live[0].Authority = `{"principal":7}`
	e.must(k.look(t.Context()))
	if f.ended[id] == nil {
		t.Error("the session goes on")
	}
}

func TestMoreTime(t *testing.T) {
	const asked = "oi-aaaaaaaaaaaa"
	for _, test := range []struct {
		name   string
		extend func(e *enforced, r *grant.Request) (grant.Request, error)
		then   func(e *enforced)
		text   string
		again  bool
		later  string // told by the next look
	}{
		{name: "nobody is asked", extend: func(_ *enforced, r *grant.Request) (grant.Request, error) {
			r.EndsAt = r.EndsAt.Add(time.Hour)
			r.Extensions = append(r.Extensions, grant.Extension{Until: r.EndsAt})
			return *r, nil
		}},
		{name: "people are asked, who deny", extend: func(e *enforced, r *grant.Request) (grant.Request, error) {
			e.held.rows = append(e.held.rows, &holding{grant.Request{ID: asked, State: grant.Pending}, nil})
			r.Extensions = append(r.Extensions, grant.Extension{Request: asked})
			return *r, nil
		}, text: "Asked bob, alice for more time: " + asked + ".", then: func(e *enforced) {
			e.held.change(asked, func(r *grant.Request) {
				r.State = grant.Denied
				r.Decisions = []grant.Decision{{By: flow.Person{Name: "bob"}, Comment: "go home\x1b[1m"}}
			})
		}, later: "More time was denied by bob: go home\ufffd[1m (" + asked + ")."},
		{name: "it is refused", extend: func(*enforced, *grant.Request) (grant.Request, error) {
			return grant.Request{}, &grant.RefusedError{Because: "because there were 2 extensions"}
		}, text: "More time for grant " + firstGrant + " was refused because there were 2 extensions."},
		{name: "the store is away", extend: func(*enforced, *grant.Request) (grant.Request, error) {
			return grant.Request{}, errors.New("away")
		}, text: "It cannot be asked for more time just now. Press Ctrl-] to try again.", again: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := newEnforced(t)
			k, f, id := e.keeping(granted(e))
			e.held.extend = func(r *grant.Request) (grant.Request, error) { return test.extend(e, r) }
			e.must(k.look(t.Context()))
			before := f.deadlines[id]
			text, again := k.MoreTime(t.Context(), f.live[0], before)
			if text != test.text || again != test.again {
				t.Errorf("got %q, again %v, want %q, %v", text, again, test.text, test.again)
			}
			if test.then != nil {
				test.then(e)
			}
			e.must(k.look(t.Context()))
			if told := strings.Join(f.told, "\n"); told != test.later {
				t.Errorf("told %q, want %q", told, test.later)
			}
			if test.then != nil && !slices.Equal(f.asked, []string{asked, ""}) {
				t.Errorf("the session knows of the requests %q, want one that waits, then none", f.asked)
			}
			if test.text == "" && !f.deadlines[id].At.After(before.At) {
				t.Errorf("the deadline is %v, want one after %v", f.deadlines[id].At, before.At)
			}
		})
	}
}

// Credentials that a grant let somebody have work as long as it holds, and with a
// standing right do not depend on it.
func TestAssumeRoleThanksToGrant(t *testing.T) {
	e := newEnforced(t)
	const trustCarol = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:user/carol"},"Action":"sts:AssumeRole"}]}`
	e.role("Trusting", trustCarol, frontEnd)
	viaGrant := inChainedRole(e)
	carol := e.harness.principal(viaGrant)
	if got, want := fmt.Sprint(carol.Granted), "[{Ops [oi-0123456789ab]}]"; got != want {
		t.Errorf("the credentials come from %s, want %s", got, want)
	}
	key, secret := identity.NewAccessKey(e.key, "carol", e.clock())
	e.must(e.store.CreateAccessKey(t.Context(), key, 2))
	standing := e.assumed(identity.Credentials{AccessKeyID: key.ID, SecretAccessKey: secret}, "Trusting", "carol")
	if got := e.harness.principal(standing).Granted; got != nil {
		t.Errorf("a role that trusts its caller depends on %v", got)
	}
	e.held.revoke(firstGrant)
	if got := e.query(viaGrant, "sts", "GetCallerIdentity"); got.code() != "ExpiredToken" || !strings.Contains(got.message(), "the grant of the role Ops has ended") {
		t.Errorf("after the grant: got %d %s", got.status, got.body)
	}
	if got := e.query(standing, "sts", "GetCallerIdentity"); got.status != 200 {
		t.Errorf("without a grant: got %d %s", got.status, got.body)
	}
}

// A grant's login is that of the sessions that it alone allows, and no other is.
func TestLoginOfGrant(t *testing.T) {
	e := newEnforced(t)
	c := e.user("carol", identity.Tags{runAsTag: "carol"})
	text := `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEqualsIfExists":{"sallyport:RunAsUser":"deploy"}}},
		{"Effect":"Allow","Action":"sallyport:RunAs","Resource":"*","Condition":{"StringEquals":{"sallyport:RunAsUser":"deploy"}}}]}`
	e.held.give(firstGrant, e.person("carol"), time.Hour, text, flow.Target{
		Name: "deploying", Kind: flow.TargetNodes, Nodes: &flow.Nodes{Tags: map[string][]string{"Department": {"FrontEnd"}}, Login: "deploy"},
	})
	for body, want := range map[string]string{
		`{"Target":"NODE"}`:                  "deploy",
		`{"Target":"NODE","RunAs":"deploy"}`: "deploy",
		`{"Target":"NODE","RunAs":"root"}`:   "AccessDeniedException",
		`{"Target":"NODE","RunAs":"carol"}`:  "AccessDeniedException",
		`{"Target":"OTHER"}`:                 "AccessDeniedException", // not of the target, so not its login
	} {
		got := e.startSession(c, body)
		if got.status != 200 {
			if got.code() != want {
				t.Errorf("%s: got %d %s, want %s", body, got.status, got.body, want)
			}
			continue
		}
		if told := e.told(); told.RunAsUser != want {
			t.Errorf("%s: the session is %q, want %q", body, told.RunAsUser, want)
		}
	}
	e.inline(identity.Owner{Kind: identity.OwnerUser, Name: "carol"}, frontEnd)
	if got := e.startSession(c, `{"Target":"NODE"}`); got.status != 200 {
		t.Fatalf("with standing permission: %s", got.body)
	}
	if told := e.told(); told.RunAsUser != "" {
		t.Errorf("with standing permission the session is %q, want the node's default", told.RunAsUser)
	}
}

// A login that is not a person's own any more ends their session, too.
func TestLoginTagTakenAway(t *testing.T) {
	e := newEnforced(t)
	c := e.user("carol", identity.Tags{runAsTag: "deploy"}, frontEnd)
	got := e.startSession(c, `{"Target":"NODE","RunAs":"deploy"}`)
	started := decodeInto[sessionOutput](t, got)
	client := e.relayed.open(identity.Credentials{}, "/v1/data-channel/"+started.SessionID+"?role=publish_subscribe", wire.Opening{TokenValue: started.TokenValue})
	e.must(e.store.UpdateUser(t.Context(), "carol", func(u *identity.User) error { u.Tags = nil; return nil }))
	e.wantEnd(watched{started.SessionID, client}, "is not authorized to perform: sallyport:RunAs")
}

// BenchmarkReauthorize decides again about 10,000 sessions of 500 people on 100 nodes, a
// fifth of whom have them by grants: what any change costs a member that has as many.
// Beside the time of a whole round there is that of a look that finds nothing changed.
func BenchmarkReauthorize(b *testing.B) {
	const people, nodes, sessions = 500, 100, 10_000
	held := newHoldings(b)
	h := newHarness(b, held.use)
	ctx := context.Background()
	for i := range nodes {
		h.node(fmt.Sprintf("i-%017x", i), identity.Tags{"Department": "FrontEnd"})
	}
	h.must(h.store.CreateGroup(ctx, identity.Group{Name: "FrontEnd", ID: identity.NewGroupID(), Path: "/", Created: h.clock()}))
	h.inline(identity.Owner{Kind: identity.OwnerGroup, Name: "FrontEnd"}, frontEnd)
	users := make([]identity.User, people)
	for i := range users {
		users[i] = identity.User{Name: fmt.Sprint("user", i), ID: identity.NewUserID(), Path: "/", Created: h.clock()}
		h.must(h.store.CreateUser(ctx, users[i]))
		if i%5 == 0 {
			held.give(fmt.Sprintf("oi-%012x", i), users[i], time.Hour, frontEnd)
		} else {
			h.must(h.store.AddMember(ctx, "FrontEnd", users[i].Name))
		}
	}
	f := &faked{deadlines: map[string]session.Deadline{}, ended: map[string]*session.Cause{}}
	for i := range sessions {
		a := authority{
			Principal: identity.Claims{Kind: identity.KindUser, ID: users[i%people].ID, Name: users[i%people].Name},
			LoginKey:  "-", At: h.clock(), SourceIP: "192.0.2.1",
		}
		f.live = append(f.live, session.Session{ID: fmt.Sprint("s-", i), NodeID: fmt.Sprintf("i-%017x", i%nodes), Authority: a.encode()})
	}
	k := &keeper{server: h.server, sessions: f, patience: blindFor, kept: map[string]*kept{}, commands: map[string]*kept{}, asked: map[string]string{}}
	h.must(k.look(ctx))
	b.Run("changed", func(b *testing.B) {
		for range b.N {
			k.seen.identities = -1
			h.must(k.look(ctx))
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		for range b.N {
			h.must(k.look(ctx))
		}
	})
	if len(f.ended) != 0 || len(f.deadlines) != sessions {
		b.Errorf("%d sessions ended, %d were decided on", len(f.ended), len(f.deadlines))
	}
}
