package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sallyport.dev/agent/keysync"
)

// keyServer answers ListGroupSSHKeys and nothing else.
func keyServer(t *testing.T, answer func(in listKeys) (status int, body string)) keySource {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("X-Amz-Target"); got != "Sallyport.ListGroupSSHKeys" || !strings.Contains(r.Header.Get("Authorization"), "/sallyport/aws4_request") {
			t.Errorf("got a call of %q, signed %q", got, r.Header.Get("Authorization"))
		}
		var in listKeys
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		status, body := answer(in)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	a, err := New(Config{Servers: []string{server.URL}, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	a.identity.creds = credentials{id: "ASIA", secret: "s", token: "t", refresh: later, expires: later}
	return keySource{a}
}

func TestGroupKeysComeInPages(t *testing.T) {
	s := keyServer(t, func(in listKeys) (int, string) {
		n := len(in.NextToken)
		next := ""
		if n < 2 {
			next = in.NextToken + "x"
		}
		return 200, fmt.Sprintf(`{"Keys":[{"UserName":"u%d","SSHPublicKeyId":"APKA%[1]d","PublicKey":"k %s"}],"NextToken":%q}`, n, in.GroupName, next)
	})
	keys, err := s.GroupKeys(t.Context(), "ops")
	if err != nil || len(keys) != 3 || keys[2].User != "u2" || keys[2].PublicKey != "k ops" {
		t.Errorf("got %v, %v", keys, err)
	}
}

// A refusal is told from a server that is away or makes no sense.
func TestGroupKeysRefused(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		status     int
		refused    bool
	}{
		{"the tag does not name the group", `{"__type":"AccessDeniedException","message":"no"}`, 400, true},
		{"there is no such group", `{"__type":"DoesNotExistException","message":"no"}`, 400, true},
		{"the node is not known", `{"__type":"UnrecognizedClientException","message":"no"}`, 400, false},
		{"an older server", `{"__type":"UnknownOperationException","message":"no"}`, 400, false},
		{"trouble", `{"__type":"InternalServerError","message":"no"}`, 500, false},
		{"a proxy", `<html>AccessDenied</html>`, 403, false},
		{"nonsense", `[]`, 200, false},
		{"pages without end", `{"Keys":[],"NextToken":"x"}`, 200, false},
		{"keys without end", `{"Keys":[` + strings.Repeat(`{},`, 5000) + `{}],"NextToken":"x"}`, 200, false},
		{"a huge answer", strings.Repeat(" ", maxAnswer+1) + `{}`, 200, false},
	} {
		s := keyServer(t, func(listKeys) (int, string) { return tt.status, tt.body })
		keys, err := s.GroupKeys(t.Context(), "ops")
		if err == nil || len(keys) > 0 || errors.Is(err, keysync.ErrRefused) != tt.refused {
			t.Errorf("%s: got %d keys, %v, want refused %v", tt.name, len(keys), err, tt.refused)
		}
	}
}
