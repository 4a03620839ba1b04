package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/notify"
)

// chatCode gives out a code for an account, as a chat does.
func (h *harness) chatCode(user, code string) {
	h.t.Helper()
	sum := sha256.Sum256([]byte("sallyport chat code " + strings.ReplaceAll(code, "-", "")))
	h.must(h.store.PutLinkCode(context.Background(), notify.LinkCode{
		Account: notify.Account{Service: "slack", Team: "T1", User: user}, Hash: hex.EncodeToString(sum[:]),
		Name: "Bob @bob", In: "Example", Expires: h.clock().Add(10 * time.Minute),
	}))
}

type codeInput struct{ Code, User string }

// A code shows whom it links, links once, and only to the user who runs it.
func TestLinkChat(t *testing.T) {
	h := newHarness(t)
	bob, eve := h.user("bob", nil), h.user("eve", nil)
	const code = "ABCD-EFGH-IJKL-MNOP"
	h.chatCode("U1", code)

	var shown struct{ Service, Team, TeamName, User, Name, UserName string }
	got := h.json(bob, "Sallyport.GetChatCode", codeInput{Code: strings.ToLower(code)})
	h.must(json.Unmarshal([]byte(got.body), &shown))
	if shown.User != "U1" || shown.Name != "Bob @bob" || shown.TeamName != "Example" {
		t.Errorf("got %s", got.body)
	}
	if got := h.json(bob, "Sallyport.LinkChat", codeInput{code, "U2"}); got.status == 200 {
		t.Errorf("for another account than was shown: got %s", got.body)
	}
	if got := h.json(bob, "Sallyport.LinkChat", codeInput{code, "U1"}); got.status != 200 || !strings.Contains(got.body, `"UserName":"bob"`) {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if got := h.json(eve, "Sallyport.LinkChat", codeInput{code, "U1"}); got.status == 200 {
		t.Errorf("a second time: got %s", got.body)
	}
	records := h.audited(audit.EventChange)
	if len(records) != 1 || records[0].Details["account"] != "U1" || records[0].Details["user"] != "bob" {
		t.Errorf("recorded %+v", records)
	}
	for _, r := range append(records, h.audited(audit.EventDecision)...) {
		if text, _ := json.Marshal(r); strings.Contains(string(text), "ABCD") {
			t.Errorf("the code went into the audit log: %s", text)
		}
	}

	h.chatCode("U3", code)
	h.advance(10 * time.Minute)
	if got := h.json(eve, "Sallyport.LinkChat", codeInput{code, "U3"}); got.status == 200 {
		t.Errorf("after ten minutes: got %s", got.body)
	}
}

// In a role nobody links: who is behind it would be bound by what a role may do.
func TestLinkChatInRole(t *testing.T) {
	h := newHarness(t)
	alice := h.user("alice", nil, allowAll)
	h.role("Ops", trustAccount, allowAll)
	in := h.query(alice, "sts", "AssumeRole", "RoleArn", "arn:aws:iam::111111111111:role/Ops", "RoleSessionName", "one").credentials()
	h.chatCode("U1", "ABCD-EFGH-IJKL-MNOP")
	if got := h.json(in, "Sallyport.LinkChat", codeInput{"ABCD-EFGH-IJKL-MNOP", "U1"}); got.code() != "AccessDeniedException" {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// One sees and ends one's own links; those of others by policy.
func TestChatLinks(t *testing.T) {
	h := newHarness(t)
	bob, eve, root := h.user("bob", nil), h.user("eve", nil), h.user("root", nil, allowAll)
	link := func(c identity.Credentials, user string) {
		t.Helper()
		h.chatCode(user, "ABCD-EFGH-IJKL-MNOP")
		if got := h.json(c, "Sallyport.LinkChat", codeInput{"ABCD-EFGH-IJKL-MNOP", user}); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	link(bob, "U1")
	link(eve, "U2")
	if got := h.json(bob, "Sallyport.ListChatLinks", `{}`); !strings.Contains(got.body, `"U1"`) || strings.Contains(got.body, `"U2"`) {
		t.Errorf("bob's: got %s", got.body)
	}
	for _, in := range []string{`{"Everyone":true}`, `{"UserName":"bob"}`} {
		if got := h.json(eve, "Sallyport.ListChatLinks", in); got.code() != "AccessDeniedException" {
			t.Errorf("eve lists %s: got %d %s", in, got.status, got.body)
		}
	}
	if got := h.json(root, "Sallyport.ListChatLinks", `{"Everyone":true}`); !strings.Contains(got.body, `"U1"`) || !strings.Contains(got.body, `"eve"`) {
		t.Errorf("all: got %s", got.body)
	}
	unlink := func(user string) map[string]string {
		return map[string]string{"Service": "slack", "Team": "T1", "User": user}
	}
	for _, user := range []string{"U1", "U9"} {
		if got := h.json(eve, "Sallyport.UnlinkChat", unlink(user)); got.code() != "AccessDeniedException" {
			t.Errorf("eve unlinks %s: got %d %s", user, got.status, got.body)
		}
	}
	for who, c := range map[string]identity.Credentials{"U2": eve, "U1": root} {
		if got := h.json(c, "Sallyport.UnlinkChat", unlink(who)); got.status != 200 {
			t.Errorf("unlinking %s: got %d %s", who, got.status, got.body)
		}
	}
	if got := h.json(root, "Sallyport.ListChatLinks", `{"Everyone":true}`); strings.Contains(got.body, `"U1"`) {
		t.Errorf("afterwards: got %s", got.body)
	}
}
