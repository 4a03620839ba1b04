package sallyporttest_test

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"sallyport.dev/agent"
	"sallyport.dev/audit"
	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
)

// spanCollector is an OpenTelemetry collector that keeps the spans it is sent.
type spanCollector struct {
	mu    sync.Mutex
	spans []*otlp.Span
}

func (c *spanCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(r.Body)
	}
	data, err := io.ReadAll(body)
	var request collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(data, &request) != nil {
		http.Error(w, "no spans", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range request.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			c.spans = append(c.spans, ss.Spans...)
		}
	}
}

// trace returns the names of a trace's spans.
func (c *spanCollector) trace(id string) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if hex.EncodeToString(s.TraceId) == id {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return names
}

// A session is one trace from StartSession to the node and back, whose id the audit log
// and the logs of server and agent bear, too.
func TestTrace(t *testing.T) {
	c := &spanCollector{}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	var serverLog, agentLog lockedText
	s := sallyporttest.Start(t, "a", sallyporttest.Options{Configure: func(m *member.Config) {
		m.Tracing = &member.Tracing{Endpoint: server.URL + "/v1/traces"}
		m.Logger = slog.New(slog.NewTextHandler(&serverLog, nil))
	}})
	s.NodeWith("i-00000000000000001", nil, func(a *agent.Config) { a.Logger = slog.New(slog.NewTextHandler(&agentLog, nil)) })
	s.Shell(s.User("alice", nil, sallyporttest.Everything), "i-00000000000000001", "exit\n")

	records, err := s.Store.Audit(t.Context(), audit.Filter{Event: audit.EventSessionStart})
	if err != nil || len(records) != 1 {
		t.Fatalf("audit: got %d records and %v, want one session", len(records), err)
	}
	request := records[0].RequestID
	id := strings.ReplaceAll(request, "-", "")
	decisions, err := s.Store.Audit(t.Context(), audit.Filter{Action: "ssm:StartSession"})
	if err != nil || len(decisions) == 0 || decisions[0].RequestID != request {
		t.Errorf("audit: the decision has another request id than the session, or there is none (%v)", err)
	}
	if !strings.Contains(serverLog.String(), request) || !strings.Contains(agentLog.String(), id) {
		t.Errorf("server's or agent's log does not name %s", request)
	}
	s.Stop() // sends what waits
	want := []string{"authorize", "await client", "open session", "ssm:StartSession", "start on node"}
	if got := c.trace(id); !slices.Equal(slices.Compact(got), want) {
		t.Errorf("spans: got %q, want %q", got, want)
	}
}

// lockedText collects a log.
type lockedText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
