package notify_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/notify"
)

// approve is a click on the button of a request.
func (w *world) approve(team, user string, r grant.Request) map[string]any {
	return w.slack.click(team, user, "sallyport_approve", r.ID+" "+r.Hash)
}

// stays reports an error unless a request still waits without a decision, for a moment.
func (w *world) stays(r grant.Request) {
	w.t.Helper()
	for range 10 {
		if now := w.request(r.ID); now.State != grant.Pending || len(now.Decisions) > 0 {
			w.t.Fatalf("got %s with %d decisions, want it to wait", now.State, len(now.Decisions))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Calls that are not Slack's, or not now, or not for the first time, are refused and
// recorded, and decide nothing.
func TestForgedCalls(t *testing.T) {
	w := newWorld(t)
	w.link("UBOB", "bob")
	r := w.asked("talk", "x")
	call := func() *http.Request {
		return signed(t, w.web.URL+"/slack/interact", payload(t, w.approve(slackTeam, "UBOB", r)), time.Now())
	}
	for _, c := range []struct {
		name, kind string
		spoil      func(*http.Request)
	}{
		{"unsigned", "Unsigned", func(r *http.Request) { r.Header.Del("X-Slack-Signature") }},
		{"without a timestamp", "Unsigned", func(r *http.Request) { r.Header.Del("X-Slack-Request-Timestamp") }},
		{"two signatures", "Unsigned", func(r *http.Request) { r.Header.Add("X-Slack-Signature", "v0=00") }},
		{"by another secret", "Forged", func(r *http.Request) {
			r.Header.Set("X-Slack-Signature", "v0="+strings.Repeat("ab", 32))
		}},
		{"a changed body", "Forged", func(r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			r.Body, r.GetBody = io.NopCloser(bytes.NewReader(bytes.ReplaceAll(body, []byte("UBOB"), []byte("UEVE")))), nil
		}},
		{"a changed timestamp", "Forged", func(r *http.Request) {
			r.Header.Set("X-Slack-Request-Timestamp", stamp(time.Now().Add(-time.Minute)))
		}},
		{"too large", "Forged", func(r *http.Request) {
			r.ContentLength, r.Body = 1<<20, io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<20)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := call()
			c.spoil(req)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("got %s, want 401", resp.Status)
			}
			w.recorded(audit.EventLogin, c.kind)
		})
	}
	t.Run("old", func(t *testing.T) {
		for _, at := range []time.Duration{-5*time.Minute - 2*time.Second, 5*time.Minute + 10*time.Second} {
			req := signed(t, w.web.URL+"/slack/interact", payload(t, w.approve(slackTeam, "UBOB", r)), time.Now().Add(at))
			if status, _ := w.do(req); status != http.StatusUnauthorized {
				t.Errorf("of %v: got %d, want 401", at, status)
			}
		}
		w.recorded(audit.EventLogin, "Old")
	})
	w.stays(r)
}

func stamp(at time.Time) string { return itoa(at.Unix()) }

// A call that was seen is refused when it comes again, on another member, too.
func TestReplayedClick(t *testing.T) {
	w := newWorld(t)
	w.link("UBOB", "bob")
	r := w.asked("frontend", "x")
	form, at := payload(t, w.approve(slackTeam, "UMALLORY", r)), time.Now()
	if status, _ := w.do(signed(t, w.web.URL+"/slack/interact", form, at)); status != http.StatusOK {
		t.Fatalf("the first: got %d", status)
	}
	// Nobody knows her yet; once she is linked, the old click must not count.
	w.slack.whispers("sallyport chat link")
	if status, _ := w.do(signed(t, w.web.URL+"/slack/interact", form, at)); status != http.StatusUnauthorized {
		t.Errorf("again: got %d, want 401", status)
	}
	other := w.create("m2")
	mux := http.NewServeMux()
	for pattern, h := range other.Handlers() {
		mux.Handle(pattern, h)
	}
	rec := recorder()
	mux.ServeHTTP(rec, signed(t, "http://gate/slack/interact", form, at))
	if rec.Code != http.StatusUnauthorized {
		t.Errorf("on another member: got %d, want 401", rec.Code)
	}
	w.recorded(audit.EventLogin, "Replayed")
	w.stays(r)
}

// Who clicks is who decides, whatever the message was for.
func TestWhoMayNotDecide(t *testing.T) {
	w := newWorld(t)
	w.link("UBOB", "bob")
	w.link("UCAROL", "carol")
	w.link("UMALLORY", "mallory")
	r := w.asked("frontend", "x")

	w.interact(w.approve(slackTeam, "UMALLORY", r))
	w.slack.whispers("Refused because")
	w.recorded(audit.EventDecision, "because")

	w.interact(w.approve("T0EVIL", "UBOB", r)) // the same user id in another workspace
	w.slack.whispers("own workspace")
	w.recorded(audit.EventLogin, "WrongTeam")

	guest := w.approve(slackTeam, "UBOB", r) // a shared channel's guest with bob's id
	guest["user"].(map[string]any)["team_id"] = "T0EVIL"
	w.interact(guest)

	w.interact(w.slack.click(slackTeam, "UBOB", "sallyport_approve", "oi-000000000000 "+r.Hash))
	w.recorded(audit.EventLogin, "Forged")
	w.slack.whispers("no such request")

	w.interact(w.slack.click(slackTeam, "UBOB", "sallyport_approve", r.ID+" "+strings.Repeat("0", 64)))
	w.slack.whispers("not the request that the message showed")

	w.interact(w.approve(slackTeam, "UNOBODY", r))
	w.slack.whispers("sallyport chat link")
	w.stays(r)

	w.must(w.store.UpdateUser(t.Context(), "bob", func(u *identity.User) error { u.Disabled = true; return nil }))
	w.interact(w.approve(slackTeam, "UBOB", r))
	w.slack.whispers("disabled or gone")
	w.recorded(audit.EventLogin, "Disabled")
	w.stays(r)
}

// Who asked cannot approve by their own chat account, nor by the deny and approve forms.
func TestSelfApprovalInSlack(t *testing.T) {
	w := newWorld(t)
	w.link("UBOB", "bob") // who is in dev and in leads
	r, err := w.engine.Ask(t.Context(), grant.Actor{Principal: w.principal("bob"), Channel: "cli"}, grant.Ask{
		Flow: "frontend", Values: flow.Values{"reason": {"x"}, "ticket": {"OPS-1"}, "duration": {"30m"}},
	})
	w.must(err)
	w.interact(w.approve(slackTeam, "UBOB", r))
	w.slack.whispers("Refused because")
	view := map[string]any{"callback_id": "sallyport_comment", "private_metadata": `{"id":"` + r.ID + `","hash":"` + r.Hash + `","approve":true}`}
	answer := w.interact(w.slack.submission(slackTeam, "UBOB", view, map[string]any{"comment": "me"}))
	if answer["response_action"] != "errors" {
		t.Errorf("by the form: got %v, want an error", answer)
	}
	w.stays(r)
}

// A stolen chat account decides nothing where a second factor is demanded.
func TestSecondFactorIsNotForChats(t *testing.T) {
	w := newWorld(t)
	w.link("UBOB", "bob")
	r := w.asked("strong", "x")
	for _, action := range []string{"sallyport_approve", "sallyport_deny"} {
		w.interact(w.slack.click(slackTeam, "UBOB", action, r.ID+" "+r.Hash))
	}
	w.slack.whispers("sallyport approve " + r.ID)
	w.slack.whispers("https://gate.example.com/requests/" + r.ID)
	for _, approve := range []string{"true", "false"} {
		view := map[string]any{"callback_id": "sallyport_comment", "private_metadata": `{"id":"` + r.ID + `","hash":"` + r.Hash + `","approve":` + approve + `}`}
		if answer := w.interact(w.slack.submission(slackTeam, "UBOB", view, map[string]any{"comment": "x"})); answer["response_action"] != "errors" {
			t.Errorf("by the form: got %v", answer)
		}
	}
	rec := w.recorded(audit.EventDecision, "because")
	if rec.Details["channel"] != "slack" {
		t.Errorf("the record says %v", rec.Details)
	}
	w.stays(r)
	if got := len(w.slack.made("views.open")); got != 0 {
		t.Errorf("%d forms were opened, want none", got)
	}
}

// A flow's channels hold: what is not for Slack is neither asked nor decided there.
func TestChannelsHold(t *testing.T) {
	w := newWorld(t)
	w.link("UBOB", "bob")
	w.link("UCAROL", "carol")
	r := w.asked("quiet", "x")
	m := w.slack.last("bob's message", "chat.postMessage", to("UBOB"))
	if button(t, m.blocks(), "sallyport_approve") != "" {
		t.Error("there are buttons")
	}
	w.interact(w.approve(slackTeam, "UBOB", r))
	w.slack.whispers("by cli only")
	w.stays(r)
	w.callSlack("command", w.slack.command(slackTeam, "UCAROL", "request quiet"))
	w.slack.whispers("There is no flow quiet")
	view := map[string]any{"callback_id": "sallyport_form", "private_metadata": "quiet"}
	w.interact(w.slack.submission(slackTeam, "UCAROL", view, map[string]any{"field reason": "x", "field duration": "30m"}))
	all, err := w.store.Requests(t.Context(), grant.Filter{})
	w.must(err)
	if len(all) != 1 {
		t.Errorf("%d requests, want the one made elsewhere", len(all))
	}
}

// Answers go to Slack's response_urls only: a call that names another, were it ever
// signed, does not make the server reach there.
func TestAnswersGoToSlackOnly(t *testing.T) {
	w := newWorld(t)
	reached := make(chan struct{}, 1)
	inside := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached <- struct{}{} })
	other := serve(t, inside)
	click := w.approve(slackTeam, "UNOBODY", w.asked("frontend", "x"))
	click["response_url"] = other + "/metadata"
	w.interact(click)
	w.slack.last("an answer by message", "chat.postMessage", func(c slackCall) bool {
		return c.form.Get("channel") == "UNOBODY" && strings.Contains(c.form.Get("text"), "chat link")
	})
	select {
	case <-reached:
		t.Error("the server called an address that a click named")
	default:
	}
}

