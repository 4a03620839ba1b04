package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/archive"
	"sallyport.dev/archive/bucket"
	"sallyport.dev/archive/custody"
	"sallyport.dev/archive/keyring"
	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/internal/tags"
	"sallyport.dev/session"
)

// evidenceRoom is a server with recordings in custody.
type evidenceRoom struct {
	*harness
	bucket *bucket.Bucket
	keeper *custody.Keeper
}

func withRecordings(t *testing.T) *evidenceRoom {
	t.Helper()
	h := newHarness(t)
	b, err := bucket.Open(t.Context(), bucket.Config{URL: filepath.Join(t.TempDir(), "store")})
	h.must(err)
	t.Cleanup(func() { b.Close() })
	ring, err := keyring.Open(t.Context(), keyring.Config{URL: filepath.Join(t.TempDir(), "key"), Logger: slog.New(slog.DiscardHandler)})
	h.must(err)
	t.Cleanup(ring.Close)
	e := &evidenceRoom{harness: h, bucket: b}
	e.keeper = custody.New(custody.Config{
		Store: h.store, Objects: b, Keys: ring, Audit: h.server.config.Audit, Records: h.store, Logger: slog.New(slog.DiscardHandler), Now: h.clock,
		Subjects: func(ctx context.Context, id string) ([]custody.Subject, error) {
			v, err := h.store.Session(ctx, id)
			if errors.Is(err, session.ErrNotFound) {
				return nil, nil
			}
			return []custody.Subject{{Kind: custody.OfPerson, Value: v.OwnerID}, {Kind: custody.OfPerson, Value: v.RootID}}, err
		},
		Verify: func(_ context.Context, name string) (archive.Report, error) {
			return archive.Report{Manifest: archive.Manifest{Name: name, SHA256: "aa", Size: 7, Sum: "bb", Chunks: make([]archive.Chunk, 1)}}, nil
		},
	})
	h.server.config.Custody = e.keeper
	return e
}

// recorded puts a recording of a session of somebody on a node.
func (e *evidenceRoom) recorded(id, owner, node string, ownerTags tags.Tags) {
	e.t.Helper()
	u, err := e.store.User(e.t.Context(), owner)
	e.must(err)
	name := "2026/11/20/" + id
	e.must(e.store.CreateSession(e.t.Context(), session.Session{
		ID: id, NodeID: node, Document: "SSM-SessionManagerRunShell", Owner: testRealm.IAM("user", "", owner), OwnerID: u.ID, OwnerName: owner,
		RootID: u.ID, State: session.StateTerminated, Started: e.clock(), Ended: e.clock(), Recording: name,
	}))
	n, err := e.store.Node(e.t.Context(), node)
	e.must(err)
	e.must(e.store.PutRecording(e.t.Context(), archive.Row{
		Name: name, Session: id, Node: node, Principal: testRealm.IAM("user", "", owner), Document: "SSM-SessionManagerRunShell",
		State: archive.Stored, Started: e.clock(), Ended: e.clock(), Manifest: "bb",
	}))
	e.must(e.keeper.Note(e.t.Context(), name, custody.Facts{NodeTags: n.Tags, OwnerTags: ownerTags}, nil))
	for _, object := range []string{"key.json", "000001.chunk", "manifest.json"} {
		e.must(e.bucket.WriteAll(e.t.Context(), name+"/"+object, []byte(id), nil))
	}
	e.advance(time.Second)
}

// listed are the sessions that a caller sees, by pages of a size.
func (e *evidenceRoom) listed(c identity.Credentials, size int) (ids []string) {
	e.t.Helper()
	for token := ""; ; {
		got := e.json(c, "Sallyport.ListRecordings", map[string]any{"MaxResults": size, "NextToken": token})
		if got.status != 200 {
			e.t.Fatalf("listing: got %d %s", got.status, got.body)
		}
		out := decodeInto[listRecordingsOutput](e.t, got)
		for _, r := range out.Recordings {
			ids = append(ids, r.SessionID)
		}
		if token = out.NextToken; token == "" {
			return ids
		}
	}
}

func statement(action, condition string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":%q,"Resource":"*","Condition":%s}]}`, action, condition)
}

