package server

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport.dev/session"
)

func TestDescribeSessions(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	for i, v := range []session.Session{
		{ID: "alice-00000000000000001", NodeID: channelNode, State: session.StateConnected, Owner: "arn:alice"},
		{ID: "alice-00000000000000002", NodeID: otherNode, State: session.StateDisconnected, Owner: "arn:alice"},
		{ID: "bob-00000000000000003", NodeID: channelNode, State: session.StateTerminated, Owner: "arn:bob", EndReason: "exit"},
		{ID: "bob-00000000000000004", NodeID: channelNode, State: session.StateFailed, Owner: "arn:bob", EndReason: "failed"},
	} {
		v.Started, v.Document = h.clock().Add(time.Duration(i)*time.Hour), "SSM-SessionManagerRunShell"
		h.must(h.store.CreateSession(context.Background(), v))
	}
	for _, test := range []struct {
		state   string
		filters string
		want    string // last digits, newest first
	}{
		{"Active", ``, "2 1"},
		{"History", ``, "4 3"},
		{"Active", `{"key":"Target","value":"` + otherNode + `"}`, "2"},
		{"Active", `{"key":"Owner","value":"arn:bob"}`, ""},
		{"History", `{"key":"Status","value":"Failed"}`, "4"},
		{"History", `{"key":"SessionId","value":"bob-00000000000000003"}`, "3"},
		{"Active", `{"key":"Target","value":"` + otherNode + `"},{"key":"Target","value":"` + channelNode + `"}`, ""},
		{"Active", `{"key":"AccessType","value":"JustInTime"}`, ""},
		{"Active", `{"key":"InvokedAfter","value":"` + h.clock().Add(30*time.Minute).UTC().Format(time.RFC3339) + `"}`, "2"},
		{"Active", `{"key":"InvokedBefore","value":"` + h.clock().Add(30*time.Minute).UTC().Format(time.RFC3339) + `"}`, "1"},
	} {
		t.Run(test.state+test.filters, func(t *testing.T) {
			body := fmt.Sprintf(`{"State":%q}`, test.state)
			if test.filters != "" {
				body = fmt.Sprintf(`{"State":%q,"Filters":[%s]}`, test.state, test.filters)
			}
			got := h.json(admin, "AmazonSSM.DescribeSessions", body)
			var ids []string
			for _, part := range strings.Split(got.body, `"SessionId":"`)[1:] {
				id, _, _ := strings.Cut(part, `"`)
				ids = append(ids, id[len(id)-1:])
			}
			if strings.Join(ids, " ") != test.want || got.status != 200 {
				t.Errorf("got %q (%d %s), want %q", ids, got.status, got.body, test.want)
			}
		})
	}
	for body, want := range map[string]string{
		`{"State":"Other"}`: "ValidationException",
		`{"State":"Active","Filters":[{"key":"Nothing","value":"x"}]}`:              "ValidationException",
		`{"State":"Active","Filters":[{"key":"InvokedAfter","value":"yesterday"}]}`: "ValidationException",
		`{"State":"Active","NextToken":"forged"}`:                                   "InvalidNextToken",
	} {
		if got := h.json(admin, "AmazonSSM.DescribeSessions", body); got.code() != want {
			t.Errorf("%s: got %d %s, want %s", body, got.status, got.body, want)
		}
	}
	first := h.json(admin, "AmazonSSM.DescribeSessions", `{"State":"Active","MaxResults":1}`)
	_, rest, _ := strings.Cut(first.body, `"NextToken":"`)
	token, _, _ := strings.Cut(rest, `"`)
	second := h.json(admin, "AmazonSSM.DescribeSessions", fmt.Sprintf(`{"State":"Active","MaxResults":1,"NextToken":%q}`, token))
	if !strings.Contains(first.body, "00002") || !strings.Contains(second.body, "00001") || strings.Contains(second.body, "NextToken") {
		t.Errorf("pages: got %s and %s", first.body, second.body)
	}
}

// A session that its ends would encrypt is refused with the reason, unless configured.
func TestEncryptedDocumentsAreRefused(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, nil)
	admin := r.user("admin", nil, allowAll)
	content := `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"kmsKeyId":"alias/x"}}`
	if got := r.json(admin, "AmazonSSM.CreateDocument", map[string]any{"Name": "Encrypted", "DocumentType": "Session", "Content": content}); got.status != 200 {
		t.Fatalf("CreateDocument: %d %s", got.status, got.body)
	}
	got := r.json(admin, "AmazonSSM.StartSession", map[string]any{"Target": channelNode, "DocumentName": "Encrypted"})
	if got.code() != "InvalidDocument" || !strings.Contains(got.message(), "sessions.encrypted") {
		t.Errorf("got %s %q", got.code(), got.message())
	}
}

// Attack: a session whose document has it written to S3 is encrypted between its ends, so
// that nothing would be written. It does not begin.
func TestEncryptedDocumentsAreNotLeftOutOfLogs(t *testing.T) {
	r := newRelayed(t, func(c *Config) { c.Encrypted = session.EncryptionUnrecorded })
	r.node(channelNode, nil)
	admin := r.user("admin", nil, allowAll)
	content := `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"kmsKeyId":"alias/x","s3BucketName":"logs"}}`
	if got := r.json(admin, "AmazonSSM.CreateDocument", map[string]any{"Name": "Logged", "DocumentType": "Session", "Content": content}); got.status != 200 {
		t.Fatalf("CreateDocument: %d %s", got.status, got.body)
	}
	got := r.json(admin, "AmazonSSM.StartSession", map[string]any{"Target": channelNode, "DocumentName": "Logged"})
	if got.code() != "InvalidDocument" || !strings.Contains(got.message(), "This server cannot read those") {
		t.Errorf("got %s %q", got.code(), got.message())
	}
}
