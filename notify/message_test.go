package notify_test

import (
	"testing"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/notify"
)

func TestLine(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"as it is", "as it is"},
		{"  two\r\nlines\t", "two lines"},
		{"\x1b[31mred\x07", "[31mred"},
		{"a\u202eb\u200bc\u2066d", "abcd"},
		{"\xff\xfe", "\uFFFD\uFFFD"},
		{"123456789012345678901", "1234567890123456789…"},
	} {
		if got := notify.Line(c.in, 20); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestSlackTexts(t *testing.T) {
	for in, want := range map[string]string{
		"<!here> & <@U1>":      "&lt;!here&gt; &amp; &lt;@\u200bU1&gt;",
		"https://evil.example": "https:\u200b//evil.example",
		"*b* _i_ ~s~ `c` @all": "*\u200bb*\u200b _\u200bi_\u200b ~\u200bs~\u200b `\u200bc`\u200b @\u200ball",
	} {
		if got := notify.SlackInline(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", 30 * time.Minute: "30m", 90 * time.Minute: "1h30m", 49 * time.Hour: "2d1h",
		4*time.Minute + 59*time.Second: "5m",
	} {
		if got := notify.Words(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

// Who decides sees what was asked for, and not a rounded time.
func TestDurationIsExact(t *testing.T) {
	for d, want := range map[time.Duration]string{90 * time.Second: "1m30s", 30 * time.Minute: "30m", 49 * time.Hour: "49h", 48 * time.Hour: "2d"} {
		r := grant.Request{State: grant.Pending, Frozen: grant.Frozen{Duration: d}}
		if got := notify.NewMessage(r, nil, time.Now(), "").Duration; got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

// The outcome says in one line where a request stands, and by whose word.
func TestOutcome(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	stages := []flow.Stage{{Name: "peers", Approvals: 2, Of: flow.People{Groups: []string{"leads"}}}, {Name: "owner", Approvals: 1, Of: flow.People{Users: []string{"ann"}}}}
	bob := grant.Decision{Approve: true, By: flow.Person{Name: "bob"}}
	for _, c := range []struct {
		name string
		r    grant.Request
		want string
	}{
		{"waits", grant.Request{State: grant.Pending}, "waits for 2 approvals of group leads (stage 1 of 2)"},
		{"half way", grant.Request{State: grant.Pending, Decisions: []grant.Decision{bob}}, "waits for 1 approval of group leads (stage 1 of 2)"},
		{"one struck", grant.Request{State: grant.Pending, Decisions: []grant.Decision{{Approve: true, Struck: "left the group"}}}, "waits for 2 approvals of group leads (stage 1 of 2)"},
		{"code says who", grant.Request{State: grant.Pending, Of: &flow.People{Users: []string{"dan"}}}, "waits for 2 approvals of user dan (stage 1 of 2)"},
		{"second stage", grant.Request{State: grant.Pending, Stage: 1, Decisions: []grant.Decision{bob}}, "waits for 1 approval of user ann (stage 2 of 2)"},
		{"granted", grant.Request{State: grant.Active, EndsAt: at, Decisions: []grant.Decision{bob}}, "granted by bob, until 2026-03-01 12:00 UTC"},
		{"by a rule", grant.Request{State: grant.Active, EndsAt: at, Decisions: []grant.Decision{{Approve: true, Rule: "cedar x"}}}, "granted by cedar x, until 2026-03-01 12:00 UTC"},
		{"for first use", grant.Request{State: grant.Approved, Decisions: []grant.Decision{bob}}, "approved by bob; begins with its first use"},
		{"denied", grant.Request{State: grant.Denied, EndedBy: "arn:aws:iam::123456789012:user/bob", Because: "no\nway"}, "denied by bob: no way"},
		{"revoked", grant.Request{State: grant.Revoked, EndedBy: "policy", Because: "carol was disabled"}, "revoked by policy: carol was disabled"},
		{"ended", grant.Request{State: grant.Ended}, "ended: its time was up"},
		{"cancelled", grant.Request{State: grant.Cancelled}, "cancelled by carol"},
	} {
		c.r.Frozen = grant.Frozen{Flow: flow.Flow{Name: "f", Stages: stages}, Person: flow.Person{Name: "carol"}}
		if got := notify.NewMessage(c.r, nil, at, "").Outcome; got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
