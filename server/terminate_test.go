package server

import (
	"net/http"
	"strings"
	"testing"

	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

// A session ends with a reason that its person is told; the right is that of
// ssm:TerminateSession.
func TestTerminateForReason(t *testing.T) {
	r := newRestricted(t)
	alice := r.user("alice", nil, allow("ssm:StartSession", "*", ""))
	started := decodeInto[sessionOutput](t, r.startSession(alice, `{"Target":"NODE"}`))
	path := "/v1/data-channel/" + started.SessionID + "?role=publish_subscribe"
	client := r.open(identity.Credentials{}, path, wire.Opening{TokenValue: started.TokenValue})
	in := map[string]string{"SessionId": started.SessionID, "Reason": "the node is needed"}
	if got := r.json(alice, "Sallyport.TerminateSession", in); got.code() != "AccessDeniedException" || !strings.Contains(got.message(), "ssm:TerminateSession") {
		t.Errorf("without the right: got %s %s", got.code(), got.message())
	}
	if got := r.json(r.admin, "Sallyport.TerminateSession", map[string]string{"SessionId": started.SessionID, "Reason": "a\x1b[2J"}); got.code() != "ValidationException" {
		t.Errorf("a reason for the terminal: got %s %s", got.code(), got.message())
	}
	if got := r.json(r.admin, "Sallyport.TerminateSession", in); got.status != http.StatusOK {
		t.Fatalf("got %s", got.body)
	}
	want := "Session terminated by arn:aws:iam::111111111111:user/admin: the node is needed."
	if m := r.read(client, wire.TypeChannelClosed); !strings.Contains(string(m.Payload), want) {
		t.Errorf("the person was told %s, want %q", m.Payload, want)
	}
}
