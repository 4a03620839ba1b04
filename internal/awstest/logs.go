package awstest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// The keys that Logs takes.
const (
	AccessKey = "AKIDEXAMPLE"
	SecretKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

// LogEvent is one event of a stream.
type LogEvent struct {
	Timestamp int64  `json:"timestamp"`
	Message   string `json:"message"`
}

// Logs is CloudWatch Logs in memory: JSON 1.1, signed calls and the limits of the API.
type Logs struct {
	URL string
	t   testing.TB

	mu       sync.Mutex
	groups   map[string]string                // KMS key by group
	streams  map[string]map[string][]LogEvent // by group and name
	fail     int                              // calls that are refused
	failCode string
	calls    map[string]int
	now      func() time.Time
}

// NewLogs starts a server.
func NewLogs(t testing.TB) *Logs {
	l := &Logs{t: t, groups: map[string]string{}, streams: map[string]map[string][]LogEvent{}, calls: map[string]int{}, now: time.Now}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	l.URL = server.URL
	return l
}

// SetNow sets the clock that ages are measured by.
func (l *Logs) SetNow(now func() time.Time) { l.mu.Lock(); defer l.mu.Unlock(); l.now = now }

// Group makes a log group, with a KMS key or none.
func (l *Logs) Group(name, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.groups[name] = key
}

// Fail refuses the next n calls with an error code.
func (l *Logs) Fail(n int, code string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail, l.failCode = n, code
}

// Calls counts calls of an operation.
func (l *Logs) Calls(operation string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[operation]
}

// Events returns a copy of a stream's events.
func (l *Logs) Events(group, stream string) []LogEvent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]LogEvent(nil), l.streams[group][stream]...)
}

type logsInput struct {
	LogGroupName       string     `json:"logGroupName"`
	LogGroupNamePrefix string     `json:"logGroupNamePrefix"`
	LogStreamName      string     `json:"logStreamName"`
	LogEvents          []LogEvent `json:"logEvents"`
}

// ServeHTTP implements http.Handler.
func (l *Logs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
	if err != nil {
		l.t.Errorf("reading a call: %v", err)
	}
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "Logs_20140328.")
	l.calls[operation]++
	if !signed(r, body) {
		l.t.Errorf("%s: bad signature", operation)
		logsError(w, "InvalidSignatureException")
		return
	}
	if l.fail > 0 {
		l.fail--
		logsError(w, l.failCode)
		return
	}
	var in logsInput
	if err := json.Unmarshal(body, &in); err != nil || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
		logsError(w, "SerializationException")
		return
	}
	out, code := l.do(operation, in)
	if code != "" {
		logsError(w, code)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if err := json.NewEncoder(w).Encode(out); err != nil {
		l.t.Errorf("answering: %v", err)
	}
}

func logsError(w http.ResponseWriter, code string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(http.StatusBadRequest)
	json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": "told to"})
}

func (l *Logs) do(operation string, in logsInput) (any, string) {
	switch operation {
	case "DescribeLogGroups":
		groups := []map[string]string{}
		for name, key := range l.groups {
			g := map[string]string{"logGroupName": name}
			if key != "" {
				g["kmsKeyId"] = key
			}
			if strings.HasPrefix(name, in.LogGroupNamePrefix) {
				groups = append(groups, g)
			}
		}
		return map[string]any{"logGroups": groups}, ""
	case "CreateLogStream":
		return l.create(in)
	case "PutLogEvents":
		return l.put(in)
	}
	return nil, "UnknownOperationException"
}

func (l *Logs) create(in logsInput) (any, string) {
	if _, ok := l.groups[in.LogGroupName]; !ok {
		return nil, "ResourceNotFoundException"
	}
	all := l.streams[in.LogGroupName]
	if all == nil {
		all = map[string][]LogEvent{}
		l.streams[in.LogGroupName] = all
	}
	if _, ok := all[in.LogStreamName]; ok {
		return nil, "ResourceAlreadyExistsException"
	}
	all[in.LogStreamName] = []LogEvent{}
	return struct{}{}, ""
}

// put takes events within the limits of the API.
func (l *Logs) put(in logsInput) (any, string) {
	have, ok := l.streams[in.LogGroupName][in.LogStreamName]
	if !ok {
		return nil, "ResourceNotFoundException"
	}
	size, last := 0, int64(0)
	for _, e := range in.LogEvents {
		if e.Timestamp < last || e.Message == "" || len(e.Message)+26 > 256<<10 {
			return nil, "InvalidParameterException"
		}
		size, last = size+len(e.Message)+26, e.Timestamp
	}
	n := len(in.LogEvents)
	if n == 0 || n > 10000 || size > 1<<20 || last-in.LogEvents[0].Timestamp > 24*3600*1000 {
		return nil, "InvalidParameterException"
	}
	old := 0
	for old < n && time.UnixMilli(in.LogEvents[old].Timestamp).Before(l.now().Add(-14*24*time.Hour)) {
		old++
	}
	l.streams[in.LogGroupName][in.LogStreamName] = append(have, in.LogEvents[old:]...)
	if old > 0 {
		return map[string]any{"rejectedLogEventsInfo": map[string]int{"tooOldLogEventEndIndex": old}}, ""
	}
	return struct{}{}, ""
}

// signed signs the call again and compares.
func signed(r *http.Request, body []byte) bool {
	given := r.Header.Get("Authorization")
	_, rest, _ := strings.Cut(given, "SignedHeaders=")
	names, _, _ := strings.Cut(rest, ",")
	_, scope, _ := strings.Cut(given, "Credential="+AccessKey+"/")
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	parts := strings.Split(scope, "/")
	if err != nil || len(parts) < 3 {
		return false
	}
	again := &http.Request{Method: r.Method, Host: r.Host, Header: http.Header{}, ContentLength: int64(len(body)),
		URL: &url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawQuery: r.URL.RawQuery}}
	for name := range strings.SplitSeq(names, ";") {
		if values := r.Header.Values(name); len(values) > 0 {
			again.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	sum := sha256.Sum256(body)
	credentials := aws.Credentials{AccessKeyID: AccessKey, SecretAccessKey: SecretKey}
	err = v4.NewSigner().SignHTTP(r.Context(), credentials, again, hex.EncodeToString(sum[:]), parts[2], parts[1], at)
	return err == nil && again.Header.Get("Authorization") == given
}
