package server

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/audit"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/internal/seal"
	"sallyport.dev/recording"
	"sallyport.dev/session"
)

// recorded is a server whose sessions are recorded into a folder.
type recorded struct {
	*relayed
	dir string
	mu  sync.Mutex
	all map[string]*recording.Writer // by session
}

func newRecorded(t *testing.T, changes ...func(*Config)) *recorded {
	t.Helper()
	r := &recorded{dir: t.TempDir(), all: map[string]*recording.Writer{}}
	r.relayed = &relayed{routing: &alone{
		handlers: map[string]func(context.Context, []byte) ([]byte, error){}, members: []session.Member{{ID: "m1"}},
	}}
	r.harness = newHarness(t, append(changes, func(c *Config) {
		var err error
		r.gateway, err = session.New(t.Context(), session.Config{
			Store: c.Sessions, Nodes: c.Nodes, Cluster: r.routing, Key: c.Sealer.(*seal.Key), Audit: c.Audit,
			Logger: slog.New(slog.DiscardHandler), Record: r.record, CloseHold: 10 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Gateway, c.Recordings = r.gateway, folder(r.dir)
	})...)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		_ = r.gateway.Close(ctx) // nobody is there any more to end sessions with
	})
	r.node(channelNode, identity.Tags{"Team": "payments"})
	r.connect(channelNode)
	return r
}

func (r *recorded) record(_ context.Context, s session.Session, _ session.Options) (session.Recorder, string, error) {
	f, err := os.Create(filepath.Join(r.dir, s.ID))
	if err != nil {
		return nil, "", err
	}
	w, err := recording.NewWriter(f, recording.Header{Width: 80, Height: 24, Metadata: recording.Metadata{Session: s.ID, Started: s.Started}})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[s.ID] = w
	return w, s.ID, err
}

// shell starts a session, in which shows is output.
func (r *recorded) shell(c identity.Credentials) (id string, shows func(string)) {
	r.t.Helper()
	started := decodeInto[sessionOutput](r.t, r.json(c, "AmazonSSM.StartSession", map[string]any{"Target": channelNode}))
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.all[started.SessionID]
	return started.SessionID, func(text string) { r.must(w.Output(time.Now(), []byte(text))) }
}

func (r *recorded) watch(c identity.Credentials, in watchSessionInput) watchSessionOutput {
	r.t.Helper()
	return decodeInto[watchSessionOutput](r.t, r.json(c, "Sallyport.WatchSession", in))
}

// follow asks until a text was seen, and returns what was.
func (r *recorded) follow(c identity.Credentials, in *watchSessionInput, text string) string {
	r.t.Helper()
	var seen bytes.Buffer
	for end := time.Now().Add(10 * time.Second); !strings.Contains(seen.String(), text); {
		out := r.watch(c, *in)
		if out.Offset != in.Offset || time.Now().After(end) {
			r.t.Fatalf("seen %q, then %+v", seen.String(), out)
		}
		seen.Write(out.Data)
		in.Watch, in.Offset = out.Watch, out.NextOffset
	}
	return seen.String()
}

const mayWatch = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:WatchSession","Resource":"*"}]}`

// Watching shows the recording from its beginning; it is one decision in the audit log,
// and its beginning and end.
func TestWatchSession(t *testing.T) {
	r := newRecorded(t)
	alice, bob := r.user("alice", nil, allowAll), r.user("bob", nil, mayWatch)
	id, shows := r.shell(alice)
	shows("before\r\n")
	in := watchSessionInput{SessionID: id}
	seen := r.follow(bob, &in, "before")
	shows("during\r\n")
	seen += r.follow(bob, &in, "during")
	r.must(r.all[id].Flush())
	file, err := os.ReadFile(filepath.Join(r.dir, id))
	r.must(err)
	if diff := cmp.Diff(string(file), seen); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
	if out := r.watch(bob, watchSessionInput{SessionID: id, Watch: in.Watch, Leave: true}); !out.Ended {
		t.Errorf("left: got %+v", out)
	}
	var decisions int
	for _, d := range r.audited(audit.EventDecision) {
		if d.Action == "sallyport:WatchSession" {
			decisions++
		}
	}
	if decisions != 1 {
		t.Errorf("%d decisions in the audit log, want 1", decisions)
	}
	var watches []string
	for _, w := range r.audited(audit.EventWatch) {
		if w.Session != id || w.Node != channelNode || w.SourceIP == "" || w.Details["owner"] != testRealm.IAM("user", "/", "alice") {
			t.Errorf("audited: %+v", w)
		}
		watches = append(watches, w.Principal+" "+w.Reason)
	}
	arn := testRealm.IAM("user", "/", "bob")
	if diff := cmp.Diff([]string{arn + " began", arn + " ended: the watcher left"}, watches); diff != "" {
		t.Errorf("audited (-want +got):\n%s", diff)
	}
}

