package server

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/identity"
)

// Requests that a thief, a proxy or a replayer changed are refused, each with AWS's
// code, and none of them runs.
func TestForgedRequests(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	other := h.user("other", nil)
	h.role("Ops", trustAccount, allowAll)
	assume := func(c identity.Credentials) identity.Credentials {
		return h.query(c, "sts", "AssumeRole", "RoleArn", "arn:aws:iam::111111111111:role/Ops", "RoleSessionName", "one").credentials()
	}
	session, second := assume(admin), assume(admin)
	status := func() *http.Request { return h.jsonRequest("Sallyport.GetStatus", struct{}{}) }
	sign := func(c identity.Credentials) *http.Request { return h.signed(c, status()) }
	for _, test := range []struct {
		name string
		make func() *http.Request
		code string
	}{
		{"not signed", status, "MissingAuthenticationTokenException"},
		{"an unknown key", func() *http.Request {
			return sign(identity.Credentials{AccessKeyID: "AKIAAAAAAAAAAAAAAAAA", SecretAccessKey: "x"})
		}, "UnrecognizedClientException"},
		{"another's secret", func() *http.Request {
			return sign(identity.Credentials{AccessKeyID: admin.AccessKeyID, SecretAccessKey: other.SecretAccessKey})
		}, "InvalidSignatureException"},
		{"a changed body", func() *http.Request {
			r := sign(admin)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("[]")), 2
			return r
		}, "InvalidSignatureException"},
		{"a changed operation", func() *http.Request {
			r := sign(admin)
			r.Header.Set("X-Amz-Target", "Sallyport.QueryAudit")
			return r
		}, "InvalidSignatureException"},
		{"an operation that was not signed", func() *http.Request {
			r := status()
			r.Header.Del("X-Amz-Target")
			r = h.signedFor(admin, "sallyport", r)
			r.Header.Set("X-Amz-Target", "Sallyport.QueryAudit")
			return r
		}, "InvalidSignatureException"},
		{"a changed host", func() *http.Request {
			r := sign(admin)
			r.Host = "elsewhere.example"
			return r
		}, "InvalidSignatureException"},
		{"a changed query", func() *http.Request {
			r := sign(admin)
			r.URL.RawQuery = "Action=GetCallerIdentity"
			return r
		}, "InvalidSignatureException"},
		{"replayed after five minutes", func() *http.Request {
			return h.signedAt(admin, "sallyport", status(), h.clock().Add(-5*time.Minute-time.Second))
		}, "InvalidSignatureException"},
		{"from the future", func() *http.Request {
			return h.signedAt(admin, "sallyport", status(), h.clock().Add(5*time.Minute+time.Second))
		}, "InvalidSignatureException"},
		{"another service's scope", func() *http.Request { return h.signedFor(admin, "iam", status()) }, "InvalidSignatureException"},
		{"another region's scope", func() *http.Request {
			r := status()
			h.must(v4.NewSigner().SignHTTP(context.Background(), awsCredentials(admin), r, bodyHash(t, r), "sallyport", "eu-west-1", h.clock()))
			return r
		}, "InvalidSignatureException"},
		{"two Authorization headers", func() *http.Request {
			r := sign(admin)
			r.Header.Add("Authorization", r.Header.Get("Authorization"))
			return r
		}, "IncompleteSignatureException"},
		{"two dates", func() *http.Request {
			r := sign(admin)
			r.Header.Add("X-Amz-Date", "20200101T000000Z")
			return r
		}, "IncompleteSignatureException"},
		{"two operations", func() *http.Request {
			r := sign(admin)
			r.Header.Add("X-Amz-Target", "Sallyport.QueryAudit")
			return r
		}, "UnknownOperationException"},
		{"signed in header and query", func() *http.Request {
			r := sign(admin)
			r.URL.RawQuery = "X-Amz-Signature=00"
			return r
		}, "IncompleteSignatureException"},
		{"a scope with too many parts", func() *http.Request {
			r := sign(admin)
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "/aws4_request", "/x/aws4_request", 1))
			return r
		}, "IncompleteSignatureException"},
		{"no SignedHeaders", func() *http.Request {
			r := sign(admin)
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "SignedHeaders", "Signed", 1))
			return r
		}, "IncompleteSignatureException"},
		{"the host not signed", func() *http.Request {
			r := sign(admin)
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), ";host;", ";", 1))
			return r
		}, "InvalidSignatureException"},
		{"an unsigned payload", func() *http.Request {
			r := status()
			r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
			h.must(v4.NewSigner().SignHTTP(context.Background(), awsCredentials(admin), r, "UNSIGNED-PAYLOAD", "sallyport", "us-east-1", h.clock()))
			return r
		}, "InvalidSignatureException"},
		{"temporary credentials without their token", func() *http.Request {
			c := session
			c.SessionToken = ""
			return sign(c)
		}, "UnrecognizedClientException"},
		{"another session's token", func() *http.Request {
			c := session
			c.SessionToken = second.SessionToken
			return sign(c)
		}, "UnrecognizedClientException"},
		{"a changed token", func() *http.Request {
			c := session
			b, _ := base64.StdEncoding.DecodeString(c.SessionToken)
			b[len(b)/2] ^= 1
			c.SessionToken = base64.StdEncoding.EncodeToString(b)
			return sign(c)
		}, "UnrecognizedClientException"},
		{"a token beside a long-lived key", func() *http.Request {
			c := admin
			c.SessionToken = session.SessionToken
			return sign(c)
		}, "UnrecognizedClientException"},
		{"a node's id as key, without the node's key", func() *http.Request {
			return sign(identity.Credentials{AccessKeyID: "mi-0123456789abcdef0", SecretAccessKey: "x"})
		}, "UnrecognizedClientException"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := h.send(test.make())
			if got.code() != test.code {
				t.Errorf("got %d %s, want %s", got.status, got.body, test.code)
			}
		})
	}
	if records := h.audited(audit.EventLogin); len(records) == 0 {
		t.Error("no refused login was recorded")
	}
	if strings.Contains(h.logs.String(), admin.SecretAccessKey) {
		t.Error("a secret is in the log")
	}
}

