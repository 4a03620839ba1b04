package client

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A session is resumed with the keys that are in the file now, not those that it was
// started with.
func TestResumeRereadsCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	keys := func(id string) {
		text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = secret\naws_session_token = token\n", id)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var calls []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		old := strings.Contains(r.Header.Get("Authorization"), "Credential=AKIDOLD/")
		calls = append(calls, map[bool]string{true: "old", false: "new"}[old])
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if old {
			w.Header().Set("X-Amzn-Errortype", "ExpiredTokenException")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"__type":"ExpiredTokenException","message":"expired"}`)
			return
		}
		fmt.Fprint(w, `{"SessionId":"s","TokenValue":"fresh","StreamUrl":"wss://example.com/"}`)
	}))
	defer server.Close()
	for name, value := range map[string]string{
		"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_CONFIG_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "", "AWS_ENDPOINT_URL": "",
	} {
		t.Setenv(name, value)
	}
	keys("AKIDOLD")
	a, err := Connect(t.Context(), Options{Region: "us-east-1", Endpoint: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ResumeSession(t.Context(), "s"); err == nil || permanent(err) {
		t.Errorf("while the file is old: got %v, want an error that is worth another try", err)
	}
	keys("AKIDNEW")
	s, err := a.ResumeSession(t.Context(), "s")
	if err != nil || s.Token != "fresh" {
		t.Errorf("got %+v, %v", s, err)
	}
	if got := strings.Join(calls, " "); !strings.HasSuffix(got, "old new") {
		t.Errorf("calls: got %s", got)
	}
}
