package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/index"
	"sallyport.dev/session"
	"sallyport.dev/store"
	"sallyport.dev/transcript"
)

func withSearch(c *Config) { c.Search = c.Identities.(*store.Store) }

// showed makes a session of a user that has ended, and what it showed.
func (h *harness) showed(owner, id, node string, lines ...string) {
	h.t.Helper()
	ctx := context.Background()
	u, err := h.store.User(ctx, owner)
	h.must(err)
	h.advance(time.Second)
	h.must(h.store.CreateSession(ctx, session.Session{ID: id, NodeID: node, Owner: testRealm.IAM("user", "/", owner),
		OwnerID: u.ID, RootID: u.ID, OwnerName: owner, State: session.StateTerminated, Started: h.clock(), Recording: "rec/" + id}))
	number, err := h.store.CreateTranscript(ctx, id, "m1", index.Live, h.clock())
	h.must(err)
	var all []transcript.Line
	for i, text := range lines {
		kind := transcript.Shown
		if rest, ok := strings.CutPrefix(text, "typed:"); ok {
			kind, text = transcript.Typed, rest
		}
		all = append(all, transcript.Line{At: time.Duration(i) * 10 * time.Second, Kind: kind, Text: text})
	}
	for _, b := range index.Blocks(all) {
		_, err := h.store.AddBlocks(ctx, "m1", []index.Addition{{Number: number, Block: b}}, h.clock())
		h.must(err)
	}
}

// foundIn searches page by page and tells which sessions were found.
func (h *harness) foundIn(c identity.Credentials, in searchSessionsInput) (ids []string, last searchSessionsOutput) {
	h.t.Helper()
	for {
		last = decodeInto[searchSessionsOutput](h.t, h.json(c, "Sallyport.SearchSessions", in))
		for _, s := range last.Sessions {
			ids = append(ids, s.Session.SessionID)
		}
		if in.NextToken = last.NextToken; in.NextToken == "" {
			return ids, last
		}
		if in.MaxResults > 0 && len(last.Sessions) != in.MaxResults && !last.Unfinished {
			h.t.Errorf("a page of %d that is not the last", len(last.Sessions))
		}
	}
}

func TestSearchSessions(t *testing.T) {
	h := newHarness(t, withSearch)
	h.node("i-00000000000000001", identity.Tags{"Team": "payments"})
	h.node("i-00000000000000002", identity.Tags{"Team": "search"})
	allow := func(resource, condition string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sallyport:GetRecording","Resource":"` + resource + `"` + condition + `}]}`
	}
	deny := `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"sallyport:GetRecording","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"payments"}}}]}`
	people := map[string]identity.Credentials{
		"alice":   h.user("alice", nil),
		"bob":     h.user("bob", nil),
		"nobody":  h.user("nobody", nil),
		"auditor": h.user("auditor", nil, allow("*", "")),
		"team":    h.user("team", nil, allow("*", `,"Condition":{"StringEquals":{"ssm:resourceTag/Team":"search"}}`)),
		"one":     h.user("one", nil, allow(testRealm.Session("bob-2"), "")),
		"most":    h.user("most", nil, allow("*", ""), deny),
		"lister":  h.user("lister", nil, strings.ReplaceAll(allow("*", ""), "GetRecording", "ListSessions")),
	}
	h.showed("alice", "alice-1", "i-00000000000000001", "$ systemctl restart nginx", "done")
	h.showed("alice", "alice-2", "i-00000000000000002", "$ ls", "typed:systemctl stop NGINX")
	h.showed("bob", "bob-1", "i-00000000000000001", "$ cat /etc/nginx/nginx.conf")
	h.showed("bob", "bob-2", "i-00000000000000002", "nginx: worker", "nginx: master", "nginx", "nginx", "nginx")
	tests := []struct {
		who, text, regexp string
		want              string
	}{
		{"alice", "nginx", "", "alice-2 alice-1"},
		{"alice", "", `systemctl (restart|reload)\b`, "alice-1"},
		{"alice", "", `^cat /etc`, ""},
		{"bob", "NGINX", "", "bob-2 bob-1"},
		{"nobody", "nginx", "", ""},
		{"nobody", "", ".", ""},
		{"lister", "nginx", "", ""},
		{"auditor", "nginx", "", "bob-2 bob-1 alice-2 alice-1"},
		{"auditor", "", "x$", "bob-2 alice-1"},
		{"auditor", "ng", "", "bob-2 bob-1 alice-2 alice-1"},
		{"team", "nginx", "", "bob-2 alice-2"},
		{"one", "nginx", "", "bob-2"},
		{"most", "nginx", "", "bob-2 alice-2"},
	}
	for _, tt := range tests {
		for _, size := range []int{0, 1, 2} {
			ids, last := h.foundIn(people[tt.who], searchSessionsInput{Text: tt.text, Regexp: tt.regexp, MaxResults: size})
			if got := strings.Join(ids, " "); got != tt.want || last.Unfinished {
				t.Errorf("%s searches %s%s, %d at a time: got %q, want %q", tt.who, tt.text, tt.regexp, size, got, tt.want)
			}
		}
	}
	filters := map[string]searchSessionsInput{
		"bob-2 alice-2": {NodeID: "i-00000000000000002"},
		"bob-2 bob-1":   {Owner: testRealm.IAM("user", "/", "bob")},
		"":              {State: "Active"},
	}
	for want, in := range filters {
		in.Text = "nginx"
		if ids, _ := h.foundIn(people["auditor"], in); strings.Join(ids, " ") != want {
			t.Errorf("%+v: got %v, want %s", in, ids, want)
		}
	}
	_, out := h.foundIn(people["alice"], searchSessionsInput{Text: "nginx", NodeID: "i-00000000000000002"})
	want := foundLine{OffsetMillis: 10000, Kind: "typed", Line: "systemctl stop NGINX", From: 15, To: 20}
	if got := out.Sessions[0].Hits; len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	_, out = h.foundIn(people["one"], searchSessionsInput{Text: "nginx", MaxHits: 2})
	if got := out.Sessions[0]; len(got.Hits) != 2 || !got.MoreHits {
		t.Errorf("got %+v, want two of five lines", got)
	}
}