// Each recording is decided by itself: by the tags of its node and of whose session it
// was, by person, node, document and age; one's own needs no policy.
func TestListRecordings(t *testing.T) {
	e := withRecordings(t)
	e.node("mi-1", identity.Tags{"Env": "prod"})
	e.node("mi-2", identity.Tags{"Env": "dev"})
	alice, bob := e.user("alice", nil), e.user("bob", nil)
	e.recorded("alice-1", "alice", "mi-1", tags.Tags{"Team": "payments, search"})
	e.recorded("alice-2", "alice", "mi-2", tags.Tags{"Team": "payments, search"})
	e.recorded("bob-1", "bob", "mi-1", tags.Tags{"Team": "ops"})
	e.advance(48 * time.Hour)
	e.recorded("bob-2", "bob", "mi-2", tags.Tags{"Team": "ops"})
	for _, test := range []struct {
		name string
		who  identity.Credentials
		want string
	}{
		{"one's own", alice, "alice-2 alice-1"},
		{"another's own", bob, "bob-2 bob-1"},
		{"nobody's", e.user("nobody", nil), ""},
		{"everything", e.user("admin", nil, allowAll), "bob-2 bob-1 alice-2 alice-1"},
		{"by the node's tags", e.user("env", nil, statement("sallyport:ListRecordings", `{"StringEquals":{"aws:ResourceTag/Env":"prod"}}`)), "bob-1 alice-1"},
		{"by the owner's tags", e.user("team", nil, statement("sallyport:*", `{"ForAnyValue:StringEquals":{"sallyport:OwnerTag/Team":"search"}}`)), "alice-2 alice-1"},
		{"by the caller's tags", e.user("lead", identity.Tags{"Team": "ops"}, statement("sallyport:List*", `{"StringEquals":{"sallyport:OwnerTag/Team":"${aws:PrincipalTag/Team}"}}`)), "bob-2 bob-1"},
		{"by person", e.user("person", nil, statement("sallyport:ListRecordings", `{"ArnLike":{"sallyport:SessionOwner":"arn:aws:iam::*:user/alice"}}`)), "alice-2 alice-1"},
		{"by node", e.user("node", nil, statement("sallyport:ListRecordings", `{"StringEquals":{"sallyport:NodeId":"mi-2"}}`)), "bob-2 alice-2"},
		{"by age", e.user("age", nil, statement("sallyport:ListRecordings", `{"NumericLessThan":{"sallyport:RecordingAge":"1"}}`)), "bob-2"},
		{"by document", e.user("doc", nil, statement("sallyport:ListRecordings", `{"StringEquals":{"sallyport:DocumentName":"Other"}}`)), ""},
		{"denied some", e.user("some", nil, allowAll, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"sallyport:*","Resource":"*",
			"Condition":{"StringEquals":{"aws:ResourceTag/Env":"prod"}}}]}`), "bob-2 alice-2"},
		{"of one resource", e.user("one", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:ListRecordings",
			"Resource":"arn:aws:sallyport:*:*:recording/bob-*"}]}`), "bob-2 bob-1"},
	} {
		for _, size := range []int{1, 3, 200} {
			if got := strings.Join(e.listed(test.who, size), " "); got != test.want {
				t.Errorf("%s, by pages of %d: got %q, want %q", test.name, size, got, test.want)
			}
		}
	}
}

// A page's token tells nothing of recordings that the caller may not see, and is none of
// another operation's.
func TestRecordingTokens(t *testing.T) {
	e := withRecordings(t)
	e.node("mi-1", nil)
	e.user("bob", nil)
	alice := e.user("alice", nil)
	e.recorded("alice-1", "alice", "mi-1", nil)
	e.recorded("bob-secret-session", "bob", "mi-1", nil)
	e.recorded("alice-2", "alice", "mi-1", nil)
	got := e.json(alice, "Sallyport.ListRecordings", map[string]any{"MaxResults": 1})
	out := decodeInto[listRecordingsOutput](t, got)
	if out.NextToken == "" || strings.Contains(unbase64(out.NextToken), "alice") || strings.Contains(got.body, "bob") {
		t.Errorf("got %s, want a sealed token and nothing of bob", got.body)
	}
	for _, token := range []string{"x", "bm9uZQ", out.NextToken[:len(out.NextToken)-2] + "AA"} {
		if got := e.json(alice, "Sallyport.ListRecordings", map[string]any{"NextToken": token}); got.code() != "InvalidNextToken" {
			t.Errorf("%q: got %d %s, want InvalidNextToken", token, got.status, got.body)
		}
	}
	admin := e.user("admin", nil, allowAll)
	if got := e.json(admin, "Sallyport.RewrapRecordings", map[string]any{"NextToken": out.NextToken}); got.code() != "InvalidNextToken" {
		t.Errorf("another operation's: got %d %s, want InvalidNextToken", got.status, got.body)
	}
}

