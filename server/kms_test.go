package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/internal/needs"
	"sallyport.dev/kms"
	"sallyport.dev/session"
)

// vault is a server that keeps keys.
type vault struct {
	*harness
	admin identity.Credentials
	keys  *kms.Keeper
}

func newVault(t testing.TB, changes ...func(*Config)) *vault {
	t.Helper()
	v := &vault{}
	v.harness = newHarness(t, append(changes, func(c *Config) {
		v.keys = kms.New(kms.Config{Store: c.Identities.(kms.Store), Sealer: c.Sealer, Now: c.Now})
		c.Keys = v.keys
	})...)
	v.admin = v.user("admin", nil, allowAll)
	return v
}

// ask calls an operation of the service kms and returns what it answered.
func (v *vault) ask(c identity.Credentials, operation string, in map[string]any) (out struct {
	CiphertextBlob, Plaintext []byte
	KeyId, SourceKeyId        string
	KeyMetadata               keyMetadata
	answer                    answer
}) {
	v.t.Helper()
	if in == nil {
		in = map[string]any{}
	}
	out.answer = v.json(c, "TrentService."+operation, in)
	if out.answer.status == 200 {
		v.must(json.Unmarshal([]byte(out.answer.body), &out))
	}
	return out
}

// ok is ask of what must succeed.
func (v *vault) ok(c identity.Credentials, operation string, in map[string]any) (out struct {
	CiphertextBlob, Plaintext []byte
	KeyId, SourceKeyId        string
	KeyMetadata               keyMetadata
	answer                    answer
}) {
	v.t.Helper()
	if out = v.ask(c, operation, in); out.answer.status != 200 {
		v.t.Fatalf("%s: %d %s", operation, out.answer.status, out.answer.body)
	}
	return out
}

func (v *vault) wantCode(what string, got answer, code string) {
	v.t.Helper()
	if got.code() != code {
		v.t.Errorf("%s: got %q %s, want %s", what, got.code(), got.body, code)
	}
}

func (v *vault) key() keyMetadata {
	v.t.Helper()
	return v.ok(v.admin, "CreateKey", nil).KeyMetadata
}

func TestKMSTexts(t *testing.T) {
	v := newVault(t)
	k, other := v.key(), v.key()
	v.ok(v.admin, "CreateAlias", map[string]any{"AliasName": "alias/k", "TargetKeyId": k.KeyID})
	context := map[string]string{"purpose": "test"}
	for _, name := range []string{k.KeyID, k.Arn, "alias/k", "arn:aws:kms:us-east-1:111111111111:alias/k"} {
		made := v.ok(v.admin, "Encrypt", map[string]any{"KeyId": name, "Plaintext": []byte("hello"), "EncryptionContext": context})
		if made.KeyId != k.Arn {
			t.Errorf("%s: got key %s, want %s", name, made.KeyId, k.Arn)
		}
		opened := v.ok(v.admin, "Decrypt", map[string]any{"CiphertextBlob": made.CiphertextBlob, "EncryptionContext": context})
		if string(opened.Plaintext) != "hello" || opened.KeyId != k.Arn {
			t.Errorf("%s: got %q with key %s", name, opened.Plaintext, opened.KeyId)
		}
		v.ok(v.admin, "Decrypt", map[string]any{"CiphertextBlob": made.CiphertextBlob, "EncryptionContext": context, "KeyId": name})
		v.wantCode("another context", v.ask(v.admin, "Decrypt", map[string]any{"CiphertextBlob": made.CiphertextBlob}).answer, "InvalidCiphertextException")
		v.wantCode("another key", v.ask(v.admin, "Decrypt", map[string]any{
			"CiphertextBlob": made.CiphertextBlob, "EncryptionContext": context, "KeyId": other.KeyID,
		}).answer, "IncorrectKeyException")
		moved := v.ok(v.admin, "ReEncrypt", map[string]any{
			"CiphertextBlob": made.CiphertextBlob, "SourceEncryptionContext": context, "DestinationKeyId": other.Arn,
		})
		if moved.KeyId != other.Arn || moved.SourceKeyId != k.Arn {
			t.Errorf("moved from %s to %s", moved.SourceKeyId, moved.KeyId)
		}
		if got := v.ok(v.admin, "Decrypt", map[string]any{"CiphertextBlob": moved.CiphertextBlob}); string(got.Plaintext) != "hello" {
			t.Errorf("moved: got %q", got.Plaintext)
		}
	}
}

