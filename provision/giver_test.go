package provision

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"

	"sallyport.dev/flow"
	"sallyport.dev/identity"
	"sallyport.dev/internal/seal"
)

// fakeAWS speaks the wire formats of SSO Admin, Identity Store and IAM, and wants requests
// signed with its one key.
type fakeAWS struct {
	t        *testing.T
	verifier *identity.Verifier
	key      identity.AccessKey

	mu          sync.Mutex
	assigned    []string       // principals with the permission set
	members     []string       // of the IAM group
	inProgress  int            // how often a status is IN_PROGRESS before it is SUCCEEDED
	failing     map[string]int // operations that fail so many times
	keepDeleted bool           // says that it deleted, and did not
	calls       []string
}

const secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

func newFakeAWS(t *testing.T) (*fakeAWS, *Giver) {
	t.Helper()
	sealer, err := seal.New(bytes.Repeat([]byte{7}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeAWS{t: t, failing: map[string]int{}, key: identity.SealAccessKey(sealer, "AKIAFAKE", secret, "sallyport", time.Now())}
	f.verifier = identity.NewVerifier(identity.VerifierConfig{Keys: f, Sealer: sealer, Now: time.Now})
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	g := New(func(context.Context, string, string) (aws.Config, error) {
		return aws.Config{
			Region: "eu-west-1", BaseEndpoint: &server.URL, HTTPClient: server.Client(),
			Credentials:      credentials.NewStaticCredentialsProvider("AKIAFAKE", secret, ""),
			RetryMaxAttempts: 1,
		}, nil
	})
	g.pause = time.Millisecond
	return f, g
}

// AccessKey implements identity.Keys.
func (f *fakeAWS) AccessKey(_ context.Context, id string) (identity.AccessKey, error) {
	if id != f.key.ID {
		return identity.AccessKey{}, identity.ErrNotFound
	}
	return f.key, nil
}

func (f *fakeAWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Error(err)
	}
	if _, err := f.verifier.Verify(r.Context(), r, body); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		_, name, _ := strings.Cut(target, ".")
		f.json(w, name, body)
		return
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		f.t.Error(err)
	}
	f.query(w, form)
}

// fails answers with an error as often as the test wants.
func (f *fakeAWS) fails(w http.ResponseWriter, name string) bool {
	f.calls = append(f.calls, name)
	if f.failing[name] == 0 {
		return false
	}
	f.failing[name]--
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprint(w, `{"__type":"ConflictException","Message":"another operation is in progress"}`)
	return true
}

func (f *fakeAWS) json(w http.ResponseWriter, name string, body []byte) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if f.fails(w, name) {
		return
	}
	var in struct {
		PrincipalId, PrincipalType, TargetId, PermissionSetArn, IdentityStoreId string
		AlternateIdentifier                                                     struct {
			UniqueAttribute struct{ AttributePath, AttributeValue string }
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		f.t.Error(err)
	}
	switch name {
	case "GetUserId":
		if in.AlternateIdentifier.UniqueAttribute.AttributePath != "userName" || in.IdentityStoreId != "d-1234567890" {
			f.t.Errorf("GetUserId: got %s", body)
		}
		fmt.Fprintf(w, `{"UserId":"id-of-%s","IdentityStoreId":"d-1234567890"}`, in.AlternateIdentifier.UniqueAttribute.AttributeValue)
	case "ListAccountAssignments":
		all := []map[string]string{{"PrincipalId": "a-group", "PrincipalType": "GROUP"}}
		for _, id := range f.assigned {
			all = append(all, map[string]string{"PrincipalId": id, "PrincipalType": "USER"})
		}
		json.NewEncoder(w).Encode(map[string]any{"AccountAssignments": all})
	case "CreateAccountAssignment":
		f.assigned = append(f.assigned, in.PrincipalId)
		f.status(w, "AccountAssignmentCreationStatus")
	case "DeleteAccountAssignment":
		if !f.keepDeleted {
			f.assigned = slices.DeleteFunc(f.assigned, func(id string) bool { return id == in.PrincipalId })
		}
		f.status(w, "AccountAssignmentDeletionStatus")
	case "DescribeAccountAssignmentCreationStatus":
		f.status(w, "AccountAssignmentCreationStatus")
	case "DescribeAccountAssignmentDeletionStatus":
		f.status(w, "AccountAssignmentDeletionStatus")
	default:
		f.t.Errorf("unexpected operation %s", name)
	}
}

func (f *fakeAWS) status(w io.Writer, member string) {
	status := "SUCCEEDED"
	if f.inProgress > 0 {
		f.inProgress--
		status = "IN_PROGRESS"
	}
	fmt.Fprintf(w, `{%q:{"Status":%q,"RequestId":"r-1"}}`, member, status)
}

func (f *fakeAWS) query(w http.ResponseWriter, form url.Values) {
	name := form.Get("Action")
	f.calls = append(f.calls, name)
	user := form.Get("UserName")
	result := ""
	switch name {
	case "GetUser":
		result = "<User><UserName>" + user + "</UserName><UserId>AIDA</UserId><Arn>a</Arn><Path>/</Path><CreateDate>2026-01-01T00:00:00Z</CreateDate></User>"
	case "ListGroupsForUser":
		if slices.Contains(f.members, user) {
			result = "<Groups><member><GroupName>break-glass</GroupName><GroupId>G</GroupId><Arn>a</Arn><Path>/</Path><CreateDate>2026-01-01T00:00:00Z</CreateDate></member></Groups>"
		}
		result += "<IsTruncated>false</IsTruncated>"
	case "AddUserToGroup":
		f.members = append(f.members, user)
	case "RemoveUserFromGroup":
		if !slices.Contains(f.members, user) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `<ErrorResponse><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>no</Message></Error></ErrorResponse>`)
			return
		}
		f.members = slices.DeleteFunc(f.members, func(m string) bool { return m == user })
	default:
		f.t.Errorf("unexpected action %s", name)
	}
	fmt.Fprintf(w, `<%sResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><%sResult>%s</%sResult></%sResponse>`, name, name, result, name, name)
}

