package notify_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/slack-go/slack"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func recorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

func serve(t testing.TB, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func blocksJSON(blocks []slack.Block) (string, error) {
	text, err := json.Marshal(blocks)
	return string(text), err
}

func now() time.Time { return time.Now() }
