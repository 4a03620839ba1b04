package notify_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport.dev/grant"
)

// callSlack makes a call as Slack does, and returns the answer.
func (w *world) callSlack(what string, form url.Values) (int, []byte) {
	w.t.Helper()
	return w.do(signed(w.t, w.web.URL+"/slack/"+what, form, time.Now()))
}

func (w *world) do(r *http.Request) (int, []byte) {
	w.t.Helper()
	begun := time.Now()
	resp, err := http.DefaultClient.Do(r)
	w.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	w.must(err)
	if took := time.Since(begun); took > 3*time.Second {
		w.t.Errorf("answering Slack took %v", took)
	}
	return resp.StatusCode, body
}

func (w *world) interact(payloadOf any) map[string]any {
	w.t.Helper()
	status, body := w.callSlack("interact", payload(w.t, payloadOf))
	if status != http.StatusOK {
		w.t.Fatalf("got %d %s", status, body)
	}
	var answer map[string]any
	if len(body) > 0 {
		w.must(json.Unmarshal(body, &answer))
	}
	return answer
}

// button is the value of a button in blocks that were sent.
func button(t testing.TB, blocks, action string) string {
	t.Helper()
	var all []struct {
		Elements []struct {
			ActionID string `json:"action_id"`
			Value    string `json:"value"`
		} `json:"elements"`
	}
	if err := json.Unmarshal([]byte(blocks), &all); err != nil {
		t.Fatalf("blocks %q: %v", blocks, err)
	}
	for _, b := range all {
		for _, e := range b.Elements {
			if e.ActionID == action {
				return e.Value
			}
		}
	}
	return ""
}

func to(channel string) func(slackCall) bool {
	return func(c slackCall) bool { return c.form.Get("channel") == channel }
}

// The whole way in Slack: form, message, decision, and what became of it.
func TestSlackExchange(t *testing.T) {
	w := newWorld(t)
	w.link("UCAROL", "carol")
	w.link("UBOB", "bob")

	// carol opens the form of the flow,
	if status, body := w.callSlack("command", w.slack.command(slackTeam, "UCAROL", "request frontend")); status != 200 || len(body) > 0 {
		t.Fatalf("got %d %s", status, body)
	}
	opened := w.slack.last("the form", "views.open", func(slackCall) bool { return true })
	view := opened.body["view"].(map[string]any)
	text, _ := json.Marshal(view)
	for _, want := range []string{`"field reason"`, `"field duration"`, `"field ticket"`, `"targets"`, `"callback_id":"sallyport_form"`, `"field ticket"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the form lacks %s: %s", want, text)
		}
	}

	// fills it in wrongly,
	values := map[string]any{"field reason": "checkout is slow <!channel> *now*", "field duration": "30m", "field ticket": "none", "targets": []string{"web"}}
	answer := w.interact(w.slack.submission(slackTeam, "UCAROL", view, values))
	if errs, _ := answer["errors"].(map[string]any); answer["response_action"] != "errors" || !strings.Contains(str(errs["field ticket"]), "OPS-12") {
		t.Fatalf("a wrong ticket: got %v, want an error at the field", answer)
	}
	// and then rightly.
	values["field ticket"] = "OPS-12"
	answer = w.interact(w.slack.submission(slackTeam, "UCAROL", view, values))
	if answer["response_action"] != "update" {
		t.Fatalf("got %v, want the view to say what was asked", answer)
	}
	all, err := w.store.Requests(t.Context(), grant.Filter{})
	w.must(err)
	if len(all) != 1 || all[0].Frozen.Channel != "slack" || all[0].Frozen.Person.Name != "carol" || len(all[0].Frozen.Targets) != 1 {
		t.Fatalf("got %+v", all)
	}
	id := all[0].ID

	// The channel and bob get a message with buttons, carol one without.
	w.slack.last("the channel's message", "chat.postMessage", to("#ops"))
	track := w.slack.last("carol's message", "chat.postMessage", to("UCAROL"))
	if button(t, track.blocks(), "sallyport_approve") != "" {
		t.Error("who asked is offered to approve")
	}
	asked := w.slack.last("bob's message", "chat.postMessage", to("UBOB"))
	for _, bad := range []string{"<!channel>"} {
		if strings.Contains(asked.blocks()+asked.form.Get("text"), bad) {
			t.Errorf("the reason's markup went through: %s", asked.blocks())
		}
	}
	value := button(t, asked.blocks(), "sallyport_approve")
	if value != id+" "+all[0].Hash {
		t.Errorf("the button carries %q, want request and hash", value)
	}

	// bob approves; the messages say so, and carol is told.
	w.interact(w.slack.click(slackTeam, "UBOB", "sallyport_approve", value))
	r := w.becomes(id, grant.Active)
	if d := r.Decisions[0]; d.By.Name != "bob" || d.Channel != "slack" {
		t.Errorf("got %+v", d)
	}
	for _, channel := range []string{"#ops", "DBOB", "DCAROL"} {
		w.slack.last("the message in "+channel+" to be updated", "chat.update", func(c slackCall) bool {
			return c.form.Get("channel") == channel && strings.Contains(c.blocks(), "Granted by bob") && button(t, c.blocks(), "sallyport_approve") == ""
		})
	}
	w.slack.last("carol to be told", "chat.postMessage", func(c slackCall) bool {
		return c.form.Get("channel") == "UCAROL" && strings.Contains(c.form.Get("text"), "granted by bob")
	})
	w.slack.whispers("Noted")
}

func str(v any) string {
	s, _ := v.(string)
	return s
}

// The shortcut opens the form, or says how to become known.
func TestShortcut(t *testing.T) {
	w := newWorld(t)
	made := 0
	shortcut := func(user string) map[string]any {
		made++
		in, by := who(slackTeam, user)
		return map[string]any{"type": "shortcut", "callback_id": "sallyport_request", "trigger_id": fmt.Sprint("t.", made), "team": in, "user": by, "action_ts": "1.1"}
	}
	opened := func(part string) {
		t.Helper()
		w.slack.last("a view with "+part, "views.open", func(c slackCall) bool {
			text, err := json.Marshal(c.body)
			return err == nil && strings.Contains(string(text), part)
		})
	}
	w.interact(shortcut("UCAROL"))
	opened("sallyport chat link")
	w.link("UCAROL", "carol")
	w.interact(shortcut("UCAROL"))
	opened("sallyport_flows")
	status, body := w.callSlack("command", w.slack.command(slackTeam, "UCAROL", "whoami"))
	if status != http.StatusOK || !strings.Contains(string(body), "You are carol") {
		t.Errorf("got %d %s", status, body)
	}
}