var (
	permissionSet = flow.Target{Name: "admin", Kind: flow.TargetPermissionSet, PermissionSet: &flow.PermissionSet{
		InstanceARN: "arn:aws:sso:::instance/ssoins-1234567890abcdef", Account: "222222222222", IdentityStore: "d-1234567890",
		PermissionSetARN: "arn:aws:sso:::permissionSet/ssoins-1234567890abcdef/ps-1234567890abcdef", Region: "eu-west-1",
	}}
	group = flow.Target{Name: "glass", Kind: flow.TargetAWSGroup, AWSGroup: &flow.AWSGroup{Group: "break-glass", UserField: "tag:AWSUser"}}
	carol = flow.Person{Name: "carol", Tags: identity.Tags{"AWSUser": "carol-aws"}}
)

func TestPermissionSet(t *testing.T) {
	f, g := newFakeAWS(t)
	f.inProgress = 2
	handle := prepared(t, g, permissionSet)
	ok(t, g.Give(t.Context(), permissionSet, handle))
	ok(t, g.Give(t.Context(), permissionSet, handle)) // again, after a crash
	if got, want := f.assigned[0], "id-of-carol"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	ok(t, g.Take(t.Context(), permissionSet, handle))
	ok(t, g.Take(t.Context(), permissionSet, handle))
	if len(f.assigned) != 0 {
		t.Errorf("still assigned: %v", f.assigned)
	}
}

func TestGroup(t *testing.T) {
	f, g := newFakeAWS(t)
	handle := prepared(t, g, group)
	ok(t, g.Give(t.Context(), group, handle))
	if d := cmp.Diff([]string{"carol-aws"}, f.members); d != "" {
		t.Error(d)
	}
	ok(t, g.Take(t.Context(), group, handle))
	ok(t, g.Take(t.Context(), group, handle))
	if len(f.members) != 0 {
		t.Errorf("still members: %v", f.members)
	}
}

// What somebody has by other means is neither given nor taken.
func TestHadBefore(t *testing.T) {
	f, g := newFakeAWS(t)
	f.assigned, f.members = []string{"id-of-carol"}, []string{"carol-aws"}
	for _, target := range []flow.Target{permissionSet, group} {
		handle := prepared(t, g, target)
		f.calls = nil
		ok(t, g.Give(t.Context(), target, handle))
		ok(t, g.Take(t.Context(), target, handle))
		if len(f.calls) != 0 {
			t.Errorf("%s: got calls %v, want none", target.Name, f.calls)
		}
	}
}

// Taking is an error until it is true: where AWS refuses for now, and where it says that
// it did what it did not.
func TestTakeFails(t *testing.T) {
	f, g := newFakeAWS(t)
	handle := prepared(t, g, permissionSet)
	ok(t, g.Give(t.Context(), permissionSet, handle))
	f.failing["DeleteAccountAssignment"] = 1
	if err := g.Take(t.Context(), permissionSet, handle); err == nil || !strings.Contains(err.Error(), "ConflictException") {
		t.Errorf("got %v, want a ConflictException", err)
	}
	f.keepDeleted = true
	if err := g.Take(t.Context(), permissionSet, handle); err == nil || !strings.Contains(err.Error(), errStill.Error()) {
		t.Errorf("got %v, want %v", err, errStill)
	}
	f.keepDeleted = false
	ok(t, g.Take(t.Context(), permissionSet, handle))
}

func TestAwaitEndsWithTheContext(t *testing.T) {
	f, g := newFakeAWS(t)
	handle := prepared(t, g, permissionSet)
	f.inProgress = 1 << 30
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := g.Give(ctx, permissionSet, handle); err == nil {
		t.Error("got no error")
	}
}

// Nobody is taken for somebody else: a name comes from where the flow says, or not at all.
func TestWhoInAWS(t *testing.T) {
	_, g := newFakeAWS(t)
	for name, p := range map[string]flow.Person{
		"no tag":      {Name: "carol"},
		"two values":  {Name: "carol", Tags: identity.Tags{"AWSUser": "a, b"}},
		"empty value": {Name: "carol", Tags: identity.Tags{"AWSUser": ""}},
	} {
		if _, err := g.Prepare(t.Context(), group, p); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	for _, handle := range []string{"", "{}", "no"} {
		if err := g.Take(t.Context(), group, handle); err == nil {
			t.Errorf("handle %q: got no error", handle)
		}
	}
	if _, err := g.Prepare(t.Context(), flow.Target{Kind: flow.TargetRole, Role: "r"}, carol); err == nil {
		t.Error("a role: got no error")
	}
}

func prepared(t *testing.T, g *Giver, target flow.Target) string {
	t.Helper()
	handle, err := g.Prepare(t.Context(), target, carol)
	if err != nil {
		t.Fatal(err)
	}
	return handle
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
