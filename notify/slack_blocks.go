package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/slack-go/slack"

	"sallyport.dev/grant"
)

// Ids of what people click.
const (
	actionApprove = "sallyport_approve"
	actionDeny    = "sallyport_deny"
	actionOpen    = "sallyport_open"
)

// Lengths that Slack bounds, in its characters and after escaping: what is longer makes it
// refuse the whole message, and with it whoever writes long reasons would keep requests
// from being told.
const (
	maxSlackField  = 1900 // of a section
	maxSlackHeader = 150
	maxSlackButton = 75
)

// plain is text that people wrote: plain_text, in which signs and emoji mean nothing.
func plain(s string, limit int) *slack.TextBlockObject {
	if s == "" {
		s = "–"
	}
	return &slack.TextBlockObject{Type: slack.PlainTextType, Text: slackClip(s, limit), Emoji: new(bool)}
}

// slackClip escapes text and clips it to n of Slack's characters (UTF-16 units).
func slackClip(s string, n int) string {
	b, length := strings.Builder{}, 0
	for _, r := range s {
		escaped := slackText(string(r))
		size := len(escaped)
		if r >= utf8.RuneSelf {
			size = utf16.RuneLen(r)
		}
		if length += size; length > n-1 {
			return b.String() + "…"
		}
		b.WriteString(escaped)
	}
	return b.String()
}

// label is text of ours.
func label(s string) *slack.TextBlockObject {
	return &slack.TextBlockObject{Type: slack.MarkdownType, Text: "*" + s + "*", Verbatim: true}
}

// rows are labels and what belongs to them; a section holds five.
type rows []*slack.TextBlockObject

func (r *rows) add(name, value string) {
	if value != "" {
		*r = append(*r, label(name), plain(value, maxSlackField))
	}
}

func (r rows) blocks() []slack.Block {
	var out []slack.Block
	for len(r) > 0 {
		n := min(len(r), 10)
		out = append(out, slack.NewSectionBlock(nil, r[:n:n], nil))
		r = r[n:]
	}
	return out
}

// slackBlocks renders a message.
func slackBlocks(m Message, buttons bool) []slack.Block {
	blocks := []slack.Block{slack.NewHeaderBlock(plain(m.Headline, maxSlackHeader))}
	var r rows
	r.add("Status", sentence(m.Outcome))
	r.add("Reason", m.Reason)
	r.add("Access", strings.Join(m.Targets, "\n"))
	r.add("Nodes", strings.Join(m.Nodes, ", "))
	r.add("For", m.Duration)
	r.add("As", m.As)
	for i, v := range m.Values {
		if i == 8 { // a message has fifty blocks at most
			break
		}
		r.add("Also asked", v.Name+": "+v.Value)
	}
	if m.Stage != nil {
		r.add("May decide", strings.Join(m.Stage.People, ", "))
	}
	for i, d := range m.Decided {
		if i == 12 {
			break
		}
		r.add(fmt.Sprintf("Stage %d", d.Stage), decisionWords(d))
	}
	for _, w := range m.Warnings {
		r.add("Warning", w)
	}
	r.add("Review", m.Review)
	blocks = append(blocks, r.blocks()...)
	if m.Until != nil {
		blocks = append(blocks, slack.NewContextBlock("", slackUntil(m)))
	}
	if e := slackActions(m, buttons); e != nil {
		blocks = append(blocks, e)
	}
	return append(blocks, slack.NewContextBlock("", plain(m.ID+" · "+clip(m.Hash, 17), maxSlackField)))
}

// slackUntil shows a time in the reader's own zone.
func slackUntil(m Message) *slack.TextBlockObject {
	what := map[string]string{string(grant.Pending): "waits until", string(grant.Approved): "to be used by", string(grant.Active): "ends"}[m.State]
	return &slack.TextBlockObject{
		Type: slack.MarkdownType, Verbatim: true,
		Text: fmt.Sprintf("%s <!date^%d^{date_short_pretty} {time}|%s>", what, m.Until.Unix(), m.Until.UTC().Format(time.RFC3339)),
	}
}

func slackActions(m Message, buttons bool) slack.Block {
	var elements []slack.BlockElement
	if buttons && m.Stage != nil && !m.Stage.SecondFactor {
		value := buttonValue(m.ID, m.Hash)
		approve := slack.NewButtonBlockElement(actionApprove, value, plain("Approve", maxSlackButton)).WithStyle(slack.StylePrimary)
		deny := slack.NewButtonBlockElement(actionDeny, value, plain("Deny", maxSlackButton)).WithStyle(slack.StyleDanger)
		elements = append(elements, approve, deny)
	} else if buttons && m.Stage != nil {
		elements = append(elements, slack.NewButtonBlockElement(actionApprove, buttonValue(m.ID, m.Hash), plain("Decide (second factor)", maxSlackButton)))
	}
	if m.URL != "" {
		elements = append(elements, slack.NewButtonBlockElement(actionOpen, m.ID, plain("Open", maxSlackButton)).WithURL(m.URL))
	}
	if len(elements) == 0 {
		return nil
	}
	return slack.NewActionBlock("sallyport", elements...)
}

// buttonValue is what a button carries: which request, and its hash. No authority.
func buttonValue(id, hash string) string { return id + " " + hash }

func decisionWords(d MessageDecision) string {
	verb := "denied"
	if d.Approve {
		verb = "approved"
	}
	s := verb + " by " + d.By
	if d.Channel != "" {
		s += " (" + d.Channel + ")"
	}
	if d.Comment != "" {
		s += ": " + d.Comment
	}
	if d.Struck != "" {
		s += " – does not count any more: " + d.Struck
	}
	return s
}

// sentence begins text with a capital letter.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// newsText says in one line what became of a request, to who asked.
func newsText(kind string, m Message) string {
	about := "Your request for " + m.Label
	switch kind {
	case grant.KindWarning:
		return clip("Your access to "+m.Label+" ends in "+m.Left, 300)
	case grant.KindStruck:
		return clip(about+": an approval does not count any more; it "+m.Outcome, 300)
	case grant.KindExtended:
		return clip("Your access to "+m.Label+" was extended; it now ends in "+m.Left, 300)
	}
	return clip(about+": "+m.Outcome, 600)
}

func slackNews(kind string, m Message) []slack.Block {
	blocks := []slack.Block{slack.NewSectionBlock(plain(newsText(kind, m), maxSlackField), nil, nil)}
	if m.Until != nil {
		blocks = append(blocks, slack.NewContextBlock("", slackUntil(m)))
	}
	if e := slackActions(m, false); e != nil {
		blocks = append(blocks, e)
	}
	return append(blocks, slack.NewContextBlock("", plain(m.ID, maxSlackField)))
}

// slackOptions are those of every message: its text is what notifications show, and is
// taken as it stands.
func slackOptions(text string, blocks []slack.Block) []slack.MsgOption {
	options := []slack.MsgOption{
		slack.MsgOptionText(slackInline(clip(text, 300)), false),
		slack.MsgOptionPostMessageParameters(slack.PostMessageParameters{Parse: "none", LinkNames: 0, UnfurlLinks: false, UnfurlMedia: false, Markdown: false}),
	}
	if len(blocks) > 0 {
		options = append(options, slack.MsgOptionBlocks(blocks...))
	}
	return options
}

// shown is the hash of what blocks show.
func shown(blocks []slack.Block) string {
	text, err := json.Marshal(blocks)
	if err != nil {
		panic("notify: encoding blocks: " + err.Error()) // strings always encode
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}