func TestPresigned(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	presign := func(seconds, target string) *http.Request {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, h.http.URL+"/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires="+seconds, nil)
		h.must(err)
		signed, _, err := v4.NewSigner().PresignHTTP(context.Background(), awsCredentials(admin), r, bodyHash(t, r), "sts", "us-east-1", h.clock())
		h.must(err)
		r, err = http.NewRequest(http.MethodGet, signed, nil)
		h.must(err)
		if target != "" {
			r.Header.Set("X-Amz-Target", target)
		}
		return r
	}
	if got := h.send(presign("60", "")); got.status != 200 {
		t.Errorf("got %d %s", got.status, got.body)
	}
	for _, test := range []struct {
		name string
		make func() *http.Request
		code string
	}{
		{"over", func() *http.Request {
			r := presign("60", "")
			h.advance(61 * time.Second)
			return r
		}, "SignatureDoesNotMatch"},
		{"for longer than a week", func() *http.Request { return presign("604801", "") }, "IncompleteSignature"},
		{"with an unsigned operation", func() *http.Request { return presign("60", "Sallyport.QueryAudit") }, "SerializationException"},
		{"with a changed action", func() *http.Request {
			r := presign("60", "")
			r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "GetCallerIdentity", "GetSessionToken", 1)
			return r
		}, "SignatureDoesNotMatch"},
		{"without a signature", func() *http.Request { return h.request(http.MethodGet, "") }, "MethodNotAllowed"},
	} {
		got := h.send(test.make())
		if got.code() != test.code && !strings.HasPrefix(got.code(), test.code) {
			t.Errorf("%s: got %d %s, want %s", test.name, got.status, got.body, test.code)
		}
	}
}

