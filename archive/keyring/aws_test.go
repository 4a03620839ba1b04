package keyring_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"sallyport.dev/archive/keyring"
	"sallyport.dev/sallyporttest"
)

// TestAWS wraps keys with a real key service in AWS's wire format: our own.
func TestAWS(t *testing.T) {
	s := sallyporttest.Start(t, "one", sallyporttest.Options{})
	admin := s.User("admin", nil, sallyporttest.Everything)
	at := kms.New(kms.Options{Region: sallyporttest.Region, BaseEndpoint: aws.String(s.PlainURL()),
		Credentials: credentials.NewStaticCredentialsProvider(admin.ID, admin.Secret, "")})
	made, err := at.CreateKey(t.Context(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	// What operating recordings needs, and nothing for another purpose.
	user := s.User("recordings", nil, fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
		"Action":["kms:Encrypt","kms:Decrypt"],"Resource":%q,
		"Condition":{"StringEquals":{"kms:EncryptionContext:sallyport":"recording-key"}}}]}`, *made.KeyMetadata.Arn))
	url := "awskms:///" + *made.KeyMetadata.Arn + "?endpoint=" + s.PlainURL()
	r := open(t, url, user)
	k, err := r.NewKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(k.Wrapped, k.Key) || k.ID != "awskms:///"+*made.KeyMetadata.Arn {
		t.Errorf("got a key with id %s, want it wrapped by %s", k.ID, *made.KeyMetadata.Arn)
	}
	if got, err := r.Unwrap(t.Context(), k.ID, k.Wrapped); err != nil || !bytes.Equal(got, k.Key) {
		t.Errorf("got %x, %v, want the key", got, err)
	}

	// What was encrypted for another purpose is no recording's key.
	other, err := at.Encrypt(t.Context(), &kms.EncryptInput{KeyId: made.KeyMetadata.KeyId, Plaintext: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Unwrap(t.Context(), k.ID, other.CiphertextBlob); err == nil {
		t.Error("got a key that was encrypted for something else, want an error")
	}
	// Nor is what another key has encrypted, though we may use that.
	second, err := at.CreateKey(t.Context(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	theirs := open(t, "awskms:///"+*second.KeyMetadata.Arn+"?endpoint="+s.PlainURL(), admin)
	foreign, err := theirs.NewKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, url, admin).Unwrap(t.Context(), k.ID, foreign.Wrapped); err == nil {
		t.Error("got a key that another key wraps, want an error")
	}
	// Refusals are the service's, with its words.
	if _, err := open(t, url, s.User("nobody", nil, "")).NewKey(t.Context()); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("got %v, want AccessDeniedException", err)
	}
}

func open(t *testing.T, url string, k sallyporttest.Key) *keyring.Ring {
	t.Helper()
	file := filepath.Join(t.TempDir(), "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", k.ID, k.Secret)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := keyring.Open(t.Context(), keyring.Config{URL: url, CredentialsFile: file, Spares: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}