// Nobody learns from a search what is in sessions that they may not read: not by what is
// found, nor by pages, nor by what tokens hold.
func TestSearchTellsNothingOfOthers(t *testing.T) {
	h := newHarness(t, withSearch)
	h.node("i-00000000000000001", nil)
	alice, eve := h.user("alice", nil), h.user("eve", nil)
	h.user("bob", nil)
	h.showed("eve", "eve-1", "i-00000000000000001", "secret plan")
	for i := range 120 {
		h.showed("bob", fmt.Sprintf("bob-%d", i), "i-00000000000000001", "the secret is 4711")
	}
	h.showed("eve", "eve-2", "i-00000000000000001", "secret plan")
	first := decodeInto[searchSessionsOutput](t, h.json(eve, "Sallyport.SearchSessions", searchSessionsInput{Text: "secret", MaxResults: 1}))
	if len(first.Sessions) != 1 || first.NextToken == "" {
		t.Fatalf("got %+v", first)
	}
	if second := decodeInto[searchSessionsOutput](t, h.json(eve, "Sallyport.SearchSessions", searchSessionsInput{Text: "secret", MaxResults: 1, NextToken: first.NextToken})); len(second.Sessions) != 1 || second.NextToken != "" || second.Sessions[0].Session.SessionID != "eve-1" {
		t.Errorf("got %+v", second)
	}
	there := h.json(eve, "Sallyport.SearchSessions", searchSessionsInput{Text: "secret is 4711"})
	nowhere := h.json(eve, "Sallyport.SearchSessions", searchSessionsInput{Text: "secret is 4712"})
	if there.body != nowhere.body || there.status != 200 {
		t.Errorf("what is in others' sessions answers %s, what is nowhere %s", there.body, nowhere.body)
	}
	for name, in := range map[string]searchSessionsInput{
		"of another search": {Text: "other", NextToken: first.NextToken},
		"made up":           {Text: "secret", NextToken: "Ym9iLTUw"},
		"no base64":         {Text: "secret", NextToken: "!"},
	} {
		if got := h.json(eve, "Sallyport.SearchSessions", in); got.status != 400 {
			t.Errorf("a token %s: got %d %s", name, got.status, got.body)
		}
	}
	if got := h.json(alice, "Sallyport.SearchSessions", searchSessionsInput{Text: "secret", NextToken: first.NextToken}); got.status != 400 {
		t.Errorf("a token of somebody else: got %d %s", got.status, got.body)
	}
}

