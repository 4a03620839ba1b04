package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

const reviewFlows = `
flow "shell" {
  label = "Shells"
  ask {
    everyone = true
  }
  target "nodes" "front" {
    tags = { Department = ["FrontEnd"] }
  }
  stage "peers" {
    allow_self = true
    of {
      users = ["self", "peer"]
    }
  }
}
`

// reviewed are the findings of a review, in short.
func (h *harness) reviewed(c identity.Credentials) map[string][]string {
	h.t.Helper()
	out := decodeInto[reviewAccessOutput](h.t, h.json(c, "Sallyport.ReviewAccess", struct{}{}))
	found := map[string][]string{"silent": out.Silent}
	for _, s := range out.Standing {
		found["standing"] = append(found["standing"], fmt.Sprintf("%s %s by %s", s.Person, s.What, s.Policy))
	}
	for _, s := range out.Self {
		found["self"] = append(found["self"], strings.TrimSpace(s.Person+" "+s.Flow+": "+s.Why))
	}
	for _, k := range out.Keys {
		found["keys"] = append(found["keys"], k.Login+" "+k.Fingerprint)
	}
	for _, u := range out.Unused {
		found["unused"] = append(found["unused"], u.Person+" "+u.Flow)
	}
	return found
}

func TestReviewAccess(t *testing.T) {
	h, _ := withAccess(t)
	admin := h.user("admin", nil, allowAll)
	h.user("standing", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*"}]}`)
	h.user("forward", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*",
		"Condition":{"StringEquals":{"sallyport:RemoteHost":"db"}}}]}`)
	self := h.user("self", nil)
	h.user("gone", nil, allowAll)
	h.must(h.store.UpdateUser(t.Context(), "gone", func(u *identity.User) error { u.Disabled = true; return nil }))
	h.node(frontend1, identity.Tags{"Department": "FrontEnd", "Name": "frontend-1"})
	h.node(backend1, identity.Tags{"Department": "BackEnd"})
	decodeInto[putFlowsOutput](t, h.json(admin, "Sallyport.PutFlows", putFlowsInput{Files: map[string]string{"a.sallyport.hcl": reviewFlows}}))

	// A grant that self approves, and leaves unused.
	asked := decodeInto[accessRequest](t, h.json(self, "Sallyport.RequestAccess", map[string]any{"Flow": "shell", "Reason": "to look"}))
	got := h.json(self, "Sallyport.ApproveRequest", map[string]any{"RequestId": asked.RequestID, "Hash": asked.Hash})
	if got.code() != "" {
		t.Fatalf("approving oneself: %s", got.body)
	}

	found := h.reviewed(admin)
	want := map[string][]string{
		"standing": {
			"admin may start sessions on frontend-1 by inline policy p0 of user admin",
			"forward may start sessions on frontend-1 by ",
			"standing may start sessions on frontend-1 by inline policy p0 of user standing",
		},
		"unused": {"self shell"},
		"silent": {backend1, frontend1},
	}
	themselves := found["self"]
	delete(found, "self")
	for _, list := range found {
		slices.Sort(list)
	}
	if d := cmp.Diff(want, found); d != "" {
		t.Errorf("findings differ (-want +got):\n%s", d)
	}
	if len(themselves) != 2 || !strings.HasPrefix(themselves[0], "admin : may change who decides") || !strings.HasPrefix(themselves[1], "self shell: stage peers takes the approval") {
		t.Errorf("got %q", themselves)
	}
	if got := h.json(self, "Sallyport.ReviewAccess", struct{}{}); got.code() != "AccessDeniedException" {
		t.Errorf("reviewing without a right: %s", got.body)
	}
}

// A node tells which keys let in past the server: its own, and nobody else's. Those of
// active users are known here.
func TestReportAuthorizedKeys(t *testing.T) {
	h, _ := withAccess(t)
	admin := h.user("admin", nil, allowAll)
	m := h.agent()
	report := func(keys ...wire.AuthorizedKey) answer {
		return h.json(m.credentials, "Sallyport.ReportAuthorizedKeys", wire.ReportAuthorizedKeys{Keys: keys})
	}
	hostile := wire.AuthorizedKey{Login: "root", File: "/root/.ssh/authorized_keys", Fingerprint: "SHA256:x", Type: "ssh-ed25519", Comment: "a\x1b]0;b\nc"}
	if got := report(hostile); got.code() != "" {
		t.Fatalf("reporting: %s", got.body)
	}
	out := decodeInto[reviewAccessOutput](t, h.json(admin, "Sallyport.ReviewAccess", struct{}{}))
	if len(out.Keys) != 1 || out.Keys[0].NodeID != m.id || strings.ContainsAny(out.Keys[0].Comment, "\x1b\n") {
		t.Errorf("got %+v", out.Keys)
	}
	if got := report(make([]wire.AuthorizedKey, 1001)...); got.code() != "ValidationException" {
		t.Errorf("too many keys: %s", got.body)
	}
	if got := h.json(admin, "Sallyport.ReportAuthorizedKeys", wire.ReportAuthorizedKeys{}); got.code() != "AccessDeniedException" {
		t.Errorf("a person reports keys: %s", got.body)
	}
	if got := report(); got.code() != "" {
		t.Errorf("reporting none: %s", got.body)
	}
	if found := h.reviewed(admin); len(found["keys"]) != 0 {
		t.Errorf("got %v, want none", found["keys"])
	}
}