func TestBadRequests(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	for _, test := range []struct {
		name, target, body string
		code, message      string
	}{
		{"not JSON", "Sallyport.GetSession", `{`, "SerializationException", "not valid JSON"},
		{"text after the JSON", "Sallyport.GetSession", `{}{}`, "SerializationException", "after its JSON"},
		{"a list", "Sallyport.GetSession", `[]`, "SerializationException", "must be a structure, not a list"},
		{"a wrong type", "Sallyport.GetSession", `{"SessionId":5}`, "SerializationException", "sessionId must be a string, not a number"},
		{"a wrong number", "Sallyport.ListNodes", `{"MaxResults":1.5}`, "SerializationException", "maxResults must be a whole number"},
		{"a number too large", "Sallyport.ListNodes", `{"MaxResults":1e999}`, "SerializationException", "whole number"},
		{"a null list entry", "Sallyport.ListNodes", `{"Filters":[null]}`, "SerializationException", "without nulls"},
		{"a deep structure", "Sallyport.ListNodes", strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000), "SerializationException", "nested too deeply"},
		{"a missing member", "Sallyport.GetSession", `{}`, "ValidationException",
			"1 validation error detected: Value null at 'sessionId' failed to satisfy constraint: Member must not be null"},
		{"a null member", "Sallyport.GetSession", `{"SessionId":null}`, "ValidationException", "Member must not be null"},
		{"an empty member", "Sallyport.GetSession", `{"SessionId":""}`, "ValidationException",
			"Value '' at 'sessionId' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"a long member", "Sallyport.GetSession", `{"SessionId":"` + strings.Repeat("é", 97) + `"}`, "ValidationException",
			"Member must have length less than or equal to 96"},
		{"not of the enumeration", "Sallyport.ListSessions", `{"State":"Old"}`, "ValidationException",
			"Value 'Old' at 'state' failed to satisfy constraint: Member must satisfy enum value set: [, Active, History]"},
		{"a bad pattern inside a list", "Sallyport.ListNodes", `{"Filters":[{"Key":"","Values":["x"]}]}`, "ValidationException",
			"'filters.1.member.key'"},
		{"two errors", "Sallyport.ListNodes", `{"MaxResults":0,"Filters":[{"Values":[]}]}`, "ValidationException", "3 validation errors detected"},
		{"a foreign token", "Sallyport.ListNodes", `{"NextToken":"abc"}`, "InvalidNextToken", "ListNodes"},
		{"an unknown operation", "Sallyport.Fly", `{}`, "UnknownOperationException", `sallyport has no operation "Fly". It has: ActivateRequest, `},
		{"an unknown service", "Other.Fly", `{}`, "UnknownOperationException", "AmazonSSM, EC2WindowsMessageDeliveryService, Sallyport"},
		{"no operation", "Sallyport", `{}`, "UnknownOperationException", "names no operation"},
	} {
		got := h.json(admin, test.target, test.body)
		if got.code() != test.code || !strings.Contains(got.message(), test.message) {
			t.Errorf("%s: got %d %s, want %s with %q", test.name, got.status, got.body, test.code, test.message)
		}
	}
	if got := h.json(admin, "Sallyport.ListNodes", `{"Unknown":{"a":[1]}}`); got.status != 200 {
		t.Errorf("an unknown member: got %d %s", got.status, got.body)
	}
}

func TestBadForms(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	var bomb strings.Builder
	for i := range 100000 {
		fmt.Fprintf(&bomb, "&a%d", i)
	}
	for _, test := range []struct{ name, body, code, message string }{
		{"an unknown operation", "Action=Fly", "InvalidAction", `sts has no operation "Fly". It has: AssumeRole, GetCallerIdentity`},
		{"no operation", "", "InvalidAction", "names no operation"},
		{"bad escapes", "Action=%zz", "MalformedQueryString", "not a valid form"},
		{"a field twice", "Action=GetCallerIdentity&Action=AssumeRole", "MalformedQueryString", "twice"},
		{"very many fields", "Action=GetCallerIdentity" + bomb.String(), "MalformedQueryString", "at most 4096"},
		{"a deep name", "Action=GetCallerIdentity&a" + strings.Repeat(".a", 100), "MalformedQueryString", "too deeply"},
		{"a wrong number", "Action=GetSessionToken&DurationSeconds=soon", "MalformedInput", "durationSeconds must be a whole number"},
		{"a list numbered from nought", "Action=AssumeRole&Tags.member.0.Key=a", "MalformedInput", "numbered from 1"},
		{"missing members", "Action=AssumeRole", "ValidationError",
			"2 validation errors detected: Value null at 'roleArn' failed to satisfy constraint: Member must not be null; Value null at 'roleSessionName'"},
	} {
		r := h.request(http.MethodPost, test.body)
		r.Header.Set("Content-Type", contentForm)
		got := h.send(h.signedFor(admin, "sts", r))
		if got.code() != test.code || !strings.Contains(got.message(), test.message) {
			t.Errorf("%s: got %d %.300s, want %s with %q", test.name, got.status, got.body, test.code, test.message)
		}
	}
	r := h.request(http.MethodPost, "Action=GetCallerIdentity")
	r.Header.Set("Content-Type", "text/plain")
	if got := h.send(h.signedFor(admin, "sts", r)); got.status != 400 {
		t.Errorf("another content type: got %d %s", got.status, got.body)
	}
}

