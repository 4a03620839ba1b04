package sallyporttest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"sallyport.dev/identity"
	"sallyport.dev/sallyporttest"
)

// A session that an access token opened ends with the grant, as AWS's own do not.
func TestSessionOfAnAccessTokenEndsWithTheGrant(t *testing.T) {
	s := sallyporttest.Start(t, "one", sallyporttest.Options{})
	s.Node(grantedNode, identity.Tags{"Department": "FrontEnd"})
	admin := s.User("admin", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`)
	carol, bob := s.User("carol", nil, ""), s.User("bob", nil, "")
	as := func(k sallyporttest.Key) *ssm.Client {
		return ssm.New(ssm.Options{
			Region: sallyporttest.Region, BaseEndpoint: aws.String(s.PlainURL()),
			Credentials: credentials.NewStaticCredentialsProvider(k.ID, k.Secret, k.Token),
		})
	}
	_, err := as(admin).CreateDocument(t.Context(), &ssm.CreateDocumentInput{
		Name: aws.String("FrontEnd"), DocumentType: types.DocumentTypeManualApprovalPolicy,
		Content: aws.String(`{"schemaVersion":"1.0","accessDuration":1,"approvers":["bob"]}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	asked, err := as(carol).StartAccessRequest(t.Context(), &ssm.StartAccessRequestInput{
		Reason: aws.String("deploy"), Targets: []types.Target{{Key: aws.String("InstanceIds"), Values: []string{grantedNode}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	item, err := as(bob).GetOpsItem(t.Context(), &ssm.GetOpsItemInput{OpsItemId: asked.AccessRequestId})
	if err != nil {
		t.Fatal(err)
	}
	_, execution, _ := strings.Cut(*item.OpsItem.OperationalData["/aws/accessrequest"].Value, `"automationExecutionId":"`)
	signal := func(kind types.SignalType) {
		t.Helper()
		if _, err := as(bob).SendAutomationSignal(t.Context(), &ssm.SendAutomationSignalInput{AutomationExecutionId: aws.String(execution[:36]), SignalType: kind}); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
	}
	signal(types.SignalTypeApprove)
	got, err := as(carol).GetAccessToken(t.Context(), &ssm.GetAccessTokenInput{AccessRequestId: asked.AccessRequestId})
	if err != nil || got.AccessRequestStatus != types.AccessRequestStatusApproved {
		t.Fatalf("got %v and %+v", err, got)
	}
	token := sallyporttest.Key{ID: *got.Credentials.AccessKeyId, Secret: *got.Credentials.SecretAccessKey, Token: *got.Credentials.SessionToken}
	shell := s.Terminal(token, grantedNode)
	shell.Type("echo sum-$((6*7))\n")
	shell.WantShown("sum-42")
	signal(types.SignalTypeRevoke)
	select {
	case <-shell.Over():
	case <-time.After(5 * time.Second):
		t.Error("the session goes on five seconds after the grant was revoked")
	}
}
