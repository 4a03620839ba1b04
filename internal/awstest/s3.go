package awstest

import (
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// S3 is an S3 server in memory.
type S3 struct {
	URL     string
	backend gofakes3.Backend

	mu        sync.Mutex
	encrypted map[string]string // default encryption by bucket
	status    int               // of every answer, 0 for those of the server
	noACL     bool
	calls     map[string]int // by method and what it is about
	headers   []http.Header  // of what made objects
}

// NewS3 starts a server with the buckets.
func NewS3(t testing.TB, buckets ...string) *S3 {
	t.Helper()
	s := &S3{backend: s3mem.New(), encrypted: map[string]string{}, calls: map[string]int{}}
	for _, b := range buckets {
		if err := s.backend.CreateBucket(b); err != nil {
			t.Fatal(err)
		}
	}
	inner := gofakes3.New(s.backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.serve(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// serve answers what the server inside does not know, or is not to.
func (s *S3) serve(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := r.URL.Query()
	kind := strings.Join(slices.Sorted(maps.Keys(q)), "&")
	s.calls[r.Method+" "+kind]++
	if s.status != 0 {
		s3Error(w, s.status, "ServiceUnavailable")
		return true
	}
	if r.Method != http.MethodGet && !strings.Contains(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256") {
		s3Error(w, http.StatusForbidden, "AccessDenied")
		return true
	}
	if r.Header.Get("X-Amz-Acl") != "" && s.noACL {
		s3Error(w, http.StatusBadRequest, "AccessControlListNotSupported")
		return true
	}
	if r.Method == http.MethodPut && kind == "x-id" || r.Method == http.MethodPost && q.Has("uploads") {
		s.headers = append(s.headers, r.Header.Clone())
	}
	if !q.Has("encryption") {
		return false
	}
	s.serveEncryption(w, strings.Trim(r.URL.Path, "/"))
	return true
}

func (s *S3) serveEncryption(w http.ResponseWriter, bucket string) {
	algorithm, key, _ := strings.Cut(s.encrypted[bucket], " ")
	if exists, _ := s.backend.BucketExists(bucket); !exists {
		s3Error(w, http.StatusNotFound, "NoSuchBucket")
		return
	}
	if algorithm == "" {
		s3Error(w, http.StatusNotFound, "ServerSideEncryptionConfigurationNotFoundError")
		return
	}
	if key != "" {
		key = "<KMSMasterKeyID>" + key + "</KMSMasterKeyID>"
	}
	fmt.Fprintf(w, `%s<ServerSideEncryptionConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>%s</SSEAlgorithm>%s</ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>`, xml.Header, algorithm, key)
}

func s3Error(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "%s<Error><Code>%s</Code><Message>told to</Message></Error>", xml.Header, code)
}

// Encrypt gives a bucket a default encryption: an algorithm, and with a space its key.
func (s *S3) Encrypt(bucket, how string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.encrypted[bucket] = how
}

// Fail answers every call with a status, until it is 0.
func (s *S3) Fail(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// RefuseACLs refuses all ACLs, as buckets may.
func (s *S3) RefuseACLs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noACL = true
}

// Calls counts calls by method and the names of their parameters: "GET encryption".
func (s *S3) Calls(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[what]
}

// Headers returns what was sent with the last object that was made.
func (s *S3) Headers() http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.headers) == 0 {
		return nil
	}
	return s.headers[len(s.headers)-1]
}

// Create makes a bucket.
func (s *S3) Create(t testing.TB, bucket string) {
	t.Helper()
	if err := s.backend.CreateBucket(bucket); err != nil {
		t.Fatal(err)
	}
}

// Keys lists the objects of a bucket.
func (s *S3) Keys(t testing.TB, bucket string) (keys []string) {
	t.Helper()
	all, err := s.backend.ListBucket(bucket, nil, gofakes3.ListBucketPage{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all.Contents {
		keys = append(keys, o.Key)
	}
	return keys
}

// Object returns the bytes of an object and its content type.
func (s *S3) Object(t testing.TB, bucket, key string) (text, contentType string) {
	t.Helper()
	o, err := s.backend.GetObject(bucket, key, nil)
	if err != nil {
		t.Fatalf("object %s/%s: %v", bucket, key, err)
	}
	defer o.Contents.Close()
	b, err := io.ReadAll(o.Contents)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), o.Metadata["Content-Type"]
}