// unbase64 is what a reader of a token could see.
func unbase64(token string) string {
	b, err := base64.RawURLEncoding.DecodeString(token)
	return fmt.Sprint(string(b), err)
}

// The right to one's own is to see it: nobody deletes or holds by that, nor by a policy
// for sessions.
func TestOwnRecordingIsNotToDelete(t *testing.T) {
	e := withRecordings(t)
	e.node("mi-1", nil)
	alice := e.user("alice", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ssm:*","sallyport:*"],
		"Resource":"arn:aws:ssm:*:*:session/${aws:username}-*"}]}`)
	bob := e.user("bob", nil)
	e.recorded("alice-1", "alice", "mi-1", nil)
	of := map[string]any{"SessionId": "alice-1", "Reason": "mine"}
	for _, who := range []identity.Credentials{alice, bob} {
		for _, operation := range []string{"DeleteRecording", "HoldRecording"} {
			if got := e.json(who, "Sallyport."+operation, of); got.code() != "AccessDeniedException" {
				t.Errorf("%s: got %d %s, want AccessDeniedException", operation, got.status, got.body)
			}
		}
		for _, in := range []map[string]any{
			{"Owner": "alice", "Reason": "r"}, {"NodeId": "mi-1", "Reason": "r"}, {"RequestId": "req-1", "Reason": "r"}, {"NodeId": "mi-none", "Reason": "r"},
		} {
			if got := e.json(who, "Sallyport.HoldRecording", in); got.code() != "AccessDeniedException" {
				t.Errorf("%v: got %d %s, want AccessDeniedException", in, got.status, got.body)
			}
		}
	}
	for _, operation := range []string{"GetRecordingInfo", "VerifyRecording"} {
		if got := e.json(alice, "Sallyport."+operation, map[string]any{"SessionId": "alice-1"}); got.status != 200 {
			t.Errorf("%s: got %d %s, want one's own", operation, got.status, got.body)
		}
		if got := e.json(bob, "Sallyport."+operation, map[string]any{"SessionId": "alice-1"}); got.code() != "AccessDeniedException" {
			t.Errorf("%s: got %d %s, want AccessDeniedException", operation, got.status, got.body)
		}
		// What does not exist is refused as what does.
		if got := e.json(bob, "Sallyport."+operation, map[string]any{"SessionId": "alice-9"}); got.code() != "AccessDeniedException" {
			t.Errorf("%s of none: got %d %s, want AccessDeniedException", operation, got.status, got.body)
		}
	}
	if keys, err := e.bucket.ReadAll(t.Context(), "2026/11/20/alice-1/key.json"); err != nil || len(keys) == 0 {
		t.Errorf("got %q, %v, want the recording untouched", keys, err)
	}
}

// Attack: somebody without a policy, or with one for recordings of others alone, tries all that
// may be done with recordings. They get nowhere, and the audit log tells of each attempt.
func TestRecordingOperationsAreRefused(t *testing.T) {
	e := withRecordings(t)
	e.node("mi-1", nil)
	e.user("alice", nil)
	e.recorded("alice-1", "alice", "mi-1", nil)
	h, _, err := e.keeper.Hold(t.Context(), custody.Hold{Subject: custody.Subject{Kind: custody.OfNode, Value: "mi-1"}, Reason: "case 7", By: "arn:eve"})
	e.must(err)
	for who, c := range map[string]identity.Credentials{
		"nobody": e.user("nobody", nil),
		"other": e.user("other", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:*",
			"Resource":["arn:aws:sallyport:*:*:recording/bob-*","arn:aws:sallyport:*:*:recording-hold/hold-other"]}]}`),
	} {
		for operation, in := range map[string]map[string]any{
			"GetRecordingInfo": {"SessionId": "alice-1"}, "VerifyRecording": {"SessionId": "alice-1"},
			"DeleteRecording": {"SessionId": "alice-1", "Reason": "r"}, "HoldRecording": {"SessionId": "alice-1", "Reason": "r"},
			"ReleaseRecordingHold": {"HoldId": h.ID, "Reason": "r"}, "ListRecordingHolds": {}, "RewrapRecordings": {},
		} {
			if got := e.json(c, "Sallyport."+operation, in); got.code() != "AccessDeniedException" || strings.Contains(got.body, "case 7") {
				t.Errorf("%s by %s: got %d %s, want AccessDeniedException", operation, who, got.status, got.body)
			}
			if r := e.last(audit.EventDecision, "sallyport:"+operation); r.Decision == "Allowed" || r.Principal != testRealm.IAM("user", "", who) {
				t.Errorf("%s by %s: got the record %+v, want the refusal", operation, who, r)
			}
		}
	}
	holds, err := e.keeper.Holds(t.Context(), custody.HoldFilter{Active: true})
	if len(holds) != 1 || err != nil {
		t.Errorf("got %+v, %v, want the hold as it was", holds, err)
	}
	if keys, err := e.bucket.ReadAll(t.Context(), "2026/11/20/alice-1/key.json"); err != nil || string(keys) != "alice-1" {
		t.Errorf("got %q, %v, want the recording untouched", keys, err)
	}
}