// What people write is shown as they wrote it, and does nothing.
func TestMarkupIsData(t *testing.T) {
	w := newWorld(t)
	w.link("UBOB", "bob")
	reason := "<!channel> <@U1> <https://evil.example|click> *bold* `code`\x1b[31m\r\nStatus: approved\u202e" + strings.Repeat("<", 1000)
	r, err := w.engine.Ask(t.Context(), grant.Actor{Principal: w.principal("carol"), Channel: "cli"}, grant.Ask{
		Flow: "frontend", Values: flow.Values{"reason": {reason}, "ticket": {"OPS-1"}, "duration": {"30m"}},
	})
	if err != nil {
		// The engine may take no such reason; then frozen ones of before must still do.
		r = grant.Request{}
	}
	r.Frozen.Reason, r.Frozen.Flow.Label, r.Frozen.Person.Name = reason, reason, "carol"
	m := notify.NewMessage(r, nil, time.Now(), "")
	if strings.ContainsAny(m.Reason, "\x1b\r\n\u202e") {
		t.Errorf("the reason is %q", m.Reason)
	}
	text, err := blocksJSON(notify.SlackBlocks(m, true))
	w.must(err)
	for _, bad := range []string{"<!channel", "<@U1", "<https", `\u003c!channel`, `\u003c@`, `\u003chttps`} {
		if strings.Contains(text, bad) {
			t.Errorf("%s went through: %.300s", bad, text)
		}
	}
}