// Searches that are no good are refused with what is wrong, and none takes long.
func TestSearchHostileQueries(t *testing.T) {
	h := newHarness(t, withSearch)
	h.node("i-00000000000000001", nil)
	alice := h.user("alice", nil)
	h.showed("alice", "alice-1", "i-00000000000000001", strings.Repeat("a", 4000), `say "hi" AND NOT bye`)
	refused := map[string]searchSessionsInput{
		"Exactly one of Text and Regexp":     {},
		"Exactly one of":                     {Text: "a", Regexp: "b"},
		"holds control characters":           {Text: "a\nb"},
		"missing closing )":                  {Regexp: "("},
		"invalid or unsupported Perl syntax": {Regexp: `(?=a)`},
		"invalid escape sequence":            {Regexp: `(a)\1`},
		"invalid repeat count":               {Regexp: `((a{100}){100}){100}`},
		"length less than or equal to 256":   {Text: strings.Repeat("x", 257)},
		"length less than or equal to 512":   {Regexp: strings.Repeat("x", 513)},
		"The text has 400 bytes":             {Text: strings.Repeat("ü", 200)},
		"value less than or equal to 20":     {Text: "x", MaxResults: 21},
	}
	for want, in := range refused {
		got := h.json(alice, "Sallyport.SearchSessions", in)
		if got.code() != "ValidationException" || !strings.Contains(got.message(), want) {
			t.Errorf("%+v: got %s %s, want %q in it", in, got.code(), got.message(), want)
		}
	}
	harmless := map[string]int{
		`"`: 1, `hi" AND`: 1, `" OR "a`: 0, `NEAR(a, b)`: 0, `folded:a`: 0, `aaa*`: 0, `%`: 0, `___`: 0, `\`: 0, `'; DROP TABLE transcripts; --`: 0,
	}
	for text, want := range harmless {
		if ids, _ := h.foundIn(alice, searchSessionsInput{Text: text}); len(ids) != want {
			t.Errorf("%q: got %v", text, ids)
		}
	}
	for _, expr := range []string{`(a+)+$x`, `(a|aa)+b`, `(.*)*(.*)*(.*)*x`, `(x+x+)+y`, strings.Repeat("a?", 100) + strings.Repeat("a", 100) + "b"} {
		began := time.Now()
		h.foundIn(alice, searchSessionsInput{Regexp: expr})
		if took := time.Since(began); took > 2*searchTime {
			t.Errorf("%s took %s", expr, took)
		}
	}
}

// A search makes one record, however many pages it has, and the record tells what was
// searched for; each other search makes its own.
func TestSearchIsAudited(t *testing.T) {
	h := newHarness(t, withSearch)
	h.node("i-00000000000000001", nil)
	alice := h.user("alice", nil)
	for i := range 5 {
		h.showed("alice", fmt.Sprint("alice-", i), "i-00000000000000001", "found it")
	}
	searched := func() (texts []string) {
		for _, r := range h.audited(audit.EventDecision) {
			if r.Action == "sallyport:SearchSessions" {
				texts = append(texts, r.Details["Text"]+r.Details["Regexp"])
			}
		}
		return texts
	}
	h.foundIn(alice, searchSessionsInput{Text: "found", MaxResults: 1})
	h.foundIn(alice, searchSessionsInput{Regexp: "fo+und"})
	if got := searched(); !slices.Equal(got, []string{"found", "fo+und"}) {
		t.Errorf("got %q", got)
	}
	denied := h.user("denied", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"sallyport:SearchSessions","Resource":"*"}]}`)
	if got := h.json(denied, "Sallyport.SearchSessions", searchSessionsInput{Text: "found"}); got.code() != "AccessDeniedException" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestSearchWithoutIndex(t *testing.T) {
	h := newHarness(t)
	got := h.json(h.user("alice", nil), "Sallyport.SearchSessions", searchSessionsInput{Text: "x"})
	if got.code() != "UnsupportedOperationException" || !strings.Contains(got.message(), "not indexed") {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// Transferred files are told to who may read the session's recording.
func TestListTransfers(t *testing.T) {
	h := newHarness(t, withSearch)
	h.node("i-00000000000000001", nil)
	alice, eve := h.user("alice", nil), h.user("eve", nil)
	h.showed("alice", "alice-1", "i-00000000000000001")
	h.showed("alice", "alice-2", "i-00000000000000001")
	for i := range auditPage + 5 {
		_, err := h.server.config.Audit.Append(context.Background(), audit.Record{Time: h.clock(), Event: audit.EventTransfer, Action: "upload",
			Session: "alice-1", Details: map[string]string{"path": fmt.Sprint("/tmp/", i)}})
		h.must(err)
	}
	var paths []string
	in := listTransfersInput{SessionID: "alice-1"}
	for {
		out := decodeInto[listTransfersOutput](t, h.json(alice, "Sallyport.ListTransfers", in))
		for _, f := range out.Transfers {
			paths = append(paths, f.Operation+" "+f.Details["path"])
		}
		if in.NextToken = out.NextToken; in.NextToken == "" {
			break
		}
	}
	if len(paths) != auditPage+5 || paths[0] != "upload /tmp/0" || paths[auditPage] != fmt.Sprint("upload /tmp/", auditPage) {
		t.Errorf("got %d: %v", len(paths), paths)
	}
	if out := decodeInto[listTransfersOutput](t, h.json(alice, "Sallyport.ListTransfers", listTransfersInput{SessionID: "alice-2"})); len(out.Transfers) != 0 {
		t.Errorf("got %+v of another session", out)
	}
	for _, id := range []string{"alice-1", "none-1"} {
		if got := h.json(eve, "Sallyport.ListTransfers", listTransfersInput{SessionID: id}); got.code() != "AccessDeniedException" {
			t.Errorf("eve, %s: got %d %s", id, got.status, got.body)
		}
	}
}