func TestHoldAndDeleteRecording(t *testing.T) {
	e := withRecordings(t)
	e.node("mi-1", identity.Tags{"Env": "prod"})
	alice := e.user("alice", nil)
	admin := e.user("admin", nil, allowAll)
	e.recorded("alice-1", "alice", "mi-1", nil)
	e.recorded("alice-2", "alice", "mi-1", nil)
	do := func(operation string, in map[string]any) answer {
		t.Helper()
		return e.json(admin, "Sallyport."+operation, in)
	}
	for _, in := range []map[string]any{
		{"Reason": "r"}, {"SessionId": "alice-1", "NodeId": "mi-1", "Reason": "r"}, {"SessionId": "alice-1"}, {"SessionId": "alice-1", "Reason": "  "},
	} {
		if got := do("HoldRecording", in); got.code() != "ValidationException" {
			t.Errorf("%v: got %d %s, want ValidationException", in, got.status, got.body)
		}
	}
	for _, in := range []map[string]any{
		{"SessionId": "none", "Reason": "r"}, {"Owner": "nobody", "Reason": "r"}, {"NodeId": "mi-9", "Reason": "r"}, {"RequestId": "req-9", "Reason": "r"},
	} {
		if got := do("HoldRecording", in); got.code() != "DoesNotExistException" {
			t.Errorf("%v: got %d %s, want DoesNotExistException", in, got.status, got.body)
		}
	}
	held := do("HoldRecording", map[string]any{"Owner": "alice", "Reason": "case 7"})
	h := decodeInto[holdRecordingOutput](t, held)
	if held.status != 200 || h.Recordings != 2 {
		t.Fatalf("got %d %s, want a hold on two", held.status, held.body)
	}
	// Attack: somebody whose recordings are held reads why, of which case and by whom.
	for who, want := range map[string]struct {
		identity.Credentials
		holds int
	}{"alice": {alice, 0}, "admin": {admin, 1}} {
		got := e.json(want.Credentials, "Sallyport.GetRecordingInfo", map[string]any{"SessionId": "alice-1"})
		info := decodeInto[getRecordingInfoOutput](t, got)
		if !info.Recording.Held || len(info.Holds) != want.holds || want.holds == 0 && (strings.Contains(got.body, "case 7") || strings.Contains(got.body, "admin")) {
			t.Errorf("%s: got %d %s, want it held, and %d holds told", who, got.status, got.body, want.holds)
		}
	}
	// Whoever is called alice now is not who was held.
	e.must(e.store.DeleteAccessKey(t.Context(), "alice", alice.AccessKeyID))
	e.must(e.store.DeleteUser(t.Context(), "alice"))
	e.user("alice", nil)
	got := do("DeleteRecording", map[string]any{"SessionId": "alice-1", "Reason": "r"})
	if got.code() != "ConflictException" || !strings.Contains(got.body, "case 7") {
		t.Errorf("got %d %s, want ConflictException with the reason of the hold", got.status, got.body)
	}
	if got := do("ReleaseRecordingHold", map[string]any{"HoldId": h.HoldID, "Reason": "over"}); got.status != 200 {
		t.Errorf("got %d %s, want it released", got.status, got.body)
	}
	if got := do("ReleaseRecordingHold", map[string]any{"HoldId": h.HoldID, "Reason": "over"}); got.code() != "ConflictException" {
		t.Errorf("releasing again: got %d %s, want ConflictException", got.status, got.body)
	}
	if got := do("DeleteRecording", map[string]any{"SessionId": "alice-1", "Reason": "asked for"}); got.status != 200 {
		t.Fatalf("got %d %s, want it deleted", got.status, got.body)
	}
	if got := do("DeleteRecording", map[string]any{"SessionId": "alice-1", "Reason": "asked for"}); got.code() != "ConflictException" {
		t.Errorf("deleting again: got %d %s, want ConflictException", got.status, got.body)
	}
	if got := do("HoldRecording", map[string]any{"SessionId": "alice-1", "Reason": "r"}); got.code() != "ConflictException" {
		t.Errorf("holding what is deleted: got %d %s, want ConflictException", got.status, got.body)
	}
	e.server.config.Recordings = folder(t.TempDir())
	reader := e.user("reader", nil, statement("sallyport:GetRecording", "{}"))
	for who, want := range map[string]struct {
		identity.Credentials
		text string
	}{
		"admin":  {admin, " was deleted at " + e.clock().UTC().Format(time.RFC3339) + " by arn:aws:iam::111111111111:user/admin: asked for."},
		"reader": {reader, ` was deleted."`},
	} {
		if got := e.json(want.Credentials, "Sallyport.GetRecording", map[string]any{"SessionId": "alice-1"}); got.code() != "DoesNotExistException" || !strings.Contains(got.body, want.text) {
			t.Errorf("%s reads what is deleted: got %d %s, want %q in it", who, got.status, got.body, want.text)
		}
	}
	records := e.audited(audit.EventRecording)
	if len(records) != 1 || records[0].Reason != "asked for" || records[0].Session != "alice-1" {
		t.Errorf("got %+v, want one record of the deletion", records)
	}
	if diff := cmp.Diff([]string{"alice-2", "alice-1"}, e.listed(admin, 50)); diff != "" {
		t.Errorf("tombstones stay (-want +got):\n%s", diff)
	}
}

