package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/identity"
	"sallyport.dev/internal/needs"
)

// shell runs a script with an aws function that is the given command line interface,
// pointed at the server, and returns what it prints.
func (h *harness) shell(cli string, c identity.Credentials, script string) (string, error) {
	h.t.Helper()
	dir := h.t.TempDir()
	wrapper := "#!/bin/sh\nexec '" + cli + "' --endpoint-url '" + h.http.URL + "' --output json \"$@\"\n"
	h.must(os.WriteFile(filepath.Join(dir, "aws"), []byte(wrapper), 0o700))
	cmd := exec.CommandContext(h.t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir, "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=" + c.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=",
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// cliUser makes a user with the command line alone and returns the key that it printed.
func (h *harness) cliUser(cli string, admin identity.Credentials, name, options string) identity.Credentials {
	h.t.Helper()
	out, err := h.shell(cli, admin, "aws iam create-user --user-name "+name+" "+options+" >/dev/null; aws iam create-access-key --user-name "+name)
	if err != nil {
		h.t.Fatalf("making %s: %v\n%s", name, err, out)
	}
	var made struct {
		AccessKey struct{ AccessKeyId, SecretAccessKey string }
	}
	h.must(json.Unmarshal([]byte(out), &made))
	return identity.Credentials{AccessKeyID: made.AccessKey.AccessKeyId, SecretAccessKey: made.AccessKey.SecretAccessKey}
}

// mayConnect asks which nodes a caller may start a shell on.
func (h *harness) mayConnect(c identity.Credentials) map[string]bool {
	h.t.Helper()
	var out struct {
		Nodes []struct {
			NodeID     string `json:"NodeId"`
			MayConnect bool
		}
	}
	answer := h.json(c, "Sallyport.ListNodes", struct{}{})
	may := map[string]bool{}
	if answer.code() == "AccessDeniedException" {
		return may
	}
	h.must(json.Unmarshal([]byte(answer.body), &out))
	for _, n := range out.Nodes {
		if n.MayConnect {
			may[n.NodeID] = true
		}
	}
	return may
}

const (
	frontend1 = "i-060ee0879f3ec4eb7"
	frontend2 = "mi-0a1b2c3d4e5f60718"
	backend1  = "i-05b7516a19f826be9"
)

// The five ways to give access, each set up with aws iam commands and nothing else.
func TestSetUpWithIAMCommandsAlone(t *testing.T) {
	t.Parallel() // it waits for aws
	if testing.Short() {
		t.Skip("starts the aws command some thirty times")
	}
	cli := needs.Program(t, "aws")
	h := newHarness(t)
	h.node(frontend1, identity.Tags{"Name": "frontend-1", "Team": "payments", "Environment": "Development"})
	h.node(frontend2, identity.Tags{"Name": "frontend-2", "Team": "payments", "Environment": "Production"})
	h.node(backend1, identity.Tags{"Name": "backend-1", "Team": "search", "Environment": "Production"})
	admin := h.user("admin", nil, allowAll)

	for _, test := range []struct {
		name, user, options, script string
		want                        []string
	}{
		{"one node", "one", "", strings.ReplaceAll(`aws iam put-user-policy --user-name one --policy-name access --policy-document '{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Action":"ssm:StartSession","Resource":["arn:aws:ec2:us-east-1:111111111111:instance/i-060ee0879f3ec4eb7"]}]}'`, "\n", " "),
			[]string{frontend1}},
		{"several node ids", "several", "", `arn=$(aws iam create-policy --policy-name several --query Policy.Arn --output text --policy-document '{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Action":"ssm:StartSession","Resource":["arn:aws:ec2:us-east-1:111111111111:instance/i-060ee0879f3ec4eb7","arn:aws:ssm:*:111111111111:managed-instance/mi-0a1b2c3d4e5f60718"]}]}')
			aws iam attach-user-policy --user-name several --policy-arn $arn`,
			[]string{frontend1, frontend2}},
		{"nodes by a tag", "bytag", "--tags Key=Team,Value=payments", `aws iam put-user-policy --user-name bytag --policy-name access --policy-document '{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"}}}]}'`,
			[]string{frontend1, frontend2}},
		{"nodes by two tags", "twotags", "", `aws iam put-user-policy --user-name twotags --policy-name access --policy-document '{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"payments","ssm:resourceTag/Environment":"Production"}}}]}'`,
			[]string{frontend2}},
		{"a group", "member", "", `aws iam create-group --group-name searchers >/dev/null
			aws iam put-group-policy --group-name searchers --policy-name access --policy-document '{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringLike":{"ssm:resourceTag/Team":["search*"]}}}]}'
			aws iam add-user-to-group --group-name searchers --user-name member`,
			[]string{backend1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			key := h.cliUser(cli, admin, test.user, test.options)
			if before := h.mayConnect(key); len(before) != 0 {
				t.Errorf("without policies: may connect to %v", before)
			}
			if out, err := h.shell(cli, admin, test.script); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			got := h.mayConnect(key)
			if len(got) != len(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			for _, id := range test.want {
				if !got[id] {
					t.Errorf("%s is refused", id)
				}
			}
		})
	}
	t.Run("retagging counts at once", func(t *testing.T) {
		key := h.cliUser(cli, admin, "carol", "--tags Key=Team,Value=search")
		out, err := h.shell(cli, admin, `aws iam put-user-policy --user-name carol --policy-name access --policy-document '{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"}}}]}'
			aws ec2 create-tags --resources i-060ee0879f3ec4eb7 --tags Key=Team,Value=search
			aws ssm add-tags-to-resource --resource-type ManagedInstance --resource-id mi-0a1b2c3d4e5f60718 --tags Key=Team,Value=search`)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := h.mayConnect(key); len(got) != 3 {
			t.Errorf("after retagging the nodes: got %v, want all three", got)
		}
		if out, err := h.shell(cli, admin, `aws iam untag-user --user-name carol --tag-keys Team`); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := h.mayConnect(key); len(got) != 0 {
			t.Errorf("after untagging the user: got %v, want none", got)
		}
	})
}

// A script that collects the SSH keys of a group, as hosts run it from cron.
const syncKeys = `
for user in $(aws iam get-group --group-name ops --query 'Users[].UserName' --output text); do
  for id in $(aws iam list-ssh-public-keys --user-name "$user" --query "SSHPublicKeys[?Status=='Active'].SSHPublicKeyId" --output text); do
    aws iam get-ssh-public-key --user-name "$user" --ssh-public-key-id "$id" --encoding SSH --query SSHPublicKey.SSHPublicKeyBody --output text
  done
done`

func TestSSHKeysOfAGroup(t *testing.T) {
	t.Parallel() // it waits for aws
	if testing.Short() {
		t.Skip("starts the aws command some times")
	}
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	cli := needs.Program(t, "aws")
	var want []string
	ctx := context.Background()
	h.must(h.store.CreateGroup(ctx, identity.Group{Name: "ops", ID: identity.NewGroupID(), Path: "/", Created: h.clock()}))
	for _, name := range []string{"ann", "ben"} {
		h.user(name, nil)
		h.must(h.store.AddMember(ctx, "ops", name))
		line := newSSHKey(t, name+"@laptop")
		if got := h.query(admin, "iam", "UploadSSHPublicKey", "UserName", name, "SSHPublicKeyBody", line); got.code() != "" {
			t.Fatal(got.body)
		}
		want = append(want, line)
	}
	out, err := h.shell(cli, admin, syncKeys)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := strings.TrimSpace(out); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func newSSHKey(t *testing.T, comment string) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment
}

// One of each of the other iam, ec2 and ssm commands, to see that the command line
// understands the answers.
func TestCommandLineUnderstandsAnswers(t *testing.T) {
	t.Parallel() // it waits for aws
	if testing.Short() {
		t.Skip("starts the aws command many times")
	}
	h := newHarness(t)
	h.node(frontend1, identity.Tags{"Name": "frontend-1", "Team": "payments"})
	admin := h.user("admin", nil, allowAll)
	cli := needs.Program(t, "aws")
	for _, test := range []struct{ script, want string }{
		{`aws iam create-role --role-name Ops --assume-role-policy-document '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:root"},"Action":"sts:AssumeRole"}]}' --query Role.AssumeRolePolicyDocument.Version --output text`, "2012-10-17"},
		{`aws iam get-role --role-name Ops --query 'Role.[Arn,MaxSessionDuration]' --output text`, "arn:aws:iam::111111111111:role/Ops\t3600"},
		{`aws iam create-policy --policy-name P --policy-document '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:*","Resource":"*"}]}' --query Policy.DefaultVersionId --output text`, "v1"},
		{`aws iam create-policy-version --policy-arn arn:aws:iam::111111111111:policy/P --set-as-default --policy-document '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:*","Resource":"*"}]}' --query PolicyVersion.VersionId --output text`, "v2"},
		{`aws iam get-policy-version --policy-arn arn:aws:iam::111111111111:policy/P --version-id v2 --query 'PolicyVersion.Document.Statement[0].Action' --output text`, "ec2:*"},
		{`aws iam attach-role-policy --role-name Ops --policy-arn arn:aws:iam::111111111111:policy/P; aws iam list-entities-for-policy --policy-arn arn:aws:iam::111111111111:policy/P --query 'PolicyRoles[].RoleName' --output text`, "Ops"},
		{`aws iam list-attached-role-policies --role-name Ops --query 'AttachedPolicies[].PolicyName' --output text`, "P"},
		{`aws iam list-users --query 'Users[].UserName' --output text`, "admin"},
		{`aws iam get-user --query User.UserName --output text`, "admin"},
		{`aws iam list-groups --query 'length(Groups)' --output text`, "0"},
		{`aws iam list-access-keys --query 'AccessKeyMetadata[].Status' --output text`, "Active"},
		{`aws iam list-account-aliases --query 'length(AccountAliases)' --output text`, "0"},
		{`aws iam get-account-summary --query SummaryMap.Roles --output text`, "1"},
		{`aws iam get-account-authorization-details --query '[length(UserDetailList),RoleDetailList[0].AttachedManagedPolicies[0].PolicyName,UserDetailList[0].UserPolicyList[0].PolicyDocument.Version]' --output text`, "1\tP\t2012-10-17"},
		{`aws iam simulate-principal-policy --policy-source-arn arn:aws:iam::111111111111:role/Ops --action-names ec2:DescribeInstances ssm:StartSession --query 'EvaluationResults[].[EvalDecision,MatchedStatements[0].SourcePolicyId]' --output text`, "allowed\tP\nimplicitDeny\tNone"},
		{`aws iam simulate-custom-policy --policy-input-list '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"payments"}}}]}' --action-names ssm:StartSession --query 'EvaluationResults[].[EvalDecision,MissingContextValues[0]]' --output text`, "implicitDeny\tssm:resourceTag/Team"},
		{`aws iam simulate-custom-policy --policy-input-list '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"payments"}}}]}' --action-names ssm:StartSession --context-entries ContextKeyName=ssm:resourceTag/Team,ContextKeyValues=payments,ContextKeyType=string --query 'EvaluationResults[].EvalDecision' --output text`, "allowed"},
		{`aws ec2 describe-instances --filters Name=tag:Name,Values='front*' --query 'Reservations[].Instances[].[InstanceId,State.Name,Tags[?Key==` + "`Team`" + `].Value|[0]]' --output text`, frontend1 + "\tstopped\tpayments"},
		{`aws ec2 describe-tags --filters Name=key,Values=Team --query 'Tags[].Value' --output text`, "payments"},
		{`aws ec2 describe-regions --query 'Regions[].RegionName' --output text`, "us-east-1"},
		{`aws ssm describe-instance-information --filters Key=tag:Team,Values=payments --query 'InstanceInformationList[].[InstanceId,PingStatus,ResourceType]' --output text`, frontend1 + "\tInactive\tEC2Instance"},
		{`aws ssm describe-instance-properties --filters-with-operator Key=InstanceIds,Values=` + frontend1 + `,Operator=Equal --query 'InstanceProperties[].InstanceState' --output text`, "stopped"},
		{`aws ssm create-activation --iam-role nodes --registration-limit 3 --tags Key=Team,Value=search --query 'length(ActivationCode)' --output text`, "32"},
		{`aws ssm describe-activations --filters FilterKey=IamRole,FilterValues=nodes --query 'ActivationList[].[RegistrationLimit,RegistrationsCount,Expired,Tags[0].Value]' --output text`, "3\t0\tFalse\tsearch"},
		{`aws ssm list-tags-for-resource --resource-type ManagedInstance --resource-id ` + frontend1 + ` --query 'TagList[].Key' --output text`, "Name\tTeam"},
		{`aws ssm get-document --name AWS-StartPortForwardingSession --query DocumentType --output text`, "Session"},
		{`aws ssm describe-document --name SSM-SessionManagerRunShell --query 'Document.[SchemaVersion,Status]' --output text`, "1.0\tActive"},
		{`aws ssm list-documents --filters Key=Owner,Values=Amazon Key=Name,Values=AWS-StartSSH --query 'DocumentIdentifiers[].Name' --output text`, "AWS-StartSSHSession"},
		{`aws ssm create-document --name Shell --document-type Session --content '{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"idleSessionTimeout":"5"}}' --query DocumentDescription.DocumentVersion --output text`, "1"},
		{`aws ssm update-document --name Shell --document-version '$LATEST' --content '{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"idleSessionTimeout":"6"}}' --query DocumentDescription.DocumentVersion --output text`, "2"},
		{`aws ssm update-document-default-version --name Shell --document-version 2 --query Description.DefaultVersion --output text; aws ssm delete-document --name Shell`, "2"},
		{`aws ssm deregister-managed-instance --instance-id arn:aws:ec2:us-east-1:111111111111:instance/` + frontend1 + `; aws ssm describe-instance-information --query 'length(InstanceInformationList)' --output text`, "0"},
	} {
		out, err := h.shell(cli, admin, test.script)
		if strings.Contains(out, "Invalid choice") {
			t.Logf("SKIPPED, %s does not know the command: %s", cli, test.script)
			continue
		}
		if got := strings.TrimSpace(out); err != nil || got != test.want {
			t.Errorf("%s\ngot %q (%v), want %q", test.script, got, err, test.want)
		}
	}
}