func TestKMSDataKeys(t *testing.T) {
	v := newVault(t)
	k := v.key()
	for size, in := range map[int]map[string]any{
		32: {"KeySpec": "AES_256"}, 16: {"KeySpec": "AES_128"}, 64: {"NumberOfBytes": 64}, 1024: {"NumberOfBytes": 1024}, 1: {"NumberOfBytes": 1},
	} {
		in["KeyId"] = k.KeyID
		made := v.ok(v.admin, "GenerateDataKey", in)
		opened := v.ok(v.admin, "Decrypt", map[string]any{"CiphertextBlob": made.CiphertextBlob})
		if len(made.Plaintext) != size || !bytes.Equal(made.Plaintext, opened.Plaintext) {
			t.Errorf("%v: got %d bytes, which decrypt to %d", in, len(made.Plaintext), len(opened.Plaintext))
		}
		hidden := v.ok(v.admin, "GenerateDataKeyWithoutPlaintext", in)
		if strings.Contains(hidden.answer.body, "Plaintext") || len(hidden.CiphertextBlob) == 0 {
			t.Errorf("without plaintext: got %s", hidden.answer.body)
		}
	}
	for _, in := range []map[string]any{
		{}, {"KeySpec": "AES_256", "NumberOfBytes": 32}, {"KeySpec": "AES_512"}, {"NumberOfBytes": 0}, {"NumberOfBytes": 1025},
	} {
		in["KeyId"] = k.KeyID
		v.wantCode(fmt.Sprint(in), v.ask(v.admin, "GenerateDataKey", in).answer, "ValidationException")
	}
}

