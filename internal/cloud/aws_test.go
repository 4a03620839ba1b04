package cloud

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// endless answers every request with a body that has no end, and counts what was read of it.
type endless struct {
	status int
	read   int64
}

func (e *endless) Do(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: e.status, Body: io.NopCloser(e)}, nil
}

func (e *endless) Read(p []byte) (int, error) {
	e.read += int64(len(p))
	return len(p), nil
}

// A store, or a destination of the audit log, that answers without end takes no more memory
// than what an answer may have: the SDK keeps the bodies of errors whole. Only objects are as
// long as whoever reads them wants.
func TestAnswersWithoutEnd(t *testing.T) {
	for _, test := range []struct {
		method, url string
		status      int
		object      bool
	}{
		{http.MethodPut, "https://s3/b/k?x-id=PutObject", 200, false},
		{http.MethodPut, "https://s3/b/k?x-id=PutObject", 403, false},
		{http.MethodPost, "https://kms/", 200, false},
		{http.MethodGet, "https://s3/b?list-type=2", 200, false},
		{http.MethodGet, "https://s3/b?versions", 200, false},
		{http.MethodGet, "https://s3/b/k?x-id=GetObject", 404, false},
		{http.MethodGet, "https://s3/b/k?x-id=GetObject", 206, true},
	} {
		e := &endless{status: test.status}
		r, err := http.NewRequest(test.method, test.url, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := bounded{e}.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.CopyN(io.Discard, answer.Body, 2*maxAnswer)
		if (err == nil) != test.object || !test.object && e.read > maxAnswer+1<<20 {
			t.Errorf("%s %s %d: read %d bytes, %v", test.method, test.url, test.status, e.read, err)
		}
		answer.Body.Close()
	}
}
