package notify_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport.dev/grant"
	"sallyport.dev/notify"
)

// hook is an address that takes webhooks.
type hook struct {
	mu     sync.Mutex
	calls  []hookCall
	status atomic.Int32
}

type hookCall struct {
	header http.Header
	body   []byte
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	h.calls = append(h.calls, hookCall{r.Header.Clone(), body})
	h.mu.Unlock()
	w.WriteHeader(int(h.status.Load()))
}

func (h *hook) got() []hookCall {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]hookCall(nil), h.calls...)
}

const hookSecret = "a secret of more than sixteen bytes"

func newHook(t *testing.T) (*hook, string) {
	h := &hook{}
	h.status.Store(200)
	return h, serve(t, h)
}

func hookOption(to, format string) option {
	return func(c *notify.Config) {
		c.Slack = nil
		c.Webhooks = []notify.Webhook{{Name: "hook", URL: to, Secret: hookSecret, Format: format}}
	}
}

// A webhook is signed, so that these few lines tell it from others.
func TestWebhook(t *testing.T) {
	h, to := newHook(t)
	w := newWorld(t, hookOption(to, ""))
	r := w.asked("talk", "to see")
	eventually(t, "the webhook", func() bool { return len(h.got()) > 0 })
	call := h.got()[0]
	mac := hmac.New(sha256.New, []byte(hookSecret))
	fmt.Fprintf(mac, "%s.%s", call.header.Get("X-Sallyport-Timestamp"), call.body)
	if got, want := call.header.Get("X-Sallyport-Signature"), "v1="+hex.EncodeToString(mac.Sum(nil)); got != want {
		t.Errorf("signature: got %s, want %s", got, want)
	}
	if call.header.Get("X-Sallyport-Delivery") == "" {
		t.Error("no delivery id")
	}
	var m notify.Message
	w.must(json.Unmarshal(call.body, &m))
	if m.ID != r.ID || m.Hash != r.Hash || m.Reason != "to see" || m.Event.Kind != "requested" || m.Stage == nil || m.Stage.Missing != 2 ||
		strings.Join(m.Stage.People, " ") == "" || m.Event.ID != call.header.Get("X-Sallyport-Delivery") {
		t.Errorf("got %+v", m)
	}
}

// A webhook that fails is tried again, with the same id, and not for ever.
func TestWebhookTries(t *testing.T) {
	h, to := newHook(t)
	h.status.Store(500)
	w := newWorld(t, hookOption(to, ""))
	r := w.asked("talk", "x")
	eventually(t, "another try", func() bool { return len(h.got()) > 2 })
	h.status.Store(204)
	eventually(t, "it to be noted", func() bool { return w.delivered(r.ID, "webhook:hook", notify.DeliverySent) == 1 })
	calls := h.got()
	if a, b := calls[0].header.Get("X-Sallyport-Delivery"), calls[len(calls)-1].header.Get("X-Sallyport-Delivery"); a != b {
		t.Errorf("the id changed from %s to %s", a, b)
	}
	h.status.Store(503)
	r = w.asked("talk", "y")
	eventually(t, "it to be given up", func() bool { return w.delivered(r.ID, "webhook:hook", notify.DeliveryFailed) == 1 })
	if n := len(h.got()) - len(calls); n != notify.MaxTries {
		t.Errorf("tried %d times, want %d", n, notify.MaxTries)
	}
}

// queued is a delivery as another member left it.
func (w *world) queued(d notify.Delivery) {
	w.t.Helper()
	ctx := w.t.Context()
	held, _, err := w.store.HoldLease(ctx, "another", w.now(), w.now().Add(time.Minute))
	w.must(err)
	if !held {
		w.t.Fatal("the lease is not to be had")
	}
	w.must(w.store.Queue(ctx, "another", 0, []notify.Delivery{d}))
	w.must(w.store.DropLease(ctx, "another"))
}

// toHook is a delivery of a request to the webhook.
func (w *world) toHook(r grant.Request) notify.Delivery {
	return notify.Delivery{
		ID: "left", Seq: 1, Request: r.ID, Kind: grant.KindRequested, Lane: "webhook:hook", What: "announce", To: "hook",
		Next: w.now(), State: notify.DeliveryWaiting, Made: w.now(),
	}
}

