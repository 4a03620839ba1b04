package notify

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Lengths, in characters, to which what people wrote is clipped before it is shown.
const (
	maxReason  = 1000
	maxComment = 500
	maxName    = 100
	maxList    = 20 // entries of a list; the rest is counted
)

// line makes one line of text that somebody wrote: control characters (terminal escapes,
// line breaks), invisible ones and those that turn the direction of writing become
// spaces or go, and it is clipped to n characters.
func line(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '\uFFFD'
		case unicode.IsSpace(r), unicode.IsControl(r):
			return ' '
		case unicode.In(r, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp):
			return -1
		}
		return r
	}, s)
	return clip(strings.Join(strings.Fields(s), " "), n)
}

// clip shortens text to n characters, the last of which then is an ellipsis.
func clip(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	runes := []rune(s)
	return string(runes[:n-1]) + "…"
}

// lines is line for each of a list, of which maxList are kept.
func lines(list []string) []string {
	var out []string
	for i, s := range list {
		if i == maxList {
			return append(out, "and "+plural(len(list)-maxList, "more", "more"))
		}
		out = append(out, line(s, maxName))
	}
	return out
}

// slackEntities are the characters that Slack takes for the begin of mentions, links and
// entities.
var slackEntities = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// slackText makes text stand for itself in Slack. It is to be shown as plain_text, where
// the signs of mrkdwn mean nothing either.
func slackText(s string) string { return slackEntities.Replace(s) }

// slackInline is slackText for places that know mrkdwn only: signs that style are parted
// from what follows, so that they style nothing.
func slackInline(s string) string { return slackStyles.Replace(slackText(s)) }

var slackStyles = strings.NewReplacer("*", "*\u200b", "_", "_\u200b", "~", "~\u200b", "`", "`\u200b", "@", "@\u200b", "://", ":\u200b//")

// markdown makes text stand for itself in Mattermost and Adaptive Cards.
func markdown(s string) string { return markdownSigns.Replace(s) }

var markdownSigns = strings.NewReplacer(
	`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "~", `\~`, "#", `\#`, "[", `\[`, "]", `\]`, "(", `\(`, ")", `\)`,
	"|", `\|`, "<", "&lt;", ">", "&gt;", "&", "&amp;", "!", `\!`, "@", "@\u200b", "://", ":\u200b//",
)
