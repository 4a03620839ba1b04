package server

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"sallyport.dev/audit"
	"sallyport.dev/factor"
	"sallyport.dev/identity"
	"sallyport.dev/internal/needs"
	"sallyport.dev/signin"
	"sallyport.dev/store"
)

// withKeeper gives a harness's server passwords and second factors.
func withKeeper(c *Config) {
	keeper, err := factor.New(factor.Config{
		Store: c.Identities.(*store.Store), People: c.Identities, Sealer: c.Sealer, Realm: c.Realm, Logger: c.Logger, Now: c.Now,
		URL: "https://sallyport.example", Cost: factor.Cost{Memory: 8, Passes: 1, Threads: 1},
	})
	if err != nil {
		panic(err)
	}
	c.Factors = keeper
}

// withSignIns lets people sign in at a harness's server.
func withSignIns(c *Config) {
	service, err := signin.New(signin.Config{
		URL: "https://sallyport.example", Realm: c.Realm, Store: c.Identities.(*store.Store), Identities: c.Identities,
		Audit: c.Audit, Sealer: c.Sealer, Logger: c.Logger, Now: c.Now,
	})
	if err != nil {
		panic(err)
	}
	c.SignIns = service
}

// device is a second factor of somebody in a test.
type device struct{ id, serial, secret string }

func (h *harness) code(d device) string {
	h.t.Helper()
	code, err := totp.GenerateCode(d.secret, h.clock())
	h.must(err)
	return code
}

// call calls an operation of our own that must succeed, and decodes its answer.
func (h *harness) call(c identity.Credentials, operation string, in, out any) {
	h.t.Helper()
	got := h.json(c, "Sallyport."+operation, in)
	if got.status != 200 {
		h.t.Fatalf("%s: got %d %s", operation, got.status, got.body)
	}
	if out != nil {
		h.must(json.Unmarshal([]byte(got.body), out))
	}
}

// refused calls an operation of our own that must be refused in such words.
func (h *harness) refused(c identity.Credentials, operation string, in any, want string) {
	h.t.Helper()
	got := h.json(c, "Sallyport."+operation, in)
	if got.status < 400 || !strings.Contains(got.message(), want) {
		h.t.Errorf("%s: got %d %s, want %q", operation, got.status, got.body, want)
	}
}

// enrol gives somebody a second factor; the clock is past its code then.
func (h *harness) enrol(c identity.Credentials) device {
	h.t.Helper()
	var added struct {
		Factor struct{ FactorId, SerialNumber string }
		Secret string
	}
	h.call(c, "AddFactor", map[string]string{}, &added)
	d := device{added.Factor.FactorId, added.Factor.SerialNumber, added.Secret}
	h.call(c, "EnableFactor", map[string]string{"FactorId": d.id, "Code": h.code(d)}, nil)
	h.advance(time.Minute)
	return d
}

// mfa are the members of a call of STS that show a device.
func (h *harness) mfa(d device) []string {
	return []string{"SerialNumber", d.serial, "TokenCode", h.code(d)}
}

const needsMFA = `{"Version":"2012-10-17","Statement":[
	{"Effect":"Allow","Action":["sts:AssumeRole","iam:ListUsers"],"Resource":"*","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}},
	{"Effect":"Allow","Action":"iam:ListRoles","Resource":"*","Condition":{"NumericLessThan":{"aws:MultiFactorAuthAge":"300"}}}]}`