// A delivery that members did not live to note is given up as others are.
func TestTriesThatDidNotEnd(t *testing.T) {
	h, to := newHook(t)
	w := newWorld(t, hookOption(to, ""))
	r := w.asked("talk", "x")
	eventually(t, "the webhook", func() bool { return w.delivered(r.ID, "webhook:hook", notify.DeliverySent) == 1 })
	w.close(w.service)
	d := w.toHook(r)
	d.Tries = notify.MaxTries
	w.queued(d)
	w.start("m2", hookOption(to, ""))
	eventually(t, "it to be given up", func() bool { return w.delivered(r.ID, "webhook:hook", notify.DeliveryFailed) == 1 })
	if n := len(h.got()); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

// What waited for longer than events are told of is not sent any more.
func TestStale(t *testing.T) {
	h, to := newHook(t)
	w := newWorld(t, hookOption(to, ""))
	r := w.asked("talk", "x")
	eventually(t, "the webhook", func() bool { return w.delivered(r.ID, "webhook:hook", notify.DeliverySent) == 1 })
	w.close(w.service)
	d := w.toHook(r)
	d.Made = d.Made.Add(-25 * time.Hour)
	w.queued(d)
	w.start("m2", hookOption(to, ""))
	eventually(t, "it to be dropped", func() bool { return w.delivered(r.ID, "webhook:hook", notify.DeliveryDropped) == 1 })
	if n := len(h.got()); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

// Redirects are not followed: what is signed goes where the configuration says.
func TestWebhookRedirect(t *testing.T) {
	inside, target := newHook(t)
	to := serve(t, http.RedirectHandler(target, http.StatusTemporaryRedirect))
	w := newWorld(t, hookOption(to, ""))
	r := w.asked("talk", "x")
	eventually(t, "it to be given up", func() bool { return w.delivered(r.ID, "webhook:hook", notify.DeliveryFailed) == 1 })
	if len(inside.got()) > 0 {
		t.Error("the redirect was followed")
	}
}

// The cards of other services show text as it is.
func TestCards(t *testing.T) {
	for format, want := range map[string]string{"teams": `"application/vnd.microsoft.card.adaptive"`, "mattermost": `"attachments"`} {
		t.Run(format, func(t *testing.T) {
			h, to := newHook(t)
			w := newWorld(t, hookOption(to, format))
			w.asked("talk", "@all [click](https://evil.example) **now**")
			eventually(t, "the webhook", func() bool { return len(h.got()) > 0 })
			body := string(h.got()[0].body)
			if !json.Valid([]byte(body)) || !strings.Contains(body, want) {
				t.Errorf("got %s", body)
			}
			for _, bad := range []string{"@all", "](https", "**now"} {
				if strings.Contains(body, bad) {
					t.Errorf("%s went through: %s", bad, body)
				}
			}
		})
	}
}

// Two members read one outbox: each message is sent once.
func TestTwoMembersOneMessage(t *testing.T) {
	h, to := newHook(t)
	w := newWorld(t, hookOption(to, ""))
	w.start("m2", hookOption(to, ""))
	w.start("m3", hookOption(to, ""))
	const n = 10
	for range n {
		w.asked("talk", "x")
	}
	eventually(t, "the messages", func() bool { return len(h.got()) >= n })
	time.Sleep(100 * time.Millisecond)
	if got := len(h.got()); got != n {
		t.Errorf("%d messages of %d requests", got, n)
	}
}

// A member that dies between an event and its delivery loses nothing: another goes on.
func TestRestart(t *testing.T) {
	h, to := newHook(t)
	h.status.Store(500)
	w := newWorld(t, hookOption(to, ""))
	r := w.asked("talk", "x")
	eventually(t, "a try", func() bool { return len(h.got()) > 0 })
	w.close(w.service)
	other := w.asked("talk", "made while nobody delivered")
	h.status.Store(200)
	before := len(h.got())
	w.start("m1", hookOption(to, ""))
	for _, id := range []string{r.ID, other.ID} {
		eventually(t, "the delivery", func() bool { return w.delivered(id, "webhook:hook", notify.DeliverySent) == 1 })
	}
	time.Sleep(50 * time.Millisecond)
	if n := len(h.got()) - before; n != 2 {
		t.Errorf("%d messages after the restart, want 2", n)
	}
}

// A request moves on while nothing can be delivered.
func TestNothingIsHeldUp(t *testing.T) {
	release := make(chan struct{})
	slow := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer close(release)
	w := newWorld(t, hookOption(slow, ""))
	begun := time.Now()
	r := w.asked("frontend", "x")
	_, err := w.engine.Decide(t.Context(), grant.Actor{Principal: w.principal("bob"), Channel: "cli"}, r.ID, r.Hash, true, "")
	w.must(err)
	if took := time.Since(begun); took > 10*time.Second { // a delivery may take twenty
		t.Errorf("it took %v", took)
	}
}

const codeFlow = `
flow "steps" {
  ask { groups = ["dev"] }
  target "nodes" "web" { tags = { Team = "frontend" } }
  stage "peers" {
    approvals = 1
    of { groups = ["leads"] }
  }
  clocks {
    pending = "1h"
    default = "30m"
    longest = "2h"
  }
  announce {
    on    = ["ended"]
    slack = ["#last"]
  }
  code = "steps.star"
}
`

func (w *world) put(files map[string][]byte) {
	w.t.Helper()
	_, digest, err := w.store.Flows(w.t.Context())
	w.must(err)
	_, err = w.engine.PutFlows(w.t.Context(), grant.Actor{Principal: w.principal("bob"), Channel: "api"}, files, digest)
	w.must(err)
}

// Flow code says who is told first; who does not decide in time, or cannot be reached, is
// followed by the next, and at last by the flow's own places and those who decide.
func TestSteps(t *testing.T) {
	for _, c := range []struct {
		name, code string
		want       []string // channels, in order
		never      string
	}{
		{"in time", `
def get_request_notifications(event):
    return [notification(slack=["#first"], timeout="1h"), notification(slack=["#second"])]
`, []string{"#first"}, "#second"},
		{"cannot be reached", `
def get_request_notifications(event):
    return [notification(slack=["#gone"], timeout="1h"), notification(slack=["#second"])]
`, []string{"#second"}, "#last"},
		{"nobody can be reached", `
def get_request_notifications(event):
    return [notification(slack=["#gone"]), notification(slack=["#gone2"])]
`, []string{"#last", "UBOB"}, ""},
		{"time-out", `
def get_request_notifications(event):
    return [notification(slack=["#first"], timeout="1s"), notification(people=people(users=["bob"]))]
`, []string{"#first", "UBOB"}, "#last"},
		{"an error in it", `
def get_request_notifications(event):
    return [notification(slack=event.nothing)]
`, []string{"UBOB"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.slack.setFail(func(method string, form url.Values) string {
				if strings.HasPrefix(form.Get("channel"), "#gone") {
					return "channel_not_found"
				}
				return ""
			})
			w.link("UBOB", "bob")
			w.put(map[string][]byte{"steps.sallyport.hcl": []byte(codeFlow), "steps.star": []byte(c.code)})
			w.asked("steps", "x")
			for _, channel := range c.want {
				w.slack.last("a message in "+channel, "chat.postMessage", to(channel))
			}
			time.Sleep(100 * time.Millisecond)
			for _, call := range w.slack.made("chat.postMessage") {
				if c.never != "" && call.form.Get("channel") == c.never {
					t.Errorf("%s was told", c.never)
				}
			}
		})
	}
}

// Slack's rate limits are kept.
func TestRateLimit(t *testing.T) {
	var calls atomic.Int32
	limited := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "chat.postMessage") && calls.Add(1) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		fmt.Fprint(w, `{"ok":true,"team":"x","team_id":"T0SALLY","channel":"C1","ts":"1.1"}`)
	}))
	w := newWorld(t, func(c *notify.Config) {
		c.Slack = &notify.Slack{BotToken: botToken, SigningSecret: slackSecret, APIURL: limited + "/api/"}
	})
	begun := time.Now()
	r := w.asked("frontend", "x")
	eventually(t, "the message", func() bool { return w.delivered(r.ID, "slack", notify.DeliverySent) > 0 })
	if took := time.Since(begun); took < 900*time.Millisecond {
		t.Errorf("tried again after %v, Slack asked for a second", took)
	}
}