// What is too large, misshapen or not to be had is refused, with AWS's codes.
func TestKMSRefusals(t *testing.T) {
	v := newVault(t)
	k := v.key()
	big := strings.Repeat("x", 9000)
	for _, tt := range []struct {
		operation string
		in        map[string]any
		code      string
	}{
		{"Encrypt", map[string]any{"KeyId": k.KeyID, "Plaintext": make([]byte, 4097)}, "ValidationException"},
		{"Encrypt", map[string]any{"KeyId": k.KeyID, "Plaintext": ""}, "ValidationException"},
		{"Encrypt", map[string]any{"KeyId": k.KeyID, "Plaintext": "****"}, "SerializationException"},
		{"Encrypt", map[string]any{"KeyId": k.KeyID, "Plaintext": []byte("x"), "EncryptionContext": map[string]string{"k": big}}, "ValidationException"},
		{"Encrypt", map[string]any{"KeyId": k.KeyID, "Plaintext": []byte("x"), "EncryptionContext": map[string]string{"k": "", "K": ""}}, "ValidationException"},
		{"Encrypt", map[string]any{"KeyId": k.KeyID, "Plaintext": []byte("x"), "EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}, "ValidationException"},
		{"Encrypt", map[string]any{"KeyId": k.KeyID, "Plaintext": []byte("x"), "GrantTokens": []string{"x"}}, "InvalidGrantTokenException"},
		{"Encrypt", map[string]any{"KeyId": k.KeyID, "Plaintext": []byte("x"), "DryRun": true}, "DryRunOperationException"},
		{"Encrypt", map[string]any{"KeyId": "alias/none", "Plaintext": []byte("x")}, "NotFoundException"},
		{"Encrypt", map[string]any{"KeyId": "arn:aws:kms:us-east-1:222222222222:key/" + k.KeyID, "Plaintext": []byte("x")}, "NotFoundException"},
		{"Decrypt", map[string]any{"CiphertextBlob": make([]byte, 6145)}, "ValidationException"},
		{"Decrypt", map[string]any{"CiphertextBlob": []byte("SpK\x01 but nothing more")}, "InvalidCiphertextException"},
		{"Decrypt", map[string]any{"CiphertextBlob": "x"}, "SerializationException"},
		{"CreateKey", map[string]any{"KeySpec": "RSA_2048"}, "UnsupportedOperationException"},
		{"CreateKey", map[string]any{"Policy": "{}"}, "UnsupportedOperationException"},
		{"CreateKey", map[string]any{"Tags": []map[string]string{{"TagKey": "a", "TagValue": "b"}}}, "UnsupportedOperationException"},
		{"CreateAlias", map[string]any{"AliasName": "alias/aws/ssm", "TargetKeyId": k.KeyID}, "InvalidAliasNameException"},
		{"CreateAlias", map[string]any{"AliasName": "k", "TargetKeyId": k.KeyID}, "InvalidAliasNameException"},
		{"DeleteAlias", map[string]any{"AliasName": "alias/none"}, "NotFoundException"},
		{"ScheduleKeyDeletion", map[string]any{"KeyId": k.KeyID, "PendingWindowInDays": 6}, "ValidationException"},
		{"CancelKeyDeletion", map[string]any{"KeyId": k.KeyID}, "KMSInvalidStateException"},
		{"EnableKeyRotation", map[string]any{"KeyId": k.KeyID, "RotationPeriodInDays": 89}, "ValidationException"},
		{"ListKeys", map[string]any{"Marker": "x"}, "InvalidMarkerException"},
	} {
		v.wantCode(fmt.Sprint(tt.operation, tt.in)[:min(200, len(fmt.Sprint(tt.operation, tt.in)))], v.ask(v.admin, tt.operation, tt.in).answer, tt.code)
	}
}

// A key that is not Enabled does nothing; a deleted one comes back within its window, and
// not after it.
func TestKMSLifeOfAKey(t *testing.T) {
	v := newVault(t)
	k := v.key()
	in := map[string]any{"KeyId": k.KeyID}
	made := v.ok(v.admin, "Encrypt", map[string]any{"KeyId": k.KeyID, "Plaintext": []byte("hello")})
	decrypt := func(what, code string) {
		t.Helper()
		v.wantCode(what, v.ask(v.admin, "Decrypt", map[string]any{"CiphertextBlob": made.CiphertextBlob}).answer, code)
	}
	v.ok(v.admin, "RotateKeyOnDemand", in)
	v.ok(v.admin, "EnableKeyRotation", in)
	if got := v.ok(v.admin, "GetKeyRotationStatus", in).answer.body; !strings.Contains(got, `"KeyRotationEnabled":true,"RotationPeriodInDays":365`) {
		t.Errorf("rotation: got %s", got)
	}
	decrypt("after a rotation", "")
	v.ok(v.admin, "DisableKey", in)
	decrypt("disabled", "DisabledException")
	v.wantCode("disabled", v.ask(v.admin, "GenerateDataKey", map[string]any{"KeyId": k.KeyID, "NumberOfBytes": 64}).answer, "DisabledException")
	v.ok(v.admin, "EnableKey", in)
	decrypt("enabled", "")
	v.ok(v.admin, "ScheduleKeyDeletion", map[string]any{"KeyId": k.KeyID, "PendingWindowInDays": 7})
	decrypt("pending deletion", "KMSInvalidStateException")
	v.advance(7*24*time.Hour - time.Second)
	v.ok(v.admin, "CancelKeyDeletion", in)
	if got := v.ok(v.admin, "DescribeKey", in).KeyMetadata; got.KeyState != "Disabled" || got.Enabled {
		t.Errorf("got %+v, want a disabled key", got)
	}
	v.ok(v.admin, "ScheduleKeyDeletion", map[string]any{"KeyId": k.KeyID, "PendingWindowInDays": 7})
	v.advance(7 * 24 * time.Hour)
	decrypt("gone", "NotFoundException")
	v.wantCode("gone", v.ask(v.admin, "CancelKeyDeletion", in).answer, "NotFoundException")
}

// Policies give keys to people, by key, by alias and by encryption context.
func TestKMSPolicies(t *testing.T) {
	v := newVault(t)
	k, other := v.key(), v.key()
	v.ok(v.admin, "CreateAlias", map[string]any{"AliasName": "alias/k", "TargetKeyId": k.KeyID})
	statement := func(action, resource, condition string) string {
		if condition != "" {
			condition = `,"Condition":` + condition
		}
		return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"` + action + `","Resource":"` + resource + `"` + condition + `}}`
	}
	byKey := v.user("by-key", nil, statement("kms:GenerateDataKey", k.Arn, ""))
	byContext := v.user("by-context", nil, statement("kms:GenerateDataKey", "*", `{"StringEquals":{"kms:EncryptionContext:Team":"payments"},"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["Team"]}}`))
	byAlias := v.user("by-alias", nil, statement("kms:GenerateDataKey", "*", `{"StringEquals":{"kms:RequestAlias":"alias/k"}}`))
	halfMove := v.user("half-move", nil, statement("kms:ReEncryptFrom", "*", ""))
	for _, tt := range []struct {
		who  string
		c    identity.Credentials
		key  string
		e    map[string]string
		code string
	}{
		{"the key", byKey, k.KeyID, nil, ""},
		{"the key by its alias", byKey, "alias/k", nil, ""},
		{"another key", byKey, other.KeyID, nil, "AccessDeniedException"},
		{"a key that does not exist", byKey, "00000000-0000-4000-8000-000000000000", nil, "AccessDeniedException"},
		{"an alias that does not exist", byKey, "alias/none", nil, "AccessDeniedException"},
		{"the context", byContext, other.KeyID, map[string]string{"Team": "payments"}, ""},
		{"another context", byContext, k.KeyID, map[string]string{"Team": "search"}, "AccessDeniedException"},
		{"a larger context", byContext, k.KeyID, map[string]string{"Team": "payments", "x": "y"}, "AccessDeniedException"},
		{"no context", byContext, k.KeyID, nil, "AccessDeniedException"},
		{"the alias", byAlias, "alias/k", nil, ""},
		{"what the alias names", byAlias, k.KeyID, nil, "AccessDeniedException"},
	} {
		v.wantCode(tt.who, v.ask(tt.c, "GenerateDataKey", map[string]any{"KeyId": tt.key, "NumberOfBytes": 64, "EncryptionContext": tt.e}).answer, tt.code)
	}
	want := "User: arn:aws:iam::111111111111:user/by-key is not authorized to perform: kms:GenerateDataKey on resource: " + other.Arn +
		" because no identity-based policy allows the kms:GenerateDataKey action"
	if got := v.ask(byKey, "GenerateDataKey", map[string]any{"KeyId": other.KeyID, "NumberOfBytes": 64}).answer.message(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// A permission for the key that a text is to be encrypted with is none for another that
	// it was encrypted with.
	blob := v.ok(v.admin, "Encrypt", map[string]any{"KeyId": k.KeyID, "Plaintext": []byte("x")}).CiphertextBlob
	v.wantCode("half a move", v.ask(halfMove, "ReEncrypt", map[string]any{"CiphertextBlob": blob, "DestinationKeyId": other.KeyID}).answer, "AccessDeniedException")
	// Nor is one for an alias, which the one key was named by and the other was not.
	moveByAlias := v.user("move-by-alias", nil, statement("kms:ReEncrypt*", "*", `{"StringEquals":{"kms:RequestAlias":"alias/k"}}`))
	for _, tt := range []struct{ from, to, code string }{
		{"alias/k", "alias/k", ""},
		{"alias/k", other.KeyID, "AccessDeniedException"},
		{k.KeyID, "alias/k", "AccessDeniedException"},
	} {
		v.wantCode("from "+tt.from+" to "+tt.to, v.ask(moveByAlias, "ReEncrypt", map[string]any{
			"CiphertextBlob": blob, "SourceKeyId": tt.from, "DestinationKeyId": tt.to,
		}).answer, tt.code)
	}
	v.wantCode("decrypting", v.ask(byKey, "Decrypt", map[string]any{"CiphertextBlob": blob}).answer, "AccessDeniedException")
}

// An alias that is moved while it is asked about does not give another key.
func TestKMSAliasesArePinned(t *testing.T) {
	v := newVault(t)
	k := v.key()
	v.ok(v.admin, "CreateAlias", map[string]any{"AliasName": "alias/k", "TargetKeyId": k.KeyID})
	v.wantCode("changes by an alias", v.ask(v.admin, "DisableKey", map[string]any{"KeyId": "alias/k"}).answer, "InvalidArnException")
	onlyAlias := v.user("only-alias", nil, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:us-east-1:111111111111:alias/*"}}`)
	v.wantCode("naming another's key", v.ask(onlyAlias, "CreateAlias", map[string]any{"AliasName": "alias/x", "TargetKeyId": k.KeyID}).answer, "AccessDeniedException")
	v.wantCode("taking a name from another's key", v.ask(onlyAlias, "DeleteAlias", map[string]any{"AliasName": "alias/k"}).answer, "AccessDeniedException")
}

// Nothing of what was encrypted, and no key, is in the audit log or in what is logged.
func TestKMSKeepsSecrets(t *testing.T) {
	v := newVault(t)
	k := v.key()
	const secret = "not to be told to anybody"
	blob := v.ok(v.admin, "Encrypt", map[string]any{"KeyId": k.KeyID, "Plaintext": []byte(secret)}).CiphertextBlob
	v.ok(v.admin, "Decrypt", map[string]any{"CiphertextBlob": blob})
	made := v.ok(v.admin, "GenerateDataKey", map[string]any{"KeyId": k.KeyID, "NumberOfBytes": 64})
	v.ask(v.admin, "Encrypt", map[string]any{"KeyId": "alias/none", "Plaintext": []byte(secret)})
	all, err := v.store.Audit(context.Background(), audit.Filter{})
	v.must(err)
	text, err := json.Marshal(all)
	v.must(err)
	for what, hidden := range map[string]string{
		"text": secret, "encoded text": base64.StdEncoding.EncodeToString([]byte(secret))[:16], "data key": base64.StdEncoding.EncodeToString(made.Plaintext)[:16],
	} {
		if strings.Contains(string(text), hidden) || strings.Contains(v.logs.String(), hidden) {
			t.Errorf("the %s is in the audit log, or logged", what)
		}
	}
	if !strings.Contains(string(text), "kms:Decrypt") || !strings.Contains(string(text), k.Arn) {
		t.Error("the audit log does not tell of what was decrypted")
	}
}

// A node decrypts the data key of a session that lives on it, and nothing else; policies
// give it nothing.
func TestKMSOfNodes(t *testing.T) {
	v := newVault(t)
	k, other := v.key(), v.key()
	m, stranger := v.agent(), v.agent()
	node := func(m *machine) string { return m.id }
	mine := map[string]string{"aws:ssm:SessionId": "alice-1", "aws:ssm:TargetId": node(m)}
	v.must(v.store.CreateSession(context.Background(), session.Session{
		ID: "alice-1", NodeID: node(m), State: session.StateConnecting, Started: v.clock(), KMSKey: k.KeyID, Encryption: session.EncryptionUnrecorded,
	}))
	v.must(v.store.CreateSession(context.Background(), session.Session{ID: "alice-2", NodeID: node(m), State: session.StateConnected, Started: v.clock()}))
	with := func(change func(map[string]string)) map[string]string {
		e := map[string]string{}
		for key, value := range mine {
			e[key] = value
		}
		change(e)
		return e
	}
	encrypted := func(key string, e map[string]string) []byte {
		return v.ok(v.admin, "GenerateDataKey", map[string]any{"KeyId": key, "NumberOfBytes": 64, "EncryptionContext": e}).CiphertextBlob
	}
	decrypt := func(m *machine, key string, blob []byte, e map[string]string) answer {
		in := map[string]any{"CiphertextBlob": blob, "EncryptionContext": e}
		if key != "" {
			in["KeyId"] = key
		}
		return v.ask(m.credentials, "Decrypt", in).answer
	}
	challenged := with(func(e map[string]string) { e["aws:ssm:RandomChallenge"] = "x" })
	v.wantCode("its own", decrypt(m, k.KeyID, encrypted(k.KeyID, mine), mine), "")
	v.wantCode("its own, without a key's name", decrypt(m, "", encrypted(k.KeyID, mine), mine), "")
	v.wantCode("its own, with a challenge", decrypt(m, k.Arn, encrypted(k.KeyID, challenged), challenged), "")
	for _, tt := range []struct {
		name string
		who  *machine
		key  string
		e    map[string]string
	}{
		{"of another node", stranger, k.KeyID, mine},
		{"as another node's", stranger, k.KeyID, with(func(e map[string]string) { e["aws:ssm:TargetId"] = node(stranger) })},
		{"of no node", m, k.KeyID, with(func(e map[string]string) { delete(e, "aws:ssm:TargetId") })},
		{"of no session", m, k.KeyID, with(func(e map[string]string) { delete(e, "aws:ssm:SessionId") })},
		{"of a session that never was", m, k.KeyID, with(func(e map[string]string) { e["aws:ssm:SessionId"] = "alice-3" })},
		{"of a session that is not encrypted", m, k.KeyID, with(func(e map[string]string) { e["aws:ssm:SessionId"] = "alice-2" })},
		{"with another key", m, other.KeyID, mine},
		{"with more context", m, k.KeyID, with(func(e map[string]string) { e["x"] = "y" })},
		{"with nothing", m, k.KeyID, map[string]string{}},
	} {
		v.advance(time.Minute) // more refusals in a minute are counted
		v.wantCode(tt.name, decrypt(tt.who, tt.key, encrypted(tt.key, tt.e), tt.e), "AccessDeniedException")
	}
	swapped := decrypt(m, k.KeyID, encrypted(k.KeyID, challenged), mine)
	v.wantCode("a context that the key was not made with", swapped, "InvalidCiphertextException")
	v.wantCode("a key that does not exist", decrypt(m, "alias/none", encrypted(k.KeyID, mine), mine), "AccessDeniedException")
	for _, operation := range []string{"GenerateDataKey", "Encrypt", "ReEncrypt", "DescribeKey", "ListKeys", "DisableKey"} {
		v.wantCode(operation, v.ask(m.credentials, operation, map[string]any{
			"KeyId": k.KeyID, "NumberOfBytes": 64, "Plaintext": []byte("x"), "EncryptionContext": mine,
			"CiphertextBlob": encrypted(k.KeyID, mine), "SourceEncryptionContext": mine, "DestinationKeyId": k.KeyID,
		}).answer, "AccessDeniedException")
	}
	kept := encrypted(k.KeyID, mine)
	_, err := v.store.UpdateSession(context.Background(), "alice-1", func(s *session.Session) error {
		s.State = session.StateTerminated
		return nil
	})
	v.must(err)
	v.wantCode("after the session's end", decrypt(m, k.KeyID, kept, mine), "AccessDeniedException")
}

// A person decrypts by policy, whatever the context says of nodes and sessions.
func TestKMSOfPeopleIsByPolicy(t *testing.T) {
	v := newVault(t)
	k := v.key()
	alice := v.user("alice", nil, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"kms:GenerateDataKey","Resource":"*"}}`)
	v.must(v.store.CreateSession(context.Background(), session.Session{
		ID: "alice-1", NodeID: "i-1", State: session.StateConnected, Started: v.clock(), KMSKey: k.KeyID, OwnerName: "alice",
	}))
	e := map[string]string{"aws:ssm:SessionId": "alice-1", "aws:ssm:TargetId": "i-1"}
	blob := v.ok(alice, "GenerateDataKey", map[string]any{"KeyId": k.KeyID, "NumberOfBytes": 64, "EncryptionContext": e}).CiphertextBlob
	v.wantCode("the session's owner", v.ask(alice, "Decrypt", map[string]any{"CiphertextBlob": blob, "EncryptionContext": e}).answer, "AccessDeniedException")
}

// The stock AWS CLI makes and uses keys.
func TestKMSCommandLine(t *testing.T) {
	t.Parallel() // it waits for aws
	if testing.Short() {
		t.Skip("starts the aws command several times")
	}
	for _, cli := range needs.AWS(t) {
		t.Run(strings.ReplaceAll(strings.Trim(cli, "/"), "/", "_"), func(t *testing.T) {
			v := newVault(t)
			out, err := v.shell(cli, v.admin, `
key=$(aws kms create-key --description "Shell sessions" --query KeyMetadata.KeyId --output text)
aws kms create-alias --alias-name alias/shells --target-key-id "$key"
aws kms list-aliases --key-id "$key" --query 'Aliases[].AliasName'
aws kms generate-data-key --key-id alias/shells --number-of-bytes 64 --encryption-context purpose=test >made.json
jq -r .CiphertextBlob made.json | base64 -d >blob
test "$(aws kms decrypt --ciphertext-blob fileb://blob --encryption-context purpose=test --query Plaintext --output text)" = "$(jq -r .Plaintext made.json)"
! aws kms decrypt --ciphertext-blob fileb://blob --encryption-context purpose=other
aws kms enable-key-rotation --key-id "$key"
aws kms get-key-policy --key-id "$key" --policy-name default --query Policy --output text | jq -c .Statement[0].Action
aws kms schedule-key-deletion --key-id "$key" --pending-window-in-days 7 --query KeyState
`)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{"alias/shells", "InvalidCiphertextException", "kms:*", "PendingDeletion"} {
				if !strings.Contains(out, want) {
					t.Errorf("got %s, want %s in it", out, want)
				}
			}
		})
	}
}
