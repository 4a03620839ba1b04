package server

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/internal/needs"
)

// runAWS runs an AWS CLI with credentials.
func (h *harness) runAWS(cli string, c identity.Credentials, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, cli, append([]string{"--endpoint-url", h.http.URL, "--output", "json"}, args...)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + h.t.TempDir(), "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=" + c.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=",
	}
	if c.SessionToken != "" {
		cmd.Env = append(cmd.Env, "AWS_SESSION_TOKEN="+c.SessionToken)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The AWS CLI signs, sends and understands: success, refusals and bad keys, of both
// codecs, and with the temporary credentials that it was given.
func TestAWSCommandLine(t *testing.T) {
	t.Parallel() // it waits for aws
	if testing.Short() {
		t.Skip("starts the aws command several times")
	}
	for _, cli := range needs.AWS(t) {
		t.Run(strings.ReplaceAll(strings.Trim(cli, "/"), "/", "_"), func(t *testing.T) {
			h := newHarness(t)
			alice := h.user("alice", nil, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}}`)
			h.role("Ops", trustAccount)
			h.tryAWS(t, cli, alice)
		})
	}
}

func (h *harness) tryAWS(t *testing.T, cli string, alice identity.Credentials) {
	out, err := h.runAWS(cli, alice, "sts", "get-caller-identity")
	if err != nil || !strings.Contains(out, "arn:aws:iam::111111111111:user/alice") {
		t.Errorf("get-caller-identity: %v\n%s", err, out)
	}
	out, err = h.runAWS(cli, alice, "sts", "assume-role", "--role-arn", "arn:aws:iam::111111111111:role/Ops", "--role-session-name", "cli")
	var answer struct {
		Credentials struct{ AccessKeyId, SecretAccessKey, SessionToken, Expiration string }
	}
	if err != nil || json.Unmarshal([]byte(out), &answer) != nil {
		t.Fatalf("assume-role: %v\n%s", err, out)
	}
	session := identity.Credentials{AccessKeyID: answer.Credentials.AccessKeyId,
		SecretAccessKey: answer.Credentials.SecretAccessKey, SessionToken: answer.Credentials.SessionToken}
	out, err = h.runAWS(cli, session, "sts", "get-caller-identity")
	if err != nil || !strings.Contains(out, "assumed-role/Ops/cli") {
		t.Errorf("get-caller-identity as a role: %v\n%s", err, out)
	}
	out, err = h.runAWS(cli, session, "sts", "assume-role", "--role-arn", "arn:aws:iam::111111111111:role/Ops", "--role-session-name", "cli")
	want := "An error occurred (AccessDenied) when calling the AssumeRole operation: User: arn:aws:sts::111111111111:assumed-role/Ops/cli is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::111111111111:role/Ops because no identity-based policy allows the sts:AssumeRole action"
	if err == nil || !strings.Contains(out, want) {
		t.Errorf("assume-role without a right: %v\n%s", err, out)
	}
	alice.SecretAccessKey += "x"
	out, err = h.runAWS(cli, alice, "ssm", "describe-sessions", "--state", "Active")
	if err == nil || !strings.Contains(out, "An error occurred (InvalidSignatureException) when calling the DescribeSessions operation") {
		t.Errorf("wrong secret: %v\n%s", err, out)
	}
}
