package notify_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sallyport.dev/notify"
)

// Whatever comes with Slack's signature, the entry answers and decides nothing by itself.
func FuzzSlackCall(f *testing.F) {
	f.Add("command", "team_id=T0SALLY&user_id=UBOB&text=request+frontend&response_url=http%3A%2F%2Fx")
	f.Add("interact", url.Values{"payload": {`{"type":"block_actions","team":{"id":"T0SALLY"},"user":{"id":"UBOB"},"actions":[{"block_id":"b","action_id":"sallyport_approve","value":"oi-1 x"}]}`}}.Encode())
	f.Add("interact", url.Values{"payload": {`{"type":"view_submission","team":{"id":"T0SALLY"},"user":{"id":"UBOB"},"view":{"callback_id":"sallyport_form","private_metadata":"frontend","state":{"values":{"x":{"value":{}}}}}}`}}.Encode())
	f.Add("interact", url.Values{"payload": {`{"type":"shortcut","callback_id":"sallyport_request","team":null,"user":[]}`}}.Encode())
	f.Add("events", "%%%")
	w := newWorld(f)
	w.link("UBOB", "bob")
	w.asked("frontend", "x")
	mux := http.NewServeMux()
	for pattern, h := range w.service.Handlers() {
		mux.Handle(pattern, h)
	}
	f.Fuzz(func(t *testing.T, what, body string) {
		if strings.ContainsAny(what, "/?#%. \x00") || what == "" || !utf8.ValidString(what) {
			return
		}
		rec := recorder()
		req := signedBody(t, "http://gate/slack/"+url.PathEscape(what), body, time.Now())
		mux.ServeHTTP(rec, req)
		if rec.Code >= 500 {
			t.Errorf("got %d %s", rec.Code, rec.Body)
		}
	})
}

// What was clipped for Slack fits, is text, and holds nothing that acts.
func FuzzTexts(f *testing.F) {
	f.Add("<!channel> *x* \x1b[0m\u202e", 10)
	f.Add(strings.Repeat("&", 100), 3)
	f.Fuzz(func(t *testing.T, s string, n int) {
		n = 2 + (n&0x7fffffff)%500
		clipped := notify.SlackClip(s, n)
		if strings.ContainsAny(clipped, "<>") {
			t.Errorf("%q holds a bracket", clipped)
		}
		if length := utf8.RuneCountInString(clipped); length > n {
			t.Errorf("%q has %d characters, want at most %d", clipped, length, n)
		}
		one := notify.Line(s, n)
		if strings.ContainsAny(one, "\x00\x1b\r\n\t\u202e\u2028\u009b") || !utf8.ValidString(one) || utf8.RuneCountInString(one) > n {
			t.Errorf("%q became %q", s, one)
		}
	})
}