// Attacks: by who may not, on what there is not, with another's watch, after the end.
func TestWatchSessionRefuses(t *testing.T) {
	r := newRecorded(t)
	alice, bob := r.user("alice", nil, allowAll), r.user("bob", nil, mayWatch)
	eve := r.user("eve", nil, allow("ssm:*", "*", ""))
	search := r.user("search", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:*","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"search"}}}]}`)
	id, shows := r.shell(alice)
	shows("secret")
	in := watchSessionInput{SessionID: id}
	r.follow(bob, &in, "secret")
	past, _ := r.shell(alice)
	r.must(r.gateway.Terminate(context.Background(), past, session.Terminated("x", "")))
	r.eventually("the session ends", func() bool {
		v, err := r.store.Session(context.Background(), past)
		return err == nil && !v.State.Active()
	})
	tests := []struct {
		name string
		who  identity.Credentials
		in   watchSessionInput
		code string
		want string
	}{
		{"who may start sessions, but not watch", eve, watchSessionInput{SessionID: id}, "AccessDeniedException", "sallyport:WatchSession"},
		{"whose nodes are others", search, watchSessionInput{SessionID: id}, "AccessDeniedException", "sallyport:WatchSession"},
		{"who guesses a session", eve, watchSessionInput{SessionID: "alice-00000000000000000"}, "AccessDeniedException", "sallyport:WatchSession"},
		{"who has somebody's watch", eve, watchSessionInput{SessionID: id, Watch: in.Watch, Offset: 0}, "AccessDeniedException", "sallyport:WatchSession"},
		{"who would end somebody's watch", eve, watchSessionInput{SessionID: id, Watch: in.Watch, Leave: true}, "AccessDeniedException", "sallyport:WatchSession"},
		{"whose watch it is not", alice, watchSessionInput{SessionID: id, Watch: in.Watch}, "DoesNotExistException", "no such watch"},
		{"a watch that was not begun", bob, watchSessionInput{SessionID: id, Watch: "GUESS"}, "DoesNotExistException", "no such watch"},
		{"no such session", bob, watchSessionInput{SessionID: "alice-00000000000000000"}, "DoesNotExistException", "There is no session"},
		{"one that is over", bob, watchSessionInput{SessionID: past}, "ValidationException", "has ended"},
		{"before the beginning", bob, watchSessionInput{SessionID: id, Offset: -1}, "ValidationException", "offset"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := r.json(tt.who, "Sallyport.WatchSession", tt.in)
			if got.code() != tt.code || !strings.Contains(got.message(), tt.want) {
				t.Errorf("got %d %s, want %s with %q", got.status, got.body, tt.code, tt.want)
			}
			if strings.Contains(got.body, "Data") {
				t.Errorf("it shows something: %s", got.body)
			}
		})
	}
	// A watch that was not begun shows nothing of a session that is over, either.
	if out := r.watch(bob, watchSessionInput{SessionID: past, Watch: "GUESS"}); len(out.Data) > 0 || !out.Ended {
		t.Errorf("got %+v, want the end and nothing else", out)
	}
	shows("and bob still watches")
	r.follow(bob, &in, "still watches")
}

// Watching ends with the right to.
func TestWatchEndsWithTheRight(t *testing.T) {
	for name, end := range map[string]func(r *recorded, admin identity.Credentials){
		"the policy is gone": func(r *recorded, _ identity.Credentials) {
			r.must(r.store.DeleteInlinePolicy(context.Background(), identity.Owner{Kind: identity.OwnerUser, Name: "bob"}, "p0"))
		},
		"the person is disabled": func(r *recorded, admin identity.Credentials) {
			decodeInto[struct{}](r.t, r.json(admin, "Sallyport.DisableUser", userInput{UserName: "bob"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorded(t)
			alice, bob, admin := r.user("alice", nil, allowAll), r.user("bob", nil, mayWatch), r.user("admin", nil, allowAll)
			id, shows := r.shell(alice)
			shows("a")
			in := watchSessionInput{SessionID: id}
			r.follow(bob, &in, `"a"`)
			end(r, admin)
			shows("b")
			if got := r.json(bob, "Sallyport.WatchSession", watchSessionInput{SessionID: id, Watch: in.Watch, Offset: in.Offset}); got.status == 200 {
				t.Errorf("got %s", got.body)
			}
			if name != "the policy is gone" {
				return // nobody knows who asks; the watch ends by silence
			}
			watches := r.audited(audit.EventWatch)
			if last := watches[len(watches)-1]; last.Reason != "ended: the watcher may not watch it any more" {
				t.Errorf("audited: %+v", last)
			}
		})
	}
}

// What lies far back is skipped, to the beginning of a line.
func TestWatchSkips(t *testing.T) {
	r := newRecorded(t)
	alice := r.user("alice", nil, allowAll)
	id, shows := r.shell(alice)
	for range (watchReplay + 1<<20) / 4096 {
		shows(strings.Repeat("x", 4096))
	}
	shows("the end")
	out := r.watch(alice, watchSessionInput{SessionID: id}) // one's own, without a policy for it
	if !out.Skipped || !bytes.HasPrefix(out.Data, []byte("[")) || out.NextOffset != out.Offset+int64(len(out.Data)) {
		t.Fatalf("got %d bytes from %d, skipped %v, beginning %.20q", len(out.Data), out.Offset, out.Skipped, out.Data)
	}
	in := watchSessionInput{SessionID: id, Watch: out.Watch, Offset: out.NextOffset}
	r.follow(alice, &in, "the end")
}

// Whether a person is told is what the flow of their session's grant says, and else what
// the server does.
func TestWatchNotice(t *testing.T) {
	yes, no := true, false
	for _, tt := range []struct {
		name   string
		server bool
		flow   *bool
		want   string
	}{
		{"nobody says it", false, nil, "false"}, {"the server does", true, nil, "true"},
		{"the flow does", false, &yes, "true"}, {"the flow says not to", true, &no, "false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			held := newHoldings(t)
			r := newRecorded(t, func(c *Config) { held.use(c); c.WatchNotice = tt.server })
			carol, bob := r.user("carol", nil), r.user("bob", nil, mayWatch)
			person, err := r.store.User(context.Background(), "carol")
			r.must(err)
			held.give("oi-0123456789ab", person, time.Hour, allow("ssm:StartSession", "*", ""))
			held.change("oi-0123456789ab", func(g *grant.Request) { g.Frozen.Flow.WatchNotice = tt.flow })
			id, _ := r.shell(carol)
			r.watch(bob, watchSessionInput{SessionID: id})
			if got := r.audited(audit.EventWatch)[0].Details["notice"]; got != tt.want {
				t.Errorf("got notice %s, want %s", got, tt.want)
			}
		})
	}
}

func TestWatchNoticeWithoutGrants(t *testing.T) {
	for _, server := range []bool{false, true} {
		r := newRecorded(t, func(c *Config) { c.WatchNotice = server })
		alice, bob := r.user("alice", nil, allowAll), r.user("bob", nil, mayWatch)
		id, _ := r.shell(alice)
		r.watch(bob, watchSessionInput{SessionID: id})
		watches := r.audited(audit.EventWatch)
		if got, want := watches[0].Details["notice"], map[bool]string{false: "false", true: "true"}[server]; got != want {
			t.Errorf("configured %v: got notice %s, want %s", server, got, want)
		}
	}
}