func TestBackoff(t *testing.T) {
	last := time.Duration(0)
	for n := 1; n <= notify.MaxTries; n++ {
		if wait := notify.Waits(n); wait < last || wait > 10*time.Minute {
			t.Errorf("after %d tries: %v, after %v", n, wait, last)
		} else {
			last = wait
		}
	}
}

// A configuration that cannot work is refused, by its name.
func TestCheck(t *testing.T) {
	slack := func(change func(*notify.Slack)) notify.Config {
		s := &notify.Slack{BotToken: botToken, SigningSecret: slackSecret}
		change(s)
		return notify.Config{Slack: s}
	}
	hook := func(change func(*notify.Webhook)) notify.Config {
		h := notify.Webhook{Name: "hook", URL: "https://example.com", Secret: hookSecret}
		change(&h)
		return notify.Config{Webhooks: []notify.Webhook{h}}
	}
	for want, c := range map[string]notify.Config{
		"xoxb-":          slack(func(s *notify.Slack) { s.BotToken = "xoxp-user" }),
		"signing secret": slack(func(s *notify.Slack) { s.SigningSecret = "" }),
		"xapp-":          slack(func(s *notify.Slack) { s.AppToken = "xoxb-bot" }),
		"api_url":        slack(func(s *notify.Slack) { s.APIURL = "http://slack.example.com" }),
		"https://":       hook(func(h *notify.Webhook) { h.URL = "http://10.0.0.1/hook" }),
		"16 bytes":       hook(func(h *notify.Webhook) { h.Secret = "short" }),
		"format":         hook(func(h *notify.Webhook) { h.Format = "xml" }),
		"name":           hook(func(h *notify.Webhook) { h.Name = "a b" }),
		"smtp.from":      {Mail: &notify.Mail{Host: "mail.example.com", From: "Sally <s@example.com>"}},
		"smtp.host":      {Mail: &notify.Mail{From: "s@example.com"}},
	} {
		if err := notify.Check(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %q", err, want)
		}
	}
	if err := notify.Check(hook(func(h *notify.Webhook) { h.URL = "https://10.0.0.1/hook" })); err != nil {
		t.Errorf("a private address that the administrator chose: %v", err)
	}
}
