package member

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secretFile writes a secret into a file of a mode.
func secretFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text+"\n"), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNotifyConfig(t *testing.T) {
	bot, signing := secretFile(t, "xoxb-1", 0o600), secretFile(t, "s", 0o600)
	c, err := load(t, goodConfig+`
slack {
  bot_token_file      = "`+bot+`"
  signing_secret_file = "`+signing+`"
  channel             = "C1"
}
webhook "ops" {
  url         = "https://10.0.0.1/hook"
  secret_file = "`+secretFile(t, "0123456789abcdef", 0o600)+`"
  format      = "teams"
}
smtp {
  host = "mail.example.com"
  from = "sallyport@example.com"
}
`)
	if err != nil {
		t.Fatal(err)
	}
	n := c.notifications()
	if n.Slack.BotToken != "xoxb-1" || n.Slack.SigningSecret != "s" || n.Slack.Channel != "C1" || n.Webhooks[0].Secret != "0123456789abcdef" || n.Mail.Host != "mail.example.com" {
		t.Errorf("got %+v, %+v, %+v", n.Slack, n.Webhooks, n.Mail)
	}
}

func TestNotifyMistakes(t *testing.T) {
	hook := func(text string) string { return "webhook \"ops\" {\n secret_file = SECRET\n" + text + "\n}\n" }
	secret := secretFile(t, "0123456789abcdef", 0o600)
	for _, c := range []struct{ name, text, want string }{
		{"a token that others can read", "slack {\n bot_token_file = \"" + secretFile(t, "xoxb-1", 0o644) + "\"\n}", "slack.bot_token_file: "},
		{"no token", "slack {\n bot_token_file = \"/nonexistent\"\n}", "slack.bot_token_file: "},
		{"a token in the configuration", "slack {\n bot_token = \"xoxb-1\"\n}", "bot_token"},
		{"no way in", "slack {\n bot_token_file = \"" + secretFile(t, "xoxb-1", 0o600) + "\"\n}", "slack: Socket Mode needs an app token"},
		{"plain HTTP", hook(`url = "http://hooks.example.com"`), `webhook "ops": url: want https://`},
		{"an unknown format", hook("url = \"https://hooks.example.com\"\n format = \"xml\""), `webhook "ops": format: "xml" is none of`},
		{"two of a name", hook(`url = "https://a.example.com"`) + hook(`url = "https://b.example.com"`), `webhook "ops": there are two of that name`},
		{"no sender", "smtp {\n host = \"mail.example.com\"\n from = \"nobody\"\n}", `smtp.from: "nobody" is not a mail address`},
	} {
		_, err := load(t, goodConfig+strings.ReplaceAll(c.text, "SECRET", `"`+secret+`"`))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("%s: the secret is in the error: %v", c.name, err)
		}
	}
}