// Why a recording cannot be read is said, but not what the store or the key service said.
func TestUnreadRecordings(t *testing.T) {
	chain := errors.New("GET https://10.0.0.9:9000/recordings: dial tcp: connection refused")
	key := func(err error) error {
		return fmt.Errorf("recording x: key.json: %w", &archive.KeyError{ID: "file:0a1b", Err: err})
	}
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"store away":      {fmt.Errorf("reading key.json: %w: %w", archive.ErrStore, chain), "The store of recordings does not answer."},
		"store slow":      {fmt.Errorf("reading key.json: %w: %w", archive.ErrStore, context.DeadlineExceeded), "The store of recordings does not answer."},
		"key unknown":     {key(fmt.Errorf("%w: %q", archive.ErrUnknownKey, "file:0a1b")), "The key file:0a1b that wraps this recording is not configured (old_keys)."},
		"key service out": {key(chain), "The key file:0a1b that wraps this recording cannot be used now."},
	} {
		e, known := service{name: "sallyport"}.exception(tt.err)
		if e.Code != "ServiceUnavailable" || e.Status != 503 || e.Message != tt.want || known {
			t.Errorf("%s: got %+v, known %t, want ServiceUnavailable with %q, and the cause logged", name, e, known, tt.want)
		}
	}
}

