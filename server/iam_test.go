package server

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
)

const policyARN = "arn:aws:iam::111111111111:policy/P"

// allow makes a policy of one statement; condition is "" or the JSON of one.
func allow(action, resource, condition string) string {
	if condition != "" {
		condition = `,"Condition":` + condition
	}
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":%q,"Resource":%q%s}]}`, action, resource, condition)
}

// do calls an iam operation and fails the test unless it succeeds.
func (h *harness) do(c identity.Credentials, operation string, fields ...string) answer {
	h.t.Helper()
	got := h.query(c, "iam", operation, fields...)
	if got.code() != "" {
		h.t.Fatalf("%s %v: %s", operation, fields, got.body)
	}
	return got
}

func TestIAMErrors(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	const doc = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:*","Resource":"*"}]}`
	h.do(admin, "CreateUser", "UserName", "alice", "Tags.member.1.Key", "Team", "Tags.member.1.Value", "payments, search")
	h.do(admin, "CreateGroup", "GroupName", "ops")
	h.do(admin, "AddUserToGroup", "GroupName", "ops", "UserName", "alice")
	h.do(admin, "CreatePolicy", "PolicyName", "P", "PolicyDocument", doc)
	h.do(admin, "AttachGroupPolicy", "GroupName", "ops", "PolicyArn", policyARN)
	h.do(admin, "CreateAccessKey", "UserName", "alice")
	h.do(admin, "CreateAccessKey", "UserName", "alice")
	h.do(admin, "CreateRole", "RoleName", "R", "AssumeRolePolicyDocument", trustAccount, "PermissionsBoundary", policyARN)

	for _, test := range []struct {
		operation string
		fields    []string
		code      string
		message   string // part of it
	}{
		{"CreateUser", []string{"UserName", "alice"}, "EntityAlreadyExists", "User with name alice already exists."},
		{"CreateUser", []string{"UserName", "ALICE"}, "EntityAlreadyExists", "already exists"},
		{"CreateUser", nil, "ValidationError", "Value null at 'userName' failed to satisfy constraint: Member must not be null"},
		{"CreateUser", []string{"UserName", "a b"}, "ValidationError", `Member must satisfy regular expression pattern: [\w+=,.@-]+`},
		{"CreateUser", []string{"UserName", strings.Repeat("a", 65)}, "ValidationError", "less than or equal to 64"},
		{"CreateUser", []string{"UserName", "b", "Path", "nopath"}, "ValidationError", "'path'"},
		{"CreateUser", []string{"UserName", "b", "PermissionsBoundary", policyARN + "none"}, "NoSuchEntity", "does not exist"},
		{"CreateUser", []string{"UserName", "b", "Tags.member.1.Key", "aws:x", "Tags.member.1.Value", "y"}, "ValidationError", "reserved"},
		{"TagUser", []string{"UserName", "alice", "Tags.member.1.Key", "team", "Tags.member.1.Value", "y"}, "InvalidInput", "only in case"},
		{"GetUser", []string{"UserName", "nobody"}, "NoSuchEntity", "The user with name nobody cannot be found."},
		{"DeleteUser", []string{"UserName", "alice"}, "DeleteConflict", "must"},
		{"DeleteGroup", []string{"GroupName", "ops"}, "DeleteConflict", "must"},
		{"DeletePolicy", []string{"PolicyArn", policyARN}, "DeleteConflict", "must"},
		{"RemoveUserFromGroup", []string{"GroupName", "ops", "UserName", "admin"}, "NoSuchEntity", "not in group"},
		{"AddUserToGroup", []string{"GroupName", "nope", "UserName", "admin"}, "NoSuchEntity", "group with name nope"},
		{"CreateAccessKey", []string{"UserName", "alice"}, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2"},
		{"UpdateAccessKey", []string{"UserName", "alice", "AccessKeyId", "AKIAAAAAAAAAAAAAAAAA", "Status", "Active"}, "NoSuchEntity", "Access Key"},
		{"UpdateAccessKey", []string{"UserName", "alice", "AccessKeyId", "AKIAAAAAAAAAAAAAAAAA", "Status", "On"}, "ValidationError", "enum"},
		{"CreatePolicy", []string{"PolicyName", "P", "PolicyDocument", doc}, "EntityAlreadyExists", "Duplicate names"},
		{"CreatePolicy", []string{"PolicyName", "Q", "PolicyDocument", "{\n \"Version\": \"2012-10-17\"\n \"Statement\": []}"}, "MalformedPolicyDocument", "line 3, column 2"},
		{"PutUserPolicy", []string{"UserName", "alice", "PolicyName", "p", "PolicyDocument", `{"Statement":[{"Effect":"Allow","Actions":"*"}]}`}, "MalformedPolicyDocument", "line 1, column"},
		{"PutUserPolicy", []string{"UserName", "alice", "PolicyName", "p", "PolicyDocument", allow("ssm:*", "arn:aws:ssm:*:*:document/"+strings.Repeat("x", 11000), "")}, "LimitExceeded", "PolicySize"},
		{"GetUserPolicy", []string{"UserName", "alice", "PolicyName", "none"}, "NoSuchEntity", "policy with name none"},
		{"AttachUserPolicy", []string{"UserName", "alice", "PolicyArn", policyARN + "none"}, "NoSuchEntity", "does not exist"},
		{"DetachUserPolicy", []string{"UserName", "alice", "PolicyArn", policyARN}, "NoSuchEntity", "was not found"},
		{"DeletePolicyVersion", []string{"PolicyArn", policyARN, "VersionId", "v1"}, "DeleteConflict", "default"},
		{"GetPolicyVersion", []string{"PolicyArn", policyARN, "VersionId", "v9"}, "NoSuchEntity", "v9"},
		{"CreateRole", []string{"RoleName", "S", "AssumeRolePolicyDocument", doc}, "MalformedPolicyDocument", "line"},
		{"CreateRole", []string{"RoleName", "S", "AssumeRolePolicyDocument", trustAccount, "MaxSessionDuration", "100"}, "ValidationError", "3600"},
		{"ListUsers", []string{"Marker", "!!"}, "InvalidInput", "Marker"},
		{"ListUsers", []string{"MaxItems", "0"}, "ValidationError", "greater than or equal to 1"},
		{"UploadSSHPublicKey", []string{"UserName", "alice", "SSHPublicKeyBody", "rubbish"}, "InvalidPublicKey", "not valid"},
		{"GetSSHPublicKey", []string{"UserName", "alice", "SSHPublicKeyId", "APKAAAAAAAAAAAAAAAAAA", "Encoding", "SSH"}, "NoSuchEntity", "Public Key"},
		{"SimulatePrincipalPolicy", []string{"PolicySourceArn", "arn:aws:iam::222222222222:user/alice", "ActionNames.member.1", "ssm:StartSession"}, "InvalidInput", "does not name"},
		{"SimulateCustomPolicy", []string{"PolicyInputList.member.1", "{}", "ActionNames.member.1", "ssm:StartSession"}, "InvalidInput", "PolicyInputList.1"},
		{"NoSuchOperation", nil, "InvalidAction", "CreateUser"},
	} {
		got := h.query(admin, "iam", test.operation, test.fields...)
		if got.code() != test.code || !strings.Contains(got.message(), test.message) {
			t.Errorf("%s %v:\ngot %s %q\nwant %s %q", test.operation, test.fields, got.code(), got.message(), test.code, test.message)
		}
	}
}

func TestVersionsOfPolicies(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	h.do(admin, "CreatePolicy", "PolicyName", "P", "PolicyDocument", allow("ssm:*", "*", ""))
	for range 4 {
		h.do(admin, "CreatePolicyVersion", "PolicyArn", policyARN, "PolicyDocument", allow("ec2:*", "*", ""))
	}
	if got := h.query(admin, "iam", "CreatePolicyVersion", "PolicyArn", policyARN, "PolicyDocument", allow("ec2:*", "*", "")); got.code() != "LimitExceeded" {
		t.Errorf("sixth version: got %s", got.body)
	}
	h.do(admin, "SetDefaultPolicyVersion", "PolicyArn", policyARN, "VersionId", "v3")
	if got := h.do(admin, "GetPolicy", "PolicyArn", policyARN).element("DefaultVersionId"); got != "v3" {
		t.Errorf("default version: got %s", got)
	}
	h.do(admin, "DeletePolicyVersion", "PolicyArn", policyARN, "VersionId", "v1")
	h.do(admin, "CreatePolicyVersion", "PolicyArn", policyARN, "PolicyDocument", allow("iam:*", "*", ""))
}

func TestPagesOfUsers(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	for i := range 5 {
		h.do(admin, "CreateUser", "UserName", fmt.Sprintf("user%d", i), "Path", "/staff/")
	}
	var names []string
	marker := []string{}
	for range 10 {
		got := h.do(admin, "ListUsers", append([]string{"MaxItems", "2", "PathPrefix", "/staff/"}, marker...)...)
		for _, part := range strings.Split(got.body, "<UserName>")[1:] {
			name, _, _ := strings.Cut(part, "<")
			names = append(names, name)
		}
		if got.element("IsTruncated") != "true" {
			break
		}
		marker = []string{"Marker", got.element("Marker")}
	}
	if got, want := strings.Join(names, " "), "user0 user1 user2 user3 user4"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSSHPublicKeys(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	h.must(err)
	t.Setenv("GODEBUG", "rsa1024min=0")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	h.must(err)
	line := func(key *rsa.PrivateKey) string {
		pub, err := ssh.NewPublicKey(&key.PublicKey)
		h.must(err)
		return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
	}
	ed := newSSHKey(t, "alice@laptop")
	for _, test := range []struct{ name, body, code string }{
		{"ed25519", ed, ""},
		{"the same again", ed, "DuplicateSSHPublicKey"},
		{"the same under another comment", ed + "2", "DuplicateSSHPublicKey"},
		{"rsa of 2048 bits", line(strong), ""},
		{"rsa of 1024 bits", line(weak), "InvalidPublicKey"},
		{"two keys", newSSHKey(t, "a") + "\n" + newSSHKey(t, "b"), "InvalidPublicKey"},
		{"a forced command", `command="id" ` + newSSHKey(t, "a"), "InvalidPublicKey"},
		{"a private key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "InvalidPublicKey"},
	} {
		got := h.query(admin, "iam", "UploadSSHPublicKey", "UserName", "admin", "SSHPublicKeyBody", test.body)
		if got.code() != test.code {
			t.Errorf("%s: got %s %s, want %q", test.name, got.code(), got.message(), test.code)
		}
	}
	id := h.do(admin, "ListSSHPublicKeys").element("SSHPublicKeyId")
	got := h.do(admin, "GetSSHPublicKey", "UserName", "admin", "SSHPublicKeyId", id, "Encoding", "PEM")
	if body := got.element("SSHPublicKeyBody"); !strings.HasPrefix(body, "-----BEGIN PUBLIC KEY-----") {
		t.Errorf("PEM: got %q", body)
	}
	if f := got.element("Fingerprint"); len(f) != 47 || strings.Count(f, ":") != 15 {
		t.Errorf("fingerprint: got %q", f)
	}
	if got := h.query(admin, "iam", "GetSSHPublicKey", "UserName", "admin", "SSHPublicKeyId", id, "Encoding", "DER"); got.code() != "UnrecognizedPublicKeyEncoding" {
		t.Errorf("encoding DER: got %s", got.code())
	}
	h.do(admin, "UpdateSSHPublicKey", "UserName", "admin", "SSHPublicKeyId", id, "Status", "Inactive")
	h.do(admin, "DeleteSSHPublicKey", "UserName", "admin", "SSHPublicKeyId", id)
}

func TestSimulation(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	h.user("alice", identity.Tags{"Team": "payments, search"}, allow("ssm:StartSession", "*", `{"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"}}`))
	h.do(admin, "CreatePolicy", "PolicyName", "P", "PolicyDocument", allow("ssm:Start*", "*", ""))
	h.do(admin, "CreatePolicy", "PolicyName", "E", "PolicyDocument", allow("ec2:*", "*", ""))
	simulate := func(action string, more ...string) answer {
		return h.do(admin, "SimulatePrincipalPolicy", append([]string{
			"PolicySourceArn", "arn:aws:iam::111111111111:user/alice", "ActionNames.member.1", action}, more...)...)
	}
	team := []string{"ContextEntries.member.1.ContextKeyName", "ssm:resourceTag/Team", "ContextEntries.member.1.ContextKeyValues.member.1"}
	for _, test := range []struct {
		name, action, want string
		more               []string
	}{
		{"no tag", "ssm:StartSession", "implicitDeny", nil},
		{"own team", "ssm:StartSession", "allowed", append(team, "search")},
		{"another team", "ssm:StartSession", "implicitDeny", append(team, "billing")},
		{"other action", "ssm:SendCommand", "implicitDeny", nil},
		{"denied by an added policy", "ssm:StartSession", "explicitDeny", append(team[:3:3], "search",
			"PolicyInputList.member.1", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"ssm:*","Resource":"*"}]}`)},
	} {
		if got := simulate(test.action, test.more...).element("EvalDecision"); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
	h.do(admin, "PutUserPermissionsBoundary", "UserName", "alice", "PermissionsBoundary", "arn:aws:iam::111111111111:policy/E")
	got := simulate("ssm:StartSession", append(team[:3:3], "search")...)
	if got.element("EvalDecision") != "implicitDeny" || got.element("AllowedByPermissionsBoundary") != "false" {
		t.Errorf("outside of the boundary: got %s", got.body)
	}
	if len(h.audited(audit.EventDecision)) == 0 {
		t.Error("nothing was audited")
	}
}

// What people may do with their own keys is decided by a policy on their own name.
func TestOwnKeysAndOthers(t *testing.T) {
	h := newHarness(t)
	own := allow("iam:*AccessKey*", "arn:aws:iam::*:user/${aws:username}", "")
	alice := h.user("alice", nil, own)
	bob := h.user("bob", nil, own)
	made := h.do(alice, "CreateAccessKey")
	if made.element("UserName") != "alice" {
		t.Errorf("key made for %s", made.element("UserName"))
	}
	for _, test := range []struct {
		operation string
		fields    []string
		code      string
	}{
		{"CreateAccessKey", []string{"UserName", "alice"}, "AccessDenied"},
		{"CreateAccessKey", []string{"UserName", "ALICE"}, "AccessDenied"},
		{"ListAccessKeys", []string{"UserName", "alice"}, "AccessDenied"},
		{"DeleteAccessKey", []string{"UserName", "alice", "AccessKeyId", alice.AccessKeyID}, "AccessDenied"},
		{"DeleteAccessKey", []string{"AccessKeyId", alice.AccessKeyID}, "NoSuchEntity"}, // under bob's own name
		{"UpdateAccessKey", []string{"UserName", "bob", "AccessKeyId", alice.AccessKeyID, "Status", "Inactive"}, "NoSuchEntity"},
		{"GetAccessKeyLastUsed", []string{"AccessKeyId", alice.AccessKeyID}, "AccessDenied"},
		{"CreateAccessKey", []string{"UserName", "nobody"}, "AccessDenied"}, // no telling who exists
		{"CreateAccessKey", []string{"UserName", "bob/../alice"}, "ValidationError"},
		{"PutUserPolicy", []string{"UserName", "bob", "PolicyName", "p", "PolicyDocument", allowAll}, "AccessDenied"},
	} {
		if got := h.query(bob, "iam", test.operation, test.fields...); got.code() != test.code {
			t.Errorf("bob: %s %v: got %s %s, want %s", test.operation, test.fields, got.code(), got.message(), test.code)
		}
	}
	if got := h.query(alice, "iam", "ListAccessKeys"); strings.Count(got.body, "<AccessKeyId>") != 2 {
		t.Errorf("alice's keys: %s", got.body)
	}
}

// The secret of a key is in the answer that makes it and nowhere else.
func TestSecretsStayInTheirAnswer(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	h.do(admin, "CreateUser", "UserName", "alice")
	secret := h.do(admin, "CreateAccessKey", "UserName", "alice").element("SecretAccessKey")
	if len(secret) != 40 {
		t.Fatalf("secret of %d characters", len(secret))
	}
	for _, event := range []string{audit.EventDecision, audit.EventChange, audit.EventLogin} {
		if strings.Contains(fmt.Sprint(h.audited(event)), secret) {
			t.Errorf("the secret is in the audit log (%s)", event)
		}
	}
	if strings.Contains(h.logs.String(), secret) {
		t.Error("the secret is in the log")
	}
	for _, operation := range []string{"ListAccessKeys", "GetUser"} {
		if strings.Contains(h.do(admin, operation, "UserName", "alice").body, secret) {
			t.Errorf("the secret is in the answer of %s", operation)
		}
	}
}

// Someone who may make users only within a boundary cannot make one without it, nor
// take it off, nor attach what the condition does not name.
func TestDelegationWithinABoundary(t *testing.T) {
	h := newHarness(t)
	admin := h.user("admin", nil, allowAll)
	h.do(admin, "CreatePolicy", "PolicyName", "P", "PolicyDocument", allow("ssm:*", "*", ""))
	h.do(admin, "CreatePolicy", "PolicyName", "Harmless", "PolicyDocument", allow("ssm:StartSession", "*", ""))
	h.do(admin, "CreatePolicy", "PolicyName", "Root", "PolicyDocument", allowAll)
	within := `{"StringEquals":{"iam:PermissionsBoundary":"` + policyARN + `"}}`
	lead := h.user("lead", nil,
		allow("iam:CreateUser", "arn:aws:iam::*:user/team/*", within),
		allow("iam:PutUserPolicy", "arn:aws:iam::*:user/team/*", within),
		allow("iam:PutUserPermissionsBoundary", "arn:aws:iam::*:user/team/*", within),
		allow("iam:AttachUserPolicy", "*", `{"ArnEquals":{"iam:PolicyARN":"arn:aws:iam::111111111111:policy/Harmless"}}`),
		allow("iam:UpdateUser", "arn:aws:iam::*:user/team/*", ""),
	)
	h.do(admin, "CreateUser", "UserName", "free", "Path", "/team/")
	for _, test := range []struct {
		operation string
		fields    []string
		code      string
	}{
		{"CreateUser", []string{"UserName", "mate", "Path", "/team/", "PermissionsBoundary", policyARN}, ""},
		{"CreateUser", []string{"UserName", "mate2", "Path", "/team/"}, "AccessDenied"},
		{"CreateUser", []string{"UserName", "mate2", "Path", "/", "PermissionsBoundary", policyARN}, "AccessDenied"},
		{"CreateUser", []string{"UserName", "mate2", "Path", "/team/", "PermissionsBoundary", "arn:aws:iam::111111111111:policy/Root"}, "AccessDenied"},
		{"PutUserPolicy", []string{"UserName", "mate", "PolicyName", "p", "PolicyDocument", allowAll}, ""}, // bounded
		{"PutUserPolicy", []string{"UserName", "free", "PolicyName", "p", "PolicyDocument", allowAll}, "AccessDenied"},
		{"PutUserPermissionsBoundary", []string{"UserName", "mate", "PermissionsBoundary", "arn:aws:iam::111111111111:policy/Root"}, "AccessDenied"},
		{"PutUserPermissionsBoundary", []string{"UserName", "free", "PermissionsBoundary", policyARN}, ""},
		{"DeleteUserPermissionsBoundary", []string{"UserName", "mate"}, "AccessDenied"},
		{"AttachUserPolicy", []string{"UserName", "mate", "PolicyArn", "arn:aws:iam::111111111111:policy/Root"}, "AccessDenied"},
		{"AttachUserPolicy", []string{"UserName", "mate", "PolicyArn", "arn:aws:iam::111111111111:policy/Harmless"}, ""},
		{"UpdateUser", []string{"UserName", "mate", "NewPath", "/admins/"}, "AccessDenied"},
		{"UpdateUser", []string{"UserName", "admin", "NewPath", "/team/"}, "AccessDenied"},
		{"UpdateUser", []string{"UserName", "mate", "NewUserName", "colleague"}, ""},
	} {
		if got := h.query(lead, "iam", test.operation, test.fields...); got.code() != test.code {
			t.Errorf("%s %v: got %s %s, want %q", test.operation, test.fields, got.code(), got.message(), test.code)
		}
	}
	if got := h.query(admin, "iam", "DeletePolicy", "PolicyArn", policyARN); got.code() != "DeleteConflict" {
		t.Errorf("deleting a boundary in use: got %s", got.body)
	}
}

func FuzzSSHKey(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0 comment")
	f.Add("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")
	f.Fuzz(func(t *testing.T, body string) {
		pub, comment, err := parseSSHKey(body)
		if err != nil {
			return
		}
		if line := authorizedKey(pub, comment); strings.ContainsAny(line, "\r\n\x00\x1b") {
			t.Errorf("key line %q", line)
		}
	})
}