// A body above the limit is refused whether or not it says so beforehand.
func TestLargeBodies(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	large := `{"a":"` + strings.Repeat("x", maxBody) + `"}`
	if got := h.json(admin, "Sallyport.GetStatus", large); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("with a length: got %d %s", got.status, got.body)
	}
	r := h.signed(admin, h.jsonRequest("Sallyport.GetStatus", large))
	r.ContentLength, r.Body = -1, io.NopCloser(strings.NewReader(large)) // chunked
	if got := h.send(r); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("chunked: got %d %s", got.status, got.body)
	}
}

// A chunked body whose length is not signed verifies, as agents send it.
func TestChunkedBody(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	r := h.jsonRequest("Sallyport.GetStatus", struct{}{})
	r.ContentLength = -1
	hash := bodyHash(t, r)
	r.Body = io.NopCloser(strings.NewReader("{}"))
	h.must(v4.NewSigner().SignHTTP(context.Background(), awsCredentials(admin), r, hash, "sallyport", "us-east-1", h.clock()))
	if got := h.send(r); got.status != 200 {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// A body that trickles in does not hold the server for ever.
func TestSlowBody(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.BodyTimeout = 100 * time.Millisecond })
	conn, err := net.Dial("tcp", h.http.Listener.Addr().String())
	h.must(err)
	defer conn.Close()
	h.must(conn.SetDeadline(time.Now().Add(10 * time.Second)))
	_, err = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Sallyport.GetStatus\r\nContent-Type: "+contentJSON+"\r\nContent-Length: 100\r\n\r\n{")
	h.must(err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	h.must(err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("got %s, want a timeout", resp.Status)
	}
}

// A length and chunks at once do not make two requests of one.
func TestSmuggledRequest(t *testing.T) {
	h := newHarness(t)
	conn, err := net.Dial("tcp", h.http.Listener.Addr().String())
	h.must(err)
	defer conn.Close()
	h.must(conn.SetDeadline(time.Now().Add(10 * time.Second)))
	_, err = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Sallyport.GetStatus\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"0\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\n\r\n")
	h.must(err)
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	h.must(err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("got %s", resp.Status)
	}
}

// failingAuditor cannot write.
type failingAuditor struct{}

func (failingAuditor) Append(context.Context, audit.Record) (audit.Record, error) {
	return audit.Record{}, errors.New("disk is full")
}

// Nothing is allowed that cannot be recorded.
func TestWithoutAuditNothingIsAllowed(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.Audit = failingAuditor{} })
	admin := h.user("admin", nil, allowAll)
	h.user("bob", nil)
	h.must(h.store.UpdateUser(context.Background(), "bob", func(u *identity.User) error { u.Disabled = true; return nil }))
	got := h.json(admin, "Sallyport.EnableUser", userInput{UserName: "bob"})
	if got.code() != "InternalServerError" || got.status != 500 || strings.Contains(got.body, "disk") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	bob, err := h.store.User(context.Background(), "bob")
	h.must(err)
	if !bob.Disabled {
		t.Error("the user was enabled all the same")
	}
	if !strings.Contains(h.logs.String(), "disk is full") {
		t.Error("the cause is not in the log")
	}
}

