package notify_test

import (
	"encoding/json"
	"strings"
	"testing"

	"sallyport.dev/audit"
	"sallyport.dev/grant"
	"sallyport.dev/notify"
)

func socketMode(w *fakeSlack) option {
	return func(c *notify.Config) {
		c.Slack = &notify.Slack{BotToken: botToken, AppToken: appToken, APIURL: w.apiURL()}
	}
}

// Socket Mode does what calls by HTTP do, without an address that Slack reaches.
func TestSocketMode(t *testing.T) {
	f := newFakeSlack(t)
	w := newWorld(t, socketMode(f))
	w.slack.close()
	w.slack = f
	for pattern := range w.service.Handlers() {
		if strings.Contains(pattern, "/slack/") {
			t.Errorf("without a signing secret %s is served", pattern)
		}
	}
	link := func(user, name string) {
		t.Helper()
		answer := f.envelope("slash_commands", "link-"+user, flat(f.command(slackTeam, user, "request")))
		_, rest, found := strings.Cut(string(answer), "sallyport chat link ")
		if !found {
			t.Fatalf("got %s, want a code", answer)
		}
		_, err := notify.LinkAccount(t.Context(), w.store, rest[:19], w.user(name).ID, now())
		w.must(err)
	}
	link("UBOB", "bob")
	link("UCAROL", "carol")

	f.envelope("slash_commands", "e1", flat(f.command(slackTeam, "UCAROL", "request")))
	opened := f.last("the choice of flows", "views.open", func(slackCall) bool { return true })
	view := opened.body["view"].(map[string]any)
	chosen := f.envelope("interactive", "e2", f.choice(slackTeam, "UCAROL", view, "flow", "frontend"))
	var next struct {
		Action string         `json:"response_action"`
		View   map[string]any `json:"view"`
	}
	w.must(json.Unmarshal(chosen, &next))
	if next.Action != "update" || next.View["callback_id"] != "sallyport_form" {
		t.Fatalf("got %s, want the form", chosen)
	}
	f.envelope("interactive", "e3", f.submission(slackTeam, "UCAROL", next.View, map[string]any{
		"field reason": "x", "field duration": "30m", "field ticket": "OPS-1",
	}))
	asked := f.last("bob's message", "chat.postMessage", to("UBOB"))
	value := button(t, asked.blocks(), "sallyport_deny")
	id, _, _ := strings.Cut(value, " ")

	f.envelope("interactive", "e4", f.click(slackTeam, "UBOB", "sallyport_deny", value))
	comment := f.last("the question for a comment", "views.open", func(c slackCall) bool {
		text, _ := json.Marshal(c.body)
		return strings.Contains(string(text), "sallyport_comment")
	}).body["view"].(map[string]any)
	denial := f.submission(slackTeam, "UBOB", comment, map[string]any{"comment": "not today"})
	f.envelope("interactive", "e5", denial)
	r := w.becomes(id, grant.Denied)
	if r.Because != "not today" || r.Decisions[0].By.Name != "bob" {
		t.Errorf("got %+v", r)
	}
	// An envelope that comes again, as Slack sends those whose acknowledgement was lost,
	// is acknowledged and does nothing more.
	if again := f.envelope("interactive", "e5", denial); len(again) > 0 && string(again) != "null" {
		t.Errorf("the second time: got %s", again)
	}
	f.last("carol to be told", "chat.postMessage", func(c slackCall) bool {
		return c.form.Get("channel") == "UCAROL" && strings.Contains(c.form.Get("text"), "denied by bob: not today")
	})
}

// The same ids of another workspace are somebody else's, by Socket Mode as by HTTP.
func TestSocketModeOfAnotherTeam(t *testing.T) {
	f := newFakeSlack(t)
	w := newWorld(t, socketMode(f))
	w.slack.close()
	w.slack = f
	answer := f.envelope("slash_commands", "l1", flat(f.command(slackTeam, "UBOB", "request")))
	_, rest, found := strings.Cut(string(answer), "sallyport chat link ")
	if !found {
		t.Fatalf("got %s, want a code", answer)
	}
	_, err := notify.LinkAccount(t.Context(), w.store, rest[:19], w.user("bob").ID, now())
	w.must(err)
	r := w.asked("frontend", "x")

	answer = f.envelope("slash_commands", "t1", flat(f.command("T0EVIL", "UBOB", "whoami")))
	if text := string(answer); strings.Contains(text, "You are") || strings.Contains(text, "chat link") || !strings.Contains(text, "own workspace") {
		t.Errorf("a command: got %s", text)
	}
	w.recorded(audit.EventLogin, "WrongTeam")
	f.envelope("interactive", "t2", w.approve("T0EVIL", "UBOB", r))
	f.whispers("own workspace")
	guest := w.approve(slackTeam, "UBOB", r) // of a channel that is shared with another workspace
	guest["user"].(map[string]any)["team_id"] = "T0EVIL"
	f.envelope("interactive", "t3", guest)
	view := map[string]any{"callback_id": "sallyport_comment", "private_metadata": `{"id":"` + r.ID + `","hash":"` + r.Hash + `","approve":true}`}
	f.envelope("interactive", "t4", f.submission("T0EVIL", "UBOB", view, map[string]any{"comment": "mine"}))
	w.stays(r)
	// Their own click counts.
	f.envelope("interactive", "t5", w.approve(slackTeam, "UBOB", r))
	w.becomes(r.ID, grant.Active)
}

// Slack closes connections now and then; the app comes back.
func TestSocketModeReconnects(t *testing.T) {
	f := newFakeSlack(t)
	w := newWorld(t, socketMode(f))
	w.slack.close()
	w.slack = f
	connected := func(n int) {
		t.Helper()
		eventually(t, "a connection", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.sockets >= n
		})
	}
	connected(1)
	f.send(`{"type":"disconnect","reason":"refresh_requested","debug_info":{"host":"x"}}`)
	connected(2)
	f.send(`this is no envelope`)
	f.send(`{"type":"events_api","envelope_id":"x1","payload":{}}`)
	if answer := f.envelope("slash_commands", "x2", flat(f.command(slackTeam, "UBOB", "help"))); !strings.Contains(string(answer), "chat link") {
		t.Errorf("got %s", answer)
	}
}