// Tags count that a node bore when it is gone: who is denied by them stays denied.
func TestDenyByTagsOfAGoneNode(t *testing.T) {
	e := withRecordings(t)
	e.node("mi-1", identity.Tags{"Env": "prod"})
	e.user("alice", nil)
	e.recorded("alice-1", "alice", "mi-1", nil)
	some := e.user("some", nil, allowAll, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"sallyport:*","Resource":"*",
		"Condition":{"StringEquals":{"aws:ResourceTag/Env":"prod"}}}]}`)
	e.must(e.store.DeleteNode(t.Context(), "mi-1"))
	for _, operation := range []string{"GetRecordingInfo", "GetRecording", "DeleteRecording"} {
		got := e.json(some, "Sallyport."+operation, map[string]any{"SessionId": "alice-1", "Reason": "r"})
		if got.code() != "AccessDeniedException" || !strings.Contains(got.body, "explicit deny") {
			t.Errorf("%s: got %d %s, want the deny", operation, got.status, got.body)
		}
	}
}

func TestVerifyRecordingComparesTheAudit(t *testing.T) {
	e := withRecordings(t)
	e.node("mi-1", nil)
	alice := e.user("alice", nil)
	e.recorded("alice-1", "alice", "mi-1", nil)
	verify := func() verifyRecordingOutput {
		t.Helper()
		got := e.json(alice, "Sallyport.VerifyRecording", map[string]any{"SessionId": "alice-1"})
		if got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
		return decodeInto[verifyRecordingOutput](t, got)
	}
	if out := verify(); out.Verified || !strings.Contains(out.Damage[0].What, "does not name it") {
		t.Errorf("got %+v, want it unverified: nothing names it", out)
	}
	end := func(name, sum string) {
		_, err := e.server.config.Audit.Append(t.Context(), audit.Record{Event: audit.EventSessionEnd, Session: "alice-1",
			Details: map[string]string{"recording": name, "recording_manifest_sha256": sum}})
		e.must(err)
	}
	end("2026/11/20/alice-1", "cc")
	if out := verify(); out.Verified || out.Damage[0].Object != "manifest.json" || !strings.Contains(out.Damage[0].What, "cc") {
		t.Errorf("got %+v, want both digests named", out)
	}
	end("2026/11/20/alice-2", "bb") // of another
	if out := verify(); out.Verified {
		t.Errorf("got %+v, want it unverified", out)
	}
	end("2026/11/20/alice-1", "bb")
	if out := verify(); !out.Verified || out.AuditSeq == 0 || out.Size != 7 {
		t.Errorf("got %+v, want it verified", out)
	}
}

// Attack: somebody has their own recordings verified, for which no policy is asked, in as many
// calls as they can, each of which reads all of one. They have one place at a time.
func TestVerifyRecordingOneAtATime(t *testing.T) {
	e := withRecordings(t)
	e.node("mi-1", nil)
	alice := e.user("alice", nil)
	e.recorded("alice-1", "alice", "mi-1", nil)
	var now, most atomic.Int64
	e.server.config.Custody = custody.New(custody.Config{Store: e.store, Verify: func(context.Context, string) (archive.Report, error) {
		defer now.Add(-1)
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(50 * time.Millisecond)
		return archive.Report{}, nil
	}})
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			if got := e.json(alice, "Sallyport.VerifyRecording", map[string]any{"SessionId": "alice-1"}); got.status != 200 {
				t.Errorf("got %d %s", got.status, got.body)
			}
		})
	}
	calls.Wait()
	if most.Load() != 1 {
		t.Errorf("%d were verified at a time, want 1", most.Load())
	}
}

func TestRewrapRecordingsRefusesUnknownKeys(t *testing.T) {
	e := withRecordings(t)
	admin := e.user("admin", nil, allowAll)
	got := e.json(admin, "Sallyport.RewrapRecordings", map[string]any{"FromKeyId": "file:0"})
	if got.code() != "ValidationException" || !strings.Contains(got.body, "old_keys") {
		t.Errorf("got %d %s, want ValidationException and what to do", got.status, got.body)
	}
	if got := e.json(admin, "Sallyport.RewrapRecordings", map[string]any{}); got.status != 200 {
		t.Errorf("got %d %s, want nothing to do", got.status, got.body)
	}
}