// A code makes aws:MultiFactorAuthPresent true and begins aws:MultiFactorAuthAge, in
// credentials of GetSessionToken and for AssumeRole itself and after.
func TestSecondFactorInSTS(t *testing.T) {
	h := newHarness(t, withKeeper)
	alice := h.user("alice", nil, needsMFA)
	h.role("Ops", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"111111111111"},"Action":"sts:AssumeRole",
		"Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}}}`, needsMFA)
	d := h.enrol(alice)
	assume := []string{"RoleArn", "arn:aws:iam::111111111111:role/Ops", "RoleSessionName", "ss"}
	if got := h.query(alice, "iam", "ListUsers"); got.code() != "AccessDenied" {
		t.Errorf("a key alone: got %d %s", got.status, got.body)
	}
	if got := h.query(alice, "sts", "AssumeRole", assume...); got.code() != "AccessDenied" {
		t.Errorf("AssumeRole with a key alone: got %d %s", got.status, got.body)
	}
	plain := h.query(alice, "sts", "GetSessionToken").credentials()
	if got := h.query(plain, "iam", "ListUsers"); got.code() != "AccessDenied" {
		t.Errorf("a session without: got %d %s", got.status, got.body)
	}
	session := h.query(alice, "sts", "GetSessionToken", h.mfa(d)...).credentials()
	if got := h.query(session, "iam", "ListUsers"); got.status != 200 {
		t.Errorf("a session with: got %d %s", got.status, got.body)
	}
	if got := h.query(session, "iam", "ListRoles"); got.status != 200 {
		t.Errorf("a fresh one: got %d %s", got.status, got.body)
	}
	role := h.query(session, "sts", "AssumeRole", assume...).credentials()
	if got := h.query(role, "iam", "ListUsers"); got.status != 200 {
		t.Errorf("a role assumed in it: got %d %s", got.status, got.body)
	}
	h.advance(time.Minute)
	role = h.query(alice, "sts", "AssumeRole", append(assume, h.mfa(d)...)...).credentials()
	if got := h.query(role, "iam", "ListUsers"); got.status != 200 {
		t.Errorf("a role assumed with a code: got %d %s", got.status, got.body)
	}
	h.advance(6 * time.Minute)
	if got := h.query(session, "iam", "ListRoles"); got.code() != "AccessDenied" {
		t.Errorf("six minutes later: got %d %s", got.status, got.body)
	}
}

func TestSecondFactorRefused(t *testing.T) {
	h := newHarness(t, withKeeper)
	alice, bob := h.user("alice", nil), h.user("bob", nil)
	d, bobs := h.enrol(alice), h.enrol(bob)
	used := h.code(d)
	if got := h.query(alice, "sts", "GetSessionToken", "SerialNumber", d.serial, "TokenCode", used); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	for _, test := range []struct {
		name   string
		fields []string
		want   string
	}{
		{"a code twice", []string{"SerialNumber", d.serial, "TokenCode", used}, mfaWrong},
		{"no code", []string{"SerialNumber", d.serial}, mfaIncomplete},
		{"no serial number", []string{"TokenCode", "123456"}, mfaIncomplete},
		{"somebody else's device", h.mfa(bobs), mfaNoDevice},
		{"no device", []string{"SerialNumber", "arn:aws:iam::111111111111:mfa/none", "TokenCode", "123456"}, mfaNoDevice},
		{"a device of another account", []string{"SerialNumber", "arn:aws:iam::222222222222:mfa/alice", "TokenCode", "123456"}, mfaNoDevice},
		{"a wrong code", []string{"SerialNumber", d.serial, "TokenCode", "000000"}, mfaWrong},
	} {
		if got := h.query(alice, "sts", "GetSessionToken", test.fields...); got.code() != "AccessDenied" || got.message() != test.want {
			t.Errorf("%s: got %d %s", test.name, got.status, got.body)
		}
	}
	for range 8 {
		h.query(alice, "sts", "GetSessionToken", "SerialNumber", d.serial, "TokenCode", "000000")
	}
	h.advance(time.Minute)
	if got := h.query(alice, "sts", "GetSessionToken", h.mfa(d)...); !strings.Contains(got.message(), "too many attempts") {
		t.Errorf("after many guesses: got %d %s", got.status, got.body)
	}
	guessed := 0
	for _, r := range h.audited(audit.EventSignIn) {
		if r.Decision == "Refused" && strings.HasPrefix(r.Reason, "second factor: ") {
			guessed++
		}
		for _, v := range r.Details {
			if v == used || v == "000000" {
				t.Error("the audit log holds a code")
			}
		}
	}
	if guessed < 10 {
		t.Errorf("got %d records of refused factors", guessed)
	}
	if strings.Contains(h.logs.String(), used) {
		t.Error("the log holds a code")
	}
}

