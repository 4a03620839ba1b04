//go:build clouds

package bucket

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// objects are what a small server keeps.
type objects struct {
	mu     sync.Mutex
	all    map[string][]byte
	locked bool // refuses to delete
}

// gcs speaks as Google's JSON API does, as far as stores need it.
type gcs struct{ objects }

func (g *gcs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/storage/v1/b/recordings/o/")
	fail := func(status int, reason string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":{"code":%d,"message":%q}}`, status, reason)
	}
	b, found := g.all[name]
	switch {
	case r.URL.Path == "/token":
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"token","token_type":"Bearer","expires_in":3600}`)
	case r.Header.Get("Authorization") != "Bearer token":
		fail(http.StatusUnauthorized, "no token")
	case r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/upload/storage/v1/b/recordings/o"):
		name, body, err := upload(r)
		if err != nil {
			fail(http.StatusBadRequest, err.Error())
			return
		}
		g.all[name] = body
		json.NewEncoder(w).Encode(g.resource(name))
	case r.URL.Path == "/storage/v1/b/recordings/o":
		items := []any{}
		for _, key := range slices.Sorted(maps.Keys(g.all)) {
			if strings.HasPrefix(key, r.URL.Query().Get("prefix")) {
				items = append(items, g.resource(key))
			}
		}
		json.NewEncoder(w).Encode(map[string]any{"items": items})
	case !found:
		fail(http.StatusNotFound, "no such object")
	case r.Method == http.MethodDelete && g.locked:
		fail(http.StatusForbidden, "retentionPolicyNotMet")
	case r.Method == http.MethodDelete:
		delete(g.all, name)
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Query().Get("alt") == "media":
		w.Header().Set("X-Goog-Generation", "1")
		w.Write(b)
	default:
		json.NewEncoder(w).Encode(g.resource(name))
	}
}

func (g *gcs) resource(name string) map[string]any {
	return map[string]any{"bucket": "recordings", "name": name, "generation": "1", "size": fmt.Sprint(len(g.all[name]))}
}

// upload reads an upload of one part of metadata and one of the object.
func upload(r *http.Request) (name string, body []byte, err error) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return "", nil, err
	}
	parts := multipart.NewReader(r.Body, params["boundary"])
	head, err := parts.NextPart()
	if err != nil {
		return "", nil, err
	}
	var meta struct{ Name string }
	if err := json.NewDecoder(head).Decode(&meta); err != nil {
		return "", nil, err
	}
	part, err := parts.NextPart()
	if err != nil {
		return "", nil, err
	}
	body, err = io.ReadAll(part)
	return meta.Name, body, err
}

func TestGCS(t *testing.T) {
	g := &gcs{objects{all: map[string][]byte{}}}
	server := httptest.NewServer(g)
	defer server.Close()
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
	b := open(t, Config{URL: "gs://recordings/of/ours?endpoint=" + server.URL, CredentialsFile: secretFile(t, string(text))})
	testStore(t, b)
	g.locked = true
	wantLocked(t, b)
}

// azure speaks as Azure's blob service does, as far as stores need it.
type azure struct{ objects }

func (a *azure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !strings.HasPrefix(r.Header.Get("Authorization"), "SharedKey account:") {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	name, _ := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/account/recordings/"))
	b, found := a.all[name]
	w.Header().Set("ETag", `"1"`)
	w.Header().Set("Last-Modified", "Fri, 20 Nov 2026 12:00:00 GMT")
	fail := func(status int, code string) {
		w.Header().Set("x-ms-error-code", code)
		w.WriteHeader(status)
	}
	switch {
	case r.URL.Query().Get("comp") == "list":
		a.list(w, r.URL.Query().Get("prefix"))
	case r.Method == http.MethodPut:
		a.all[name], _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusCreated)
	case !found:
		fail(http.StatusNotFound, "BlobNotFound")
	case r.Method == http.MethodDelete && a.locked:
		fail(http.StatusConflict, "BlobImmutableDueToPolicy")
	case r.Method == http.MethodDelete:
		delete(a.all, name)
		w.WriteHeader(http.StatusAccepted)
	default:
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.Write(b)
	}
}

func (a *azure) list(w http.ResponseWriter, prefix string) {
	type blob struct {
		Name       string
		Properties struct {
			LastModified  string `xml:"Last-Modified"`
			ContentLength int    `xml:"Content-Length"`
		}
	}
	var out struct {
		XMLName xml.Name `xml:"EnumerationResults"`
		Blobs   struct{ Blob []blob }
	}
	for _, key := range slices.Sorted(maps.Keys(a.all)) {
		if strings.HasPrefix(key, prefix) {
			item := blob{Name: key}
			item.Properties.LastModified, item.Properties.ContentLength = "Fri, 20 Nov 2026 12:00:00 GMT", len(a.all[key])
			out.Blobs.Blob = append(out.Blobs.Blob, item)
		}
	}
	w.Header().Set("Content-Type", "application/xml")
	xml.NewEncoder(w).Encode(out)
}

func TestAzure(t *testing.T) {
	a := &azure{objects{all: map[string][]byte{}}}
	server := httptest.NewServer(a)
	defer server.Close()
	connection := "DefaultEndpointsProtocol=http;AccountName=account;AccountKey=c2VjcmV0;BlobEndpoint=" + server.URL + "/account;"
	b := open(t, Config{URL: "azblob://recordings/of/ours", CredentialsFile: secretFile(t, connection)})
	testStore(t, b)
	a.locked = true
	wantLocked(t, b)

	far := "DefaultEndpointsProtocol=http;AccountName=account;AccountKey=c2VjcmV0;BlobEndpoint=http://blob.example.com/account;"
	_, err := Open(t.Context(), Config{URL: "azblob://recordings", CredentialsFile: secretFile(t, far)})
	if err == nil || !strings.Contains(err.Error(), "want https") {
		t.Errorf("got %v, want https demanded", err)
	}
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// wantLocked sees to it that what the store refuses to delete is told as that.
func wantLocked(t *testing.T, b *Bucket) {
	t.Helper()
	err := b.Purge(t.Context(), "audit/head.json")
	if err == nil || !strings.Contains(err.Error(), ErrLocked.Error()) {
		t.Errorf("got %v, want ErrLocked", err)
	}
}