// The number of refused calls is recorded when its minute is over, whether or not another
// comes.
func TestFloodIsCountedInTime(t *testing.T) {
	w := newWorld(t)
	for range 50 {
		resp, err := http.Post(w.web.URL+"/slack/interact", "application/x-www-form-urlencoded", strings.NewReader("payload={}"))
		w.must(err)
		resp.Body.Close()
	}
	w.ahead.Add(int64(time.Minute))
	eventually(t, "the number of calls", func() bool {
		records, err := w.store.Audit(t.Context(), audit.Filter{Event: audit.EventLogin})
		w.must(err)
		return len(records) == 6 && records[5].Details["repeated"] == "45"
	})
}

// Whoever floods with refused calls does not fill the audit log.
func TestFloodOfForgedCalls(t *testing.T) {
	w := newWorld(t)
	for range 50 {
		resp, err := http.Post(w.web.URL+"/slack/interact", "application/x-www-form-urlencoded", strings.NewReader("payload={}"))
		w.must(err)
		resp.Body.Close()
	}
	w.close(w.service)
	records, err := w.store.Audit(t.Context(), audit.Filter{Event: audit.EventLogin})
	w.must(err)
	if len(records) > 7 {
		t.Errorf("%d records of 50 calls", len(records))
	}
	if last := records[len(records)-1]; last.Details["repeated"] != "45" {
		t.Errorf("the last record is %+v", last)
	}
}
