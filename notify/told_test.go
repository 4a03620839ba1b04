package notify_test

import (
	"strings"
	"testing"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/notify"
)

// A policy that explicitly denies deciding holds in Slack, too.
func TestExplicitDenyHoldsInSlack(t *testing.T) {
	w := newWorld(t)
	w.link("UBOB", "bob")
	w.link("UCAROL", "carol")
	for name, action := range map[string]string{"bob": "sallyport:ApproveRequest", "carol": "sallyport:RequestAccess"} {
		w.must(w.store.PutInlinePolicy(t.Context(), identity.InlinePolicy{
			Owner: identity.Owner{Kind: identity.OwnerUser, Name: name}, Name: "no",
			Document: `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"` + action + `","Resource":"*"}]}`,
		}))
	}
	view := map[string]any{"callback_id": "sallyport_form", "private_metadata": "frontend"}
	answer := w.interact(w.slack.submission(slackTeam, "UCAROL", view, map[string]any{"field reason": "x", "field duration": "30m", "field ticket": "OPS-1"}))
	if answer["response_action"] != "errors" {
		t.Errorf("asking: got %v, want a refusal", answer)
	}
	w.must(w.store.DeleteInlinePolicy(t.Context(), identity.Owner{Kind: identity.OwnerUser, Name: "carol"}, "no"))
	r := w.asked("frontend", "x")
	w.interact(w.approve(slackTeam, "UBOB", r))
	w.slack.whispers("your policies deny it")
	w.stays(r)
}

const glassFlow = `
flow "glass" {
  ask { groups = ["dev"] }
  target "nodes" "web" { tags = { Team = "frontend" } }
  clocks {
    pending = "1h"
    default = "30m"
    longest = "2h"
  }
  announce {
    on    = ["denied"]
    slack = ["#loud"]
  }
  break_glass {
    review { users = ["dave"] }
    review_within = "24h"
  }
}
`

// Who breaks the glass is heard of everywhere, whatever the flow announces otherwise.
func TestBreakGlassIsLoud(t *testing.T) {
	w := newWorld(t, func(c *notify.Config) { c.Slack.Channel = "#all" })
	w.link("UDAVE", "dave")
	w.put(map[string][]byte{"glass.sallyport.hcl": []byte(glassFlow)})
	p := w.principal("carol")
	p.MFA, p.MFAAt, p.Factor = true, time.Now(), "totp"
	r, err := w.engine.Ask(t.Context(), grant.Actor{Principal: p, Channel: "cli"}, grant.Ask{
		Flow: "glass", Values: flow.Values{"reason": {"everything is down"}, "duration": {"30m"}},
	})
	w.must(err)
	if r.State != grant.Active {
		t.Fatalf("got %s, want Active", r.State)
	}
	for _, channel := range []string{"#loud", "#all", "UDAVE"} {
		m := w.slack.last("a message in "+channel, "chat.postMessage", to(channel))
		if !strings.Contains(m.blocks(), "breaks the glass") || button(t, m.blocks(), "sallyport_approve") != "" {
			t.Errorf("%s: got %s", channel, m.blocks())
		}
	}
}

// Who decides and is not in Slack gets a mail beside those who are.
func TestMailForWhoIsNotInSlack(t *testing.T) {
	smtp := newSMTP(t, true)
	w := newWorld(t, func(c *notify.Config) {
		s := c.Slack
		smtp.option(nil)(c)
		c.Slack = s
	})
	w.link("UBOB", "bob")
	r := w.asked("frontend", "x")
	w.slack.last("bob's message", "chat.postMessage", to("UBOB"))
	eventually(t, "dave's mail", func() bool { _, found := smtp.to("dave@example.com"); return found })
	w.link("UDAVE", "dave")
	w.interact(w.approve(slackTeam, "UDAVE", r))
	w.becomes(r.ID, grant.Active)
	if _, found := smtp.to("bob@example.com"); found {
		t.Error("bob got a mail, too")
	}
}

// A stage that is done asks those of the next; a reminder asks once more, in a message
// that is noticed.
func TestStagesAndReminders(t *testing.T) {
	w := newWorld(t)
	w.link("UBOB", "bob")
	w.link("UDAVE", "dave")
	w.put(map[string][]byte{"two.sallyport.hcl": []byte(`
flow "two" {
  ask { groups = ["dev"] }
  target "nodes" "web" { tags = { Team = "frontend" } }
  stage "first" {
    of { users = ["bob"] }
  }
  stage "second" {
    of { users = ["dave"] }
    remind = "1m"
  }
  clocks {
    pending = "1h"
    default = "30m"
    longest = "2h"
  }
}
`)})
	r := w.asked("two", "x")
	w.slack.last("bob's message", "chat.postMessage", to("UBOB"))
	for _, c := range w.slack.made("chat.postMessage") {
		if c.form.Get("channel") == "UDAVE" {
			t.Error("dave was asked before it was his turn")
		}
	}
	w.interact(w.approve(slackTeam, "UBOB", r))
	w.slack.last("dave's message", "chat.postMessage", to("UDAVE"))
	w.slack.last("bob's message to be updated", "chat.update", func(c slackCall) bool {
		return c.form.Get("channel") == "DBOB" && strings.Contains(c.blocks(), "stage 2 of 2")
	})
	w.ahead.Store(int64(61 * time.Second))
	w.slack.last("a reminder", "chat.postMessage", func(c slackCall) bool {
		return c.form.Get("channel") == "DDAVE" && c.form.Get("thread_ts") != "" && strings.HasPrefix(c.form.Get("text"), "Reminder")
	})
	w.interact(w.approve(slackTeam, "UDAVE", r))
	w.becomes(r.ID, grant.Active)
}