// A panic is one failed call, in the log and no more in the answer; and an operation
// that forgot to check access does not answer.
func TestFaultyOperations(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	add := func(name string, run func(context.Context, *Call, *struct{}) (*struct{ Secret string }, error), options ...func(*Operation)) {
		h.server.table.operations["sallyport"][name] = op("sallyport", name, nil, run, options...)
	}
	add("Panic", func(context.Context, *Call, *struct{}) (*struct{ Secret string }, error) { panic("secret thing") })
	add("Forgets", func(context.Context, *Call, *struct{}) (*struct{ Secret string }, error) {
		return &struct{ Secret string }{"secret thing"}, nil
	}, checksItself)
	for _, name := range []string{"Panic", "Forgets"} {
		got := h.json(admin, "Sallyport."+name, struct{}{})
		if got.status != 500 || got.code() != "InternalServerError" || strings.Contains(got.body, "secret") {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
	}
	if !strings.Contains(h.logs.String(), "secret thing") || !strings.Contains(h.logs.String(), "attack_test.go") {
		t.Error("the panic is not in the log")
	}
}

// An attacker who knows no key cannot fill the disk with records.
func TestRefusedLoginsAreCountedTogether(t *testing.T) {
	h := newHarness(t)
	flood := func() {
		for i := range 500 {
			r, _ := http.NewRequest(http.MethodPost, "/", nil)
			key := fmt.Sprintf("AKIA%016d", i)
			h.server.logins.refused(r.Context(), access.Origin{SourceIP: "192.0.2.1"},
				&identity.AuthError{Failure: identity.UnknownKey, Message: "no", AccessKeyID: key})
		}
	}
	flood()
	if n := len(h.audited(audit.EventLogin)); n != maxLoginKinds+1 {
		t.Errorf("got %d records, want %d", n, maxLoginKinds+1)
	}
	h.advance(loginWindow)
	h.server.logins.refused(context.Background(), access.Origin{}, &identity.AuthError{Failure: identity.MissingToken, Message: "no"})
	records := h.audited(audit.EventLogin)
	sum := records[len(records)-2]
	if len(records) != maxLoginKinds+3 || sum.Details["repeated"] != "435" {
		t.Errorf("got %d records, the count is %v", len(records), sum.Details)
	}
}

func TestSourceAddress(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, test := range []struct {
		name      string
		trusted   []netip.Prefix
		remote    string
		forwarded []string
		want      string
	}{
		{"no proxy", nil, "192.0.2.7:1234", nil, "192.0.2.7"},
		{"an invented header", nil, "192.0.2.7:1234", []string{"127.0.0.1"}, "192.0.2.7"},
		{"an invented header, not from a proxy", trusted, "192.0.2.7:1234", []string{"127.0.0.1"}, "192.0.2.7"},
		{"a proxy", trusted, "10.0.0.1:1", []string{"192.0.2.7"}, "192.0.2.7"},
		{"a proxy that passes on an invented hop", trusted, "10.0.0.1:1", []string{"127.0.0.1, 192.0.2.7"}, "192.0.2.7"},
		{"two proxies", trusted, "10.0.0.1:1", []string{"127.0.0.1", "192.0.2.7,10.0.0.2"}, "192.0.2.7"},
		{"a proxy and nonsense", trusted, "10.0.0.1:1", []string{"nonsense"}, "10.0.0.1"},
		{"IPv4 in IPv6", nil, "[::ffff:192.0.2.7]:1", nil, "192.0.2.7"},
	} {
		s := &Server{config: Config{TrustedProxies: test.trusted, Now: time.Now}}
		r := &http.Request{RemoteAddr: test.remote, Header: http.Header{"X-Forwarded-For": test.forwarded}}
		if got := s.origin(r).SourceIP; got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

func TestHealth(t *testing.T) {
	ready := errors.New("no database")
	h := newHarness(t, func(c *Config) { c.Ready = func(context.Context) error { return ready } })
	get := func(path string) answer {
		r, err := http.NewRequest(http.MethodGet, h.http.URL+path, nil)
		h.must(err)
		return h.send(r)
	}
	if got := get("/healthz"); got.status != 200 {
		t.Errorf("healthz: got %d", got.status)
	}
	if got := get("/readyz"); got.status != 503 || strings.Contains(got.body, "database") {
		t.Errorf("readyz: got %d %s", got.status, got.body)
	}
	if got := get("/nothing"); got.status != 404 {
		t.Errorf("elsewhere: got %d", got.status)
	}
}

func FuzzDecode(f *testing.F) {
	o := op("sts", "AssumeRole", nil, assumeRole, checksItself)
	own := op("sallyport", "ListNodes", nil, listNodes, checksItself)
	f.Add(`{"Filters":[{"Key":"a","Values":["b"]}],"MaxResults":3}`)
	f.Add("Action=AssumeRole&Tags.member.1.Key=a&Tags.member.1.Value=%20&PolicyArns.member.2.arn=x")
	f.Add(strings.Repeat("[", 100))
	f.Fuzz(func(t *testing.T, body string) {
		_, _ = decodeJSON(own, []byte(body))
		if form, err := parseForm(body); err == nil {
			_, _ = decodeQuery(o, service{protocol: protocolQuery}, form)
			_, _ = decodeQuery(o, service{protocol: protocolEC2}, form)
		}
	})
}

// A scope that nobody signed is not repeated where it could pass for something else.
func TestHostileScopes(t *testing.T) {
	h := newHarness(t)
	day, at := h.clock().UTC().Format("20060102"), h.clock().UTC().Format("20060102T150405Z")
	forged := "x\n2026-11-20 11:10:00  Allowed  iam:AttachUserPolicy  admin"
	for _, credential := range []string{
		"AKIAXXXXXXXXXXXXXXXX/" + day + "/" + forged + "/sts/aws4_request",
		"AKIAXXXXXXXXXXXXXXXX/" + day + "/us-east-1/" + forged + "/aws4_request",
		"AKIAXXXXXXXXXXXXXXXX/" + forged + "/us-east-1/sts/aws4_request",
		"AKIAXXXXXXXXXXXXXXXX\u202e" + forged + "/" + day + "/us-east-1/sts/aws4_request",
		"AKIAXXXXXXXXXXXXXXXX/" + day + "/" + strings.Repeat("x", 10000) + "/sts/aws4_request",
	} {
		r := h.request(http.MethodGet, "")
		r.URL.RawQuery = url.Values{
			"Action": {"GetCallerIdentity"}, "X-Amz-Algorithm": {"AWS4-HMAC-SHA256"}, "X-Amz-Credential": {credential},
			"X-Amz-Date": {at}, "X-Amz-Expires": {"60"}, "X-Amz-SignedHeaders": {"host"}, "X-Amz-Signature": {"00"},
		}.Encode()
		if got := h.send(r); got.code() != "IncompleteSignature" {
			t.Errorf("%.60q: got %d %.300s", credential, got.status, got.body)
		}
	}
	for _, r := range h.audited(audit.EventLogin) {
		if strings.ContainsAny(r.Reason+r.Details["access_key_id"], "\n\u202e") || len(r.Reason) > 300 {
			t.Errorf("recorded %q", r.Reason)
		}
	}
}

// Targets and sessions are named in printable characters: what is refused is recorded
// as it was named.
func TestHostileTargets(t *testing.T) {
	h := newHarness(t)
	alice := h.user("alice", nil, allowAll)
	for _, hostile := range []string{"i-1\n2026-11-20 11:10:00  Allowed", "i-1\u202e", "", strings.Repeat("x", 401)} {
		for operation, member := range map[string]string{
			"AmazonSSM.StartSession": "Target", "AmazonSSM.GetConnectionStatus": "Target",
			"AmazonSSM.TerminateSession": "SessionId", "AmazonSSM.ResumeSession": "SessionId", "Sallyport.GetSession": "SessionId",
		} {
			if got := h.json(alice, operation, map[string]string{member: hostile}); got.code() != "ValidationException" {
				t.Errorf("%s of %.20q: got %d %s", operation, hostile, got.status, got.body)
			}
		}
	}
}
