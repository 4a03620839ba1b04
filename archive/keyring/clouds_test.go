//go:build clouds

package keyring

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sallyport.dev/internal/seal"
)

const gcpKeyName = "projects/p/locations/l/keyRings/r/cryptoKeys/k"

// gcpServer speaks as Google's key service does.
func gcpServer(t *testing.T) *httptest.Server {
	t.Helper()
	key, err := seal.New(bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	crc := func(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Plaintext, Ciphertext, AdditionalAuthenticatedData []byte
		}
		body, _ := io.ReadAll(r.Body)
		json.Unmarshal(body, &in)
		w.Header().Set("Content-Type", "application/json")
		answer := func(v any) { json.NewEncoder(w).Encode(v) }
		switch {
		case r.URL.Path == "/token":
			io.WriteString(w, `{"access_token":"token","token_type":"Bearer","expires_in":3600}`)
		case r.Header.Get("Authorization") != "Bearer token" || string(in.AdditionalAuthenticatedData) != "sallyport recording-key":
			w.WriteHeader(http.StatusForbidden)
			answer(map[string]any{"error": map[string]any{"code": 403, "status": "PERMISSION_DENIED", "message": "no"}})
		case r.URL.Path == "/v1/"+gcpKeyName+":encrypt":
			sealed := key.Seal("gcp", in.Plaintext, in.AdditionalAuthenticatedData)
			answer(map[string]any{"name": gcpKeyName, "ciphertext": sealed, "ciphertextCrc32c": crc(sealed)})
		default:
			plain, err := key.Open("gcp", in.Ciphertext, in.AdditionalAuthenticatedData)
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				answer(map[string]any{"error": map[string]any{"code": 400, "status": "INVALID_ARGUMENT", "message": "no ciphertext of mine"}})
				return
			}
			answer(map[string]any{"plaintext": plain, "plaintextCrc32c": crc(plain)})
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestGCP(t *testing.T) {
	server := gcpServer(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "sallyport@example.com", "token_uri": server.URL + "/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := ring(t, Config{URL: "gcpkms://" + gcpKeyName + "?endpoint=" + server.URL, CredentialsFile: tokenFile(t, string(text), 0o600), Spares: -1})
	k, err := r.NewKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Unwrap(t.Context(), "gcpkms://"+gcpKeyName, k.Wrapped); err != nil || !bytes.Equal(got, k.Key) {
		t.Errorf("got %x, %v, want the key", got, err)
	}
	if _, err := r.Unwrap(t.Context(), k.ID, []byte("x")); err == nil || !strings.Contains(err.Error(), "no ciphertext of mine") {
		t.Errorf("got %v, want the service's words", err)
	}
}

func TestCloudURLs(t *testing.T) {
	for url, want := range map[string]string{
		"gcpkms://projects/p": "want gcpkms://projects/P/",
		"gcpkms://" + gcpKeyName + "?endpoint=http://example.com": "want https",
		"azurekeyvault://v.vault.azure.net/keys/k":                "want azurekeyvault://NAME.vault.azure.net/keys/KEY/VERSION",
		"azurekeyvault://example.com/keys/k/1":                    "want azurekeyvault://NAME",
		"azurekeyvault://v.vault.azure.net/keys/k/1?x=y":          "there are none",
	} {
		_, err := Open(t.Context(), Config{URL: url, CredentialsFile: tokenFile(t, `{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r"}`, 0o600), Logger: quiet()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", url, err, want)
		}
	}
}
