package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"sallyport.dev/client"
)

// chatServer answers what concerns chats: a code for mallory's account, whose name is
// made to look like something else.
type chatServer struct {
	mu     sync.Mutex
	linked []string
}

func (s *chatServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	body, _ := io.ReadAll(r.Body)
	account := client.ChatAccount{Service: "slack", Team: "T1", TeamName: "Example", User: "UMALLORY", Name: "bob\x1b[8m\r\n@mallory", UserName: "bob"}
	var out any = struct{}{}
	switch operation {
	case "GetStatus":
		out = map[string]string{"Principal": "arn:aws:iam::111111111111:user/bob"}
	case "GetChatCode":
		out = account
	case "LinkChat", "UnlinkChat":
		s.mu.Lock()
		s.linked = append(s.linked, operation+" "+string(body))
		s.mu.Unlock()
		out = account
	case "ListChatLinks":
		out = client.ListChatLinksOutput{Links: []client.ChatAccount{account}}
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(out)
}

func (s *chatServer) did() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.linked, "\n")
}

// Whose account a code is for is shown before anything is linked, whatever its name does.
func TestChatLink(t *testing.T) {
	s, chat := newAccessServer(t), &chatServer{}
	server := httptest.NewServer(chat)
	t.Cleanup(server.Close)
	s.url = server.URL

	status, _, stderr := s.run("chat", "link", "ABCD-EFGH-IJKL-MNOP")
	if status != statusUsage || !strings.Contains(stderr, "UMALLORY") || strings.Contains(stderr, "\x1b") || !strings.Contains(stderr, "give --account UMALLORY") {
		t.Errorf("without a terminal: got status %d, %q", status, stderr)
	}
	c := s.onTerminal("chat", "link", "ABCD-EFGH-IJKL-MNOP")
	c.want(`UMALLORY .*of workspace T1 .*to you, arn:aws:iam::111111111111:user/bob\?.*\[y/N\]`)
	c.typed("n\n")
	c.want(`nothing was linked`)
	c.ends(statusRefused)
	if got := chat.did(); got != "" {
		t.Fatalf("got %s, want nothing linked", got)
	}
	if status, _, stderr := s.run("chat", "link", "ABCD-EFGH-IJKL-MNOP", "--account", "UBOB"); status != statusDone {
		t.Errorf("got status %d, %q", status, stderr)
	}
	// The server refuses a code that is for another account than the one named.
	if got := chat.did(); !strings.Contains(got, `"User":"UBOB"`) {
		t.Errorf("got %s, want the account that was named", got)
	}
}

func TestChatListAndUnlink(t *testing.T) {
	s, chat := newAccessServer(t), &chatServer{}
	server := httptest.NewServer(chat)
	t.Cleanup(server.Close)
	s.url = server.URL

	status, stdout, _ := s.run("chat", "list")
	if status != statusDone || !strings.Contains(stdout, "UMALLORY") || strings.Contains(stdout, "\x1b") {
		t.Errorf("got status %d, %q", status, stdout)
	}
	if status, _, stderr := s.run("chat", "unlink"); status != statusUsage {
		t.Errorf("without --yes: got status %d, %q", status, stderr)
	}
	if status, _, stderr := s.run("chat", "unlink", "UNOBODY", "--yes"); status != statusUsage || !strings.Contains(stderr, "no such account") {
		t.Errorf("another: got status %d, %q", status, stderr)
	}
	if status, _, stderr := s.run("chat", "unlink", "--yes"); status != statusDone || !strings.Contains(chat.did(), `UnlinkChat {"Service":"slack","Team":"T1","User":"UMALLORY"}`) {
		t.Errorf("got status %d, %q, %s", status, stderr, chat.did())
	}
}