// StepUp answers with the caller's own credentials, stronger: as a user and in a role,
// never longer than those that it was called with.
func TestStepUp(t *testing.T) {
	h := newHarness(t, withKeeper)
	alice := h.user("alice", nil, needsMFA, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}}`)
	h.role("Ops", trustAccount, needsMFA)
	d := h.enrol(alice)
	up := func(c identity.Credentials) identity.Credentials {
		t.Helper()
		var out struct {
			Credentials struct {
				AccessKeyId, SecretAccessKey, SessionToken string
				Expiration                                 float64
			}
		}
		h.call(c, "StepUp", map[string]string{"Code": h.code(d)}, &out)
		h.advance(time.Minute)
		left := time.Unix(int64(out.Credentials.Expiration), 0).Sub(h.clock())
		if left > time.Hour {
			t.Errorf("got credentials for %v", left)
		}
		return identity.Credentials{AccessKeyID: out.Credentials.AccessKeyId, SecretAccessKey: out.Credentials.SecretAccessKey, SessionToken: out.Credentials.SessionToken}
	}
	if got := h.query(up(alice), "iam", "ListUsers"); got.status != 200 {
		t.Errorf("as a user: got %d %s", got.status, got.body)
	}
	role := h.query(alice, "sts", "AssumeRole", "RoleArn", "arn:aws:iam::111111111111:role/Ops", "RoleSessionName", "ss", "DurationSeconds", "900").credentials()
	if got := h.query(role, "iam", "ListUsers"); got.code() != "AccessDenied" {
		t.Errorf("in a role, before: got %d %s", got.status, got.body)
	}
	strong := up(role)
	if got := h.query(strong, "iam", "ListUsers"); got.status != 200 {
		t.Errorf("in a role: got %d %s", got.status, got.body)
	}
	if got := h.query(strong, "sts", "GetCallerIdentity"); got.element("Arn") != "arn:aws:sts::111111111111:assumed-role/Ops/ss" {
		t.Errorf("who that is: got %s", got.body)
	}
	h.advance(15 * time.Minute)
	if got := h.query(strong, "sts", "GetCallerIdentity"); got.code() != "ExpiredToken" {
		t.Errorf("past the end of the role's session: got %d %s", got.status, got.body)
	}
	h.refused(alice, "StepUp", map[string]string{"Code": "000000"}, mfaWrong)
}

// Who has stolen a key alone enrols no factor beside one that there is, removes none and
// sets no password.
func TestStolenKey(t *testing.T) {
	h := newHarness(t, withKeeper)
	alice := h.user("alice", nil, allowAll)
	d := h.enrol(alice)
	const because = "because there is a second factor, which must be given first"
	h.refused(alice, "AddFactor", map[string]string{"Name": "thief"}, because)
	h.refused(alice, "RemoveFactor", map[string]string{"FactorId": d.id}, because)
	h.refused(alice, "RemoveFactor", map[string]string{"FactorId": d.id, "UserName": "ALICE"}, because)
	made := h.query(alice, "iam", "CreateVirtualMFADevice", "VirtualMFADeviceName", "thief")
	for operation, fields := range map[string][]string{
		"EnableMFADevice":     {"UserName", "alice", "SerialNumber", made.element("SerialNumber"), "AuthenticationCode1", "123456", "AuthenticationCode2", "123456"},
		"DeactivateMFADevice": {"UserName", "alice", "SerialNumber", d.serial},
	} {
		if got := h.query(alice, "iam", operation, fields...); got.code() != "AccessDenied" || !strings.Contains(got.message(), because) {
			t.Errorf("%s: got %d %s", operation, got.status, got.body)
		}
	}
	h.refused(alice, "ChangePassword", map[string]string{"OldPassword": "x", "NewPassword": "a password of the thief's"}, "not right")
	session := h.query(alice, "sts", "GetSessionToken", h.mfa(d)...).credentials()
	h.call(session, "AddFactor", map[string]string{"Name": "second"}, nil)
	h.advance(16 * time.Minute)
	h.refused(session, "AddFactor", map[string]string{"Name": "third"}, because)
	h.advance(time.Minute)
	session = h.query(alice, "sts", "GetSessionToken", h.mfa(d)...).credentials()
	h.call(session, "RemoveFactor", map[string]string{"FactorId": "alice"}, nil)
	if got := h.query(alice, "sts", "GetSessionToken", h.mfa(d)...); got.message() != mfaNoDevice {
		t.Errorf("a removed factor: got %d %s", got.status, got.body)
	}
}

// Where there is a password the person must sign in before a first factor.
func TestFirstFactorBesidePassword(t *testing.T) {
	h := newHarness(t, withKeeper)
	admin, bob := h.user("admin", nil, allowAll), h.user("bob", nil)
	var out struct{ InitialPassword string }
	h.refused(bob, "ResetPassword", map[string]string{"UserName": "admin"}, "not authorized to perform: sallyport:ResetPassword")
	h.refused(bob, "ResetPassword", map[string]string{}, "not authorized to perform: sallyport:ResetPassword")
	h.call(admin, "ResetPassword", map[string]string{"UserName": "bob"}, &out)
	h.refused(bob, "AddFactor", map[string]string{}, "because there is a password, so that the person must sign in first")
	h.refused(bob, "ChangePassword", map[string]string{"OldPassword": out.InitialPassword, "NewPassword": "short"}, "12 or more")
	h.call(bob, "ChangePassword", map[string]string{"OldPassword": out.InitialPassword, "NewPassword": "a password of my own"}, nil)
	var list struct{ HasPassword, MustChange bool }
	h.call(bob, "ListFactors", map[string]string{}, &list)
	if !list.HasPassword || list.MustChange {
		t.Errorf("got %+v", list)
	}
	h.refused(bob, "ListFactors", map[string]string{"UserName": "admin"}, "not authorized to perform: sallyport:ListFactors")
	h.refused(bob, "ListFactors", map[string]string{"UserName": "nobody"}, "not authorized to perform: sallyport:ListFactors")
	for _, r := range h.audited("") {
		for _, v := range r.Details {
			if strings.Contains(v, out.InitialPassword) || strings.Contains(v, "of my own") {
				t.Errorf("the audit log holds a password: %+v", r)
			}
		}
	}
}

// A server without a keeper says so.
func TestNoFactors(t *testing.T) {
	h := newHarness(t)
	alice := h.user("alice", nil, allowAll)
	h.refused(alice, "AddFactor", map[string]string{}, "keeps no passwords and second factors")
	if got := h.query(alice, "iam", "ListMFADevices"); got.code() != "ValidationError" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if got := h.query(alice, "sts", "GetSessionToken", "SerialNumber", "arn:aws:iam::111111111111:mfa/alice", "TokenCode", "123456"); got.message() != mfaNoDevice {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// The stock command line manages MFA devices and gets credentials with them, by itself
// and for profiles with mfa_serial.
func TestMFAWithAWS(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts the aws command several times")
	}
	python := needs.Program(t, "python3")
	for _, cli := range needs.AWS(t) {
		t.Run(strings.ReplaceAll(strings.Trim(cli, "/"), "/", "_"), func(t *testing.T) {
			h := newHarness(t, withKeeper)
			admin, alice := h.user("admin", nil, allowAll), h.user("alice", nil, needsMFA)
			h.role("Ops", trustAccount)
			h.tryMFA(t, cli, python, admin, alice)
		})
	}
}

func (h *harness) tryMFA(t *testing.T, cli, python string, admin, alice identity.Credentials) {
	out, err := h.shell(cli, admin, `
		aws iam create-virtual-mfa-device --virtual-mfa-device-name phone --outfile seed --bootstrap-method Base32StringSeed
		(aws iam create-virtual-mfa-device --virtual-mfa-device-name phone --outfile x --bootstrap-method QRCodePNG 2>&1 || true) | grep -o EntityAlreadyExists
		aws iam create-virtual-mfa-device --virtual-mfa-device-name other --outfile code.png --bootstrap-method QRCodePNG
		aws iam delete-virtual-mfa-device --serial-number arn:aws:iam::111111111111:mfa/other
		head -c 4 code.png | tail -c 3; cat seed`)
	if err != nil || !strings.Contains(out, "arn:aws:iam::111111111111:mfa/phone") || !strings.Contains(out, "EntityAlreadyExists") || !strings.Contains(out, "PNG") {
		t.Fatalf("creating: %v\n%s", err, out)
	}
	d := device{serial: "arn:aws:iam::111111111111:mfa/phone", secret: strings.TrimSpace(out[strings.LastIndex(out, "PNG")+3:])}
	first := h.code(d)
	h.advance(30 * time.Second)
	second := h.code(d)
	out, err = h.shell(cli, admin, `
		(aws iam enable-mfa-device --user-name alice --serial-number `+d.serial+` --authentication-code1 000000 --authentication-code2 000000 2>&1 || true) | grep InvalidAuthenticationCode
		aws iam enable-mfa-device --user-name alice --serial-number `+d.serial+` --authentication-code1 `+first+` --authentication-code2 `+second+`
		aws iam list-mfa-devices --user-name alice --query 'MFADevices[].SerialNumber' --output text
		aws iam list-virtual-mfa-devices --assignment-status Assigned --query 'VirtualMFADevices[].User.UserName' --output text`)
	if err != nil || !strings.Contains(out, d.serial) || !strings.Contains(out, "alice") {
		t.Fatalf("enabling: %v\n%s", err, out)
	}
	h.advance(time.Minute)
	out, err = h.shell(cli, alice, `aws sts get-session-token --serial-number `+d.serial+` --token-code `+h.code(d)+` --query Credentials.SessionToken --output text`)
	if err != nil || len(strings.TrimSpace(out)) < 100 {
		t.Errorf("get-session-token: %v\n%s", err, out)
	}
	h.advance(time.Minute)
	h.profileMFA(t, cli, python, alice, d)
	out, err = h.shell(cli, admin, `
		(aws iam delete-virtual-mfa-device --serial-number `+d.serial+` 2>&1 || true) | grep DeleteConflict
		aws iam deactivate-mfa-device --user-name alice --serial-number `+d.serial+`
		aws iam delete-virtual-mfa-device --serial-number `+d.serial+`
		aws iam list-virtual-mfa-devices --query 'length(VirtualMFADevices)'`)
	if err != nil || strings.TrimSpace(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]) != "0" {
		t.Errorf("removing: %v\n%s", err, out)
	}
}

// profileMFA uses a profile with mfa_serial, whose code the command line asks for at a
// terminal.
func (h *harness) profileMFA(t *testing.T, cli, python string, alice identity.Credentials, d device) {
	if strings.HasPrefix(cli, "/usr/bin") || strings.HasPrefix(cli, "/bin") {
		return // 2.9 knows no endpoint_url in profiles: it would ask AWS for the role
	}
	dir := t.TempDir()
	config := "[profile ops]\nrole_arn = arn:aws:iam::111111111111:role/Ops\nsource_profile = alice\nmfa_serial = " + d.serial + "\nregion = us-east-1\n" +
		"[profile alice]\naws_access_key_id = " + alice.AccessKeyID + "\naws_secret_access_key = " + alice.SecretAccessKey + "\nregion = us-east-1\n"
	h.must(os.WriteFile(dir+"/config", []byte(config), 0o600))
	script := `
import pty, os, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execvpe(sys.argv[1], [sys.argv[1], "--profile", "ops", "sts", "get-caller-identity", "--output", "text", "--query", "Arn"], os.environ)
seen = b""
while b"MFA code" not in seen:
    seen += os.read(fd, 1024)
time.sleep(0.2)
os.write(fd, sys.argv[2].encode() + b"\n")
try:
    while True:
        b = os.read(fd, 1024)
        if not b: break
        seen += b
except OSError:
    pass
print(seen.decode())
`
	cmd := exec.CommandContext(t.Context(), python, "-c", script, cli, h.code(d))
	cmd.Env = []string{"PATH=" + strings.TrimSuffix(cli, "/aws") + ":/usr/bin:/bin", "HOME=" + dir, "AWS_CONFIG_FILE=" + dir + "/config",
		"AWS_ENDPOINT_URL=" + h.http.URL, "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER="}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "assumed-role/Ops/") {
		t.Errorf("mfa_serial: %v\n%s", err, out)
	}
}
