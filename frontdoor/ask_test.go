package frontdoor_test

import (
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/internal/readalong"
	"sallyport.dev/sallyporttest"
)

// noPolicy allows nothing that matters here.
const noPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:GetCallerIdentity","Resource":"*"}]}`

// askFlow lets carol and mallory ask for frontend-1, and alice decide.
const askFlow = `
flow "front" {
  ask { users = ["carol", "mallory"] }
  target "nodes" "front" { names = ["frontend-*"] }
  field "duration" { allowed = ["30m", "1h"] }
  stage "team" {
    of { users = ["alice"] }
  }
}
`

// newAskWorld is a world with carol, who may ask, and alice, who decides.
func newAskWorld(t testing.TB) (w *world, carol, mallory ssh.Signer) {
	w = newWorld(t)
	w.person("alice", sallyporttest.Everything)
	carol, mallory = w.person("carol", noPolicy), w.person("mallory", noPolicy)
	actor := grant.Actor{Principal: w.principal("alice"), Channel: "api"}
	if _, err := w.Access().PutFlows(t.Context(), actor, map[string][]byte{"front.sallyport.hcl": []byte(askFlow)}, ""); err != nil {
		t.Fatal(err)
	}
	return w, carol, mallory
}

func (w *world) principal(name string) identity.Principal {
	w.t.Helper()
	u, err := w.Store.User(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return identity.Principal{Kind: identity.KindUser, ARN: "arn:aws:iam::111111111111:user/" + name, UserID: u.ID, Name: name}
}

// requests are those of a person, newest first.
func (w *world) requests(person string) []grant.Request {
	w.t.Helper()
	all, err := w.Access().Recent(w.t.Context(), w.principal(person).UserID, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// approve approves a request as alice.
func (w *world) approve(r grant.Request) {
	w.t.Helper()
	if _, err := w.Access().Decide(w.t.Context(), grant.Actor{Principal: w.principal("alice"), Channel: "cli"}, r.ID, r.Hash, true, ""); err != nil {
		w.t.Fatal(err)
	}
}

// conversation is a session with a terminal.
type conversation struct {
	readalong.Text
	w       *world
	client  *ssh.Client
	session *ssh.Session
	keys    io.WriteCloser
}

// want waits until something is shown behind what was wanted before.
func (c *conversation) want(pattern string) {
	c.w.t.Helper()
	if err := c.Await(regexp.MustCompile(pattern), 20*time.Second); err != nil {
		c.w.t.Fatal(err)
	}
}

func (c *conversation) typed(text string) { io.WriteString(c.keys, text) }

// talk opens a shell with a terminal.
func (w *world) talk(client *ssh.Client) *conversation {
	w.t.Helper()
	s, err := client.NewSession()
	if err != nil {
		w.t.Fatal(err)
	}
	c := &conversation{w: w, client: client, session: s}
	s.Stdout, s.Stderr = c, c
	if c.keys, err = s.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 30, 100, nil); err != nil {
		w.t.Fatal(err)
	}
	if err := s.Shell(); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) client(user string, key ssh.Signer) *ssh.Client {
	w.t.Helper()
	c, err := w.dial(user, ssh.PublicKeys(key))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// asked answers the questions, up to the waiting.
func (c *conversation) asked(reason string) {
	c.w.t.Helper()
	c.want(`Ask\? \[y/N\]`)
	c.typed("y\r")
	c.want(`1 to 2`)
	c.typed("1\r")
	c.want(`[Rr]eason.*:`)
	c.typed(reason + "\r")
	c.want(`waiting for alice`)
}

func TestAskingBecomesTheShell(t *testing.T) {
	w, carol, _ := newAskWorld(t)
	c := w.talk(w.client("frontend-1", carol))
	c.asked("the build")
	r := w.requests("carol")[0]
	if r.Frozen.Channel != "ssh" || r.Frozen.Person.Name != "carol" || len(r.Frozen.Nodes) != 1 || r.Frozen.Nodes[0].ID != frontend {
		t.Errorf("got %+v, want carol's by ssh for the node alone", r.Frozen)
	}
	c.typed("not for the shell") // typed while waiting: let go
	w.approve(r)
	c.want(`is approved and holds until`)
	c.typed("echo in-$((6*7))\r")
	c.want(`in-42`)
	if strings.Contains(c.String(), "not for the shell") {
		t.Errorf("got %q, want nothing of what was typed while waiting", c.String())
	}
	c.typed("exit\r")
	if err := waitSession(c.session); err != nil {
		t.Error(err)
	}
}

// The grant is the person's who proved their key, and for what they asked: nobody else's
// session profits, nor their own on another node.
func TestAskedForByAnother(t *testing.T) {
	w, carol, mallory := newAskWorld(t)
	c := w.talk(w.client("carol@frontend-1", carol))
	c.asked("the build")
	w.approve(w.requests("carol")[0])
	c.want(`is approved`)
	if _, err := w.dial("carol@frontend-1", ssh.PublicKeys(mallory)); err == nil {
		t.Error("mallory's key is taken for carol's")
	}
	m := w.talk(w.client("frontend-1", mallory))
	m.want(`mallory is not authorized`)
	m.want(`Ask\? \[y/N\]`)
	m.typed("n\r")
	m.want(`nothing was asked for`)
	b := w.talk(w.client("backend-1", carol))
	b.want(`carol is not authorized to perform: ssm:StartSession on node backend-1`)
	if err := waitSession(b.session); err == nil || strings.Contains(b.String(), "You may ask") {
		t.Errorf("got %v, %q; want the node refused without a question", err, b.String())
	}
}

// Keys that act on terminals do not get into a reason.
func TestHostileReason(t *testing.T) {
	w, carol, _ := newAskWorld(t)
	c := w.talk(w.client("frontend-1", carol))
	c.want(`Ask\? \[y/N\]`)
	c.typed("y\r")
	c.want(`1 to 2`)
	c.typed("1\r")
	c.want(`Reason:`)
	c.typed("look\u202e at it\r")
	c.want(`control character U\+202E`)
	c.typed("look\x1b]0;own\x07 at it \x9b2J\r")
	c.want(`waiting for alice`)
	if got := w.requests("carol")[0].Frozen.Reason; strings.ContainsAny(got, "\x1b\x07\u009b\u202e") {
		t.Errorf("got %q", got)
	}
	if strings.Contains(c.String(), "\x1b]0") {
		t.Errorf("got %q, want nothing echoed that acts on terminals", c.String())
	}
}

// Nobody can keep others waiting by waiting many times.
func TestAskingIsBounded(t *testing.T) {
	w, carol, _ := newAskWorld(t)
	client := w.client("frontend-1", carol)
	var waiting []*conversation
	for range 8 {
		c := w.talk(client)
		c.want(`Ask\? \[y/N\]`)
		waiting = append(waiting, c)
	}
	ninth := w.talk(client)
	ninth.want(`Too many of your sessions wait for access already`)
	if err := waitSession(ninth.session); err == nil {
		t.Error("the ninth session goes on")
	}
	waiting[0].typed("n\r")
	waiting[0].want(`nothing was asked for`)
	if err := waitSession(waiting[0].session); err == nil {
		t.Error("it goes on")
	}
	w.talk(client).want(`Ask\? \[y/N\]`)
}

// Who is disabled while they wait gets nothing any more, whatever is decided.
func TestDisabledWhileWaiting(t *testing.T) {
	w, carol, _ := newAskWorld(t)
	c := w.talk(w.client("frontend-1", carol))
	c.asked("the build")
	r := w.requests("carol")[0]
	if err := w.Store.UpdateUser(t.Context(), "carol", func(u *identity.User) error { u.Disabled = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := waitSession(c.session); err == nil {
		t.Error("the session goes on")
	}
	w.Eventually(func() bool { return w.requests("carol")[0].State != grant.Pending || r.State == "" }, "the request ends")
	if len(w.sessions()) > 0 {
		t.Error("a session was started")
	}
}

// A connection that breaks takes back what was asked for in it; a request that was there
// before stays.
func TestHangingUp(t *testing.T) {
	w, carol, _ := newAskWorld(t)
	client := w.client("frontend-1", carol)
	w.talk(client).asked("the build")
	client.Close()
	w.Eventually(func() bool { return w.requests("carol")[0].State == grant.Cancelled }, "the request is taken back")

	client = w.client("frontend-1", carol)
	c := w.talk(client)
	c.asked("the build")
	c.typed("\x03")
	c.want(`goes on waiting`)
	client.Close()
	client = w.client("frontend-1", carol)
	w.talk(client).want(`waiting for alice`)
	client.Close()
	time.Sleep(200 * time.Millisecond) // long enough for it to be taken back wrongly
	if got := w.requests("carol")[0].State; got != grant.Pending {
		t.Errorf("got %s, want it pending", got)
	}
}

// Without a terminal nobody is asked, and nothing waits.
func TestNobodyIsAskedWithoutTerminal(t *testing.T) {
	w, carol, _ := newAskWorld(t)
	client := w.client("frontend-1", carol)
	for name, requests := range map[string][]request{
		"command":  {{"exec", text("id")}},
		"shell":    {{"shell", nil}},
		"transfer": {{"subsystem", text("sftp")}},
	} {
		said, status := ask(t, client, requests...)
		if status != 254 || !strings.Contains(said, "you may ask for it: sallyport request front --node "+frontend) {
			t.Errorf("%s: got status %d, %q", name, status, said)
		}
	}
	if got := len(w.requests("carol")); got != 0 {
		t.Errorf("got %d requests, want none", got)
	}
}
