package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/internal/readalong"
	"sallyport.dev/internal/seal"
	"sallyport.dev/node"
	"sallyport.dev/store"
	"sallyport.dev/store/storetest"
)

// harness is a server on a real store, with a clock that tests turn.
type harness struct {
	t      testing.TB
	server *Server
	http   *httptest.Server
	store  *store.Store
	key    *seal.Key
	logs   *readalong.Text

	mu  sync.Mutex
	now time.Time
}

var testRealm = arn.Realm{Account: "111111111111", Region: "us-east-1"}

func newHarness(t testing.TB, changes ...func(*Config)) *harness {
	t.Helper()
	ctx := context.Background()
	h := &harness{t: t, now: time.Now().Truncate(time.Second), logs: &readalong.Text{}}
	logger := slog.New(slog.NewTextHandler(h.logs, nil))
	var err error
	if h.store, err = store.Open(ctx, storetest.File(t), store.Options{Logger: logger}); err != nil {
		t.Fatal(err)
	}
	log, err := audit.New(ctx, h.store, "m1", h.clock, logger)
	if err != nil {
		t.Fatal(err)
	}
	if h.key, err = seal.New(bytes.Repeat([]byte{7}, seal.KeySize)); err != nil {
		t.Fatal(err)
	}
	config := Config{
		Realm: testRealm, Identities: h.store, Nodes: h.store, Sessions: h.store, Documents: h.store,
		Audit: log, AuditStore: h.store, Sealer: h.key, Logger: logger, Now: h.clock, Chats: h.store,
	}
	for _, change := range changes {
		change(&config)
	}
	if h.server, err = New(config); err != nil {
		t.Fatal(err)
	}
	h.http = httptest.NewServer(h.server)
	t.Cleanup(func() {
		h.http.Close()
		h.server.Close()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		if err := h.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *harness) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *harness) advance(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// user makes a user with tags and inline policies, and returns a key of theirs.
func (h *harness) user(name string, tags identity.Tags, policies ...string) identity.Credentials {
	h.t.Helper()
	ctx := context.Background()
	h.must(h.store.CreateUser(ctx, identity.User{
		Name: name, ID: identity.NewUserID(), Path: "/", Created: h.clock(), Tags: tags,
	}))
	h.inline(identity.Owner{Kind: identity.OwnerUser, Name: name}, policies...)
	key, secret := identity.NewAccessKey(h.key, name, h.clock())
	h.must(h.store.CreateAccessKey(ctx, key, 2))
	return identity.Credentials{AccessKeyID: key.ID, SecretAccessKey: secret}
}

// role makes a role that trust (a policy) lets others assume.
func (h *harness) role(name, trust string, policies ...string) identity.Role {
	h.t.Helper()
	role := identity.Role{
		Name: name, ID: identity.NewRoleID(), Path: "/", Created: h.clock(),
		Trust: trust, MaxDuration: 2 * time.Hour,
	}
	h.must(h.store.CreateRole(context.Background(), role))
	h.inline(identity.Owner{Kind: identity.OwnerRole, Name: name}, policies...)
	return role
}

func (h *harness) inline(o identity.Owner, policies ...string) {
	h.t.Helper()
	for i, p := range policies {
		h.must(h.store.PutInlinePolicy(context.Background(), identity.InlinePolicy{
			Owner: o, Name: "p" + string(rune('0'+i)), Document: p,
		}))
	}
}

// node registers a node that is not connected.
func (h *harness) node(id string, tags identity.Tags) {
	h.t.Helper()
	ctx := context.Background()
	code, hash := node.NewCode()
	_ = code
	activation := node.Activation{
		ID: node.NewActivationID(), CodeHash: hash, Limit: 1, NodeIDs: []string{id},
		Created: h.clock(), Expires: h.clock().Add(time.Hour), Tags: tags,
	}
	h.must(h.store.CreateActivation(ctx, activation))
	_, err := h.store.Register(ctx, node.Node{ActivationID: activation.ID, Registered: h.clock(), Tags: tags}, h.clock(), node.NewID)
	h.must(err)
}

func (h *harness) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// answer is what a call got.
type answer struct {
	status int
	header http.Header
	body   string
}

// json calls an operation of a JSON service.
func (h *harness) json(c identity.Credentials, target string, in any) answer {
	h.t.Helper()
	return h.send(h.signed(c, h.jsonRequest(target, in)))
}

func (h *harness) jsonRequest(target string, in any) *http.Request {
	h.t.Helper()
	body, ok := in.(string)
	if !ok {
		b, err := json.Marshal(in)
		h.must(err)
		body = string(b)
	}
	r := h.request(http.MethodPost, body)
	r.Header.Set("Content-Type", contentJSON)
	r.Header.Set("X-Amz-Target", target)
	return r
}

// query calls an operation of a Query service; fields are names and values by turns.
func (h *harness) query(c identity.Credentials, service, operation string, fields ...string) answer {
	h.t.Helper()
	return h.send(h.signedFor(c, service, h.queryRequest(operation, fields...)))
}

func (h *harness) queryRequest(operation string, fields ...string) *http.Request {
	form := url.Values{"Action": {operation}, "Version": {"2011-06-15"}}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	r := h.request(http.MethodPost, form.Encode())
	r.Header.Set("Content-Type", contentForm+"; charset=utf-8")
	return r
}

func (h *harness) request(method, body string) *http.Request {
	h.t.Helper()
	r, err := http.NewRequest(method, h.http.URL+"/", strings.NewReader(body))
	h.must(err)
	return r
}

// signed signs for the service that the request's target belongs to.
func (h *harness) signed(c identity.Credentials, r *http.Request) *http.Request {
	prefix, _, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	s, ok := h.server.table.byTarget(prefix)
	if !ok {
		s.name = "ssm"
	}
	return h.signedFor(c, s.name, r)
}

func (h *harness) signedFor(c identity.Credentials, service string, r *http.Request) *http.Request {
	h.t.Helper()
	return h.signedAt(c, service, r, h.clock())
}

func (h *harness) signedAt(c identity.Credentials, service string, r *http.Request, at time.Time) *http.Request {
	h.t.Helper()
	h.must(v4.NewSigner().SignHTTP(context.Background(), awsCredentials(c), r, bodyHash(h.t, r), service, testRealm.Region, at))
	return r
}

func awsCredentials(c identity.Credentials) aws.Credentials {
	return aws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken}
}

func bodyHash(t testing.TB, r *http.Request) string {
	t.Helper()
	if r.GetBody == nil {
		sum := sha256.Sum256(nil)
		return hex.EncodeToString(sum[:])
	}
	body, err := r.GetBody()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (h *harness) send(r *http.Request) answer {
	h.t.Helper()
	resp, err := h.http.Client().Do(r)
	h.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	h.must(err)
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// code returns the error code of an answer, of either codec; empty for success.
func (a answer) code() string {
	if a.status < 300 {
		return ""
	}
	var e struct {
		Type string `json:"__type"`
	}
	if json.Unmarshal([]byte(a.body), &e) == nil {
		return e.Type
	}
	return a.element("Code")
}

// message returns the error message of an answer, of either codec.
func (a answer) message() string {
	var e struct {
		Message string `json:"message"`
	}
	if json.Unmarshal([]byte(a.body), &e) == nil {
		return e.Message
	}
	return a.element("Message")
}

// element returns the text of the first element of a name in an XML answer.
func (a answer) element(name string) string {
	_, rest, found := strings.Cut(a.body, "<"+name+">")
	if !found {
		return ""
	}
	text, _, _ := strings.Cut(rest, "</"+name+">")
	return strings.NewReplacer("&lt;", "<", "&gt;", ">", "&#39;", "'", "&#34;", `"`, "&amp;", "&").Replace(text)
}

// credentials returns the temporary credentials in an answer of STS.
func (a answer) credentials() identity.Credentials {
	return identity.Credentials{
		AccessKeyID: a.element("AccessKeyId"), SecretAccessKey: a.element("SecretAccessKey"),
		SessionToken: a.element("SessionToken"),
	}
}

// audited returns the audit records of an event, oldest first.
func (h *harness) audited(event string) []audit.Record {
	h.t.Helper()
	records, err := h.store.Audit(context.Background(), audit.Filter{Event: event})
	h.must(err)
	return records
}

const allowAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
