package ssoportal_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"sallyport.dev/client"
	"sallyport.dev/identity"
)

const allowAll = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`

// connect makes an API of somebody with a new key of theirs.
func (w *world) connect(name string) *client.API {
	w.t.Helper()
	key, secret := identity.NewAccessKey(w.Member.Key, name, w.Now())
	w.Must(w.Member.Store.CreateAccessKey(w.t.Context(), key, 2))
	api, err := client.Connect(w.t.Context(), client.Options{
		Endpoint: w.URL, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider(key.ID, secret, ""),
	})
	w.Must(err)
	return api
}

// Who is given another password is signed in nowhere any more.
func TestPasswordResetEndsSignIns(t *testing.T) {
	w := newWorld(t)
	w.User("admin", allowAll)
	_, out := w.signedIn("alice")
	bearer := out["accessToken"].(string)
	initial, err := w.connect("admin").ResetPassword(t.Context(), "alice")
	w.Must(err)
	w.Advance(2 * time.Second)
	status, out := w.rest("GET", credentialsPath("Ops"), bearer, nil)
	wantType(t, "after a reset", status, out, 401, "UnauthorizedException")
	w.Must(w.connect("alice").ChangePassword(t.Context(), initial, "a password of my own"))
	b := w.Browser()
	b.Open(w.URL + "/sign-in/local")
	b.Send("user", "alice", "password", "a password of my own")
	if !strings.Contains(b.Page, "Until</dt>") {
		t.Errorf("with the new password: got %s", b.Page)
	}
}

// StepUp returns an API of the same person with a second factor, for both ways in which
// calls are made.
func TestClientStepUp(t *testing.T) {
	w := newWorld(t)
	carol := w.User("carol", strings.Replace(allowAll, `"Resource":"*"`, `"Resource":"*","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}`, 1))
	w.Must(w.Keeper.RemovePassword(t.Context(), carol.ID)) // or she would have to sign in first
	api := w.connect("carol")
	added, err := api.AddFactor(t.Context(), "")
	w.Must(err)
	w.Secret = added.Secret
	w.Must(api.EnableFactor(t.Context(), added.Factor.FactorID, w.Code()))
	if _, err := api.StepUp(t.Context(), "000000"); err == nil {
		t.Error("a wrong code: got no error")
	}
	active := &ssm.DescribeSessionsInput{State: types.SessionStateActive}
	if _, err := api.SSM.DescribeSessions(t.Context(), active); err == nil {
		t.Error("without a factor: got no error")
	}
	w.Advance(time.Minute)
	strong, err := api.StepUp(t.Context(), w.Code())
	w.Must(err)
	if _, err := strong.SSM.DescribeSessions(t.Context(), active); err != nil {
		t.Errorf("SSM with a factor: %v", err)
	}
	if _, err := strong.QueryAudit(t.Context(), client.QueryAuditInput{}); err != nil {
		t.Errorf("our own operations with a factor: %v", err)
	}
	if _, err := strong.STS.GetCallerIdentity(t.Context(), nil); err != nil {
		t.Errorf("STS with a factor: %v", err)
	}
}
