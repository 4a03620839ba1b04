package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"sallyport.dev/access"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
)

// Ids of views and of the shortcut that opens the form.
const (
	viewFlows    = "sallyport_flows"
	viewForm     = "sallyport_form"
	viewComment  = "sallyport_comment"
	shortcutAsk  = "sallyport_request"
	blockFlow    = "flow"
	blockComment = "comment"
	blockTargets = "targets"
	blockNodes   = "nodes"
	blockField   = "field "
	elementID    = "value"
)

// answerTime bounds what is done before Slack is answered, which waits three seconds, and
// workTime what is done afterwards.
const (
	answerTime = 2500 * time.Millisecond
	workTime   = 20 * time.Second
)

// reply is the answer to a call of Slack: a message that only who called sees, or what is
// to become of a view.
type reply any

type whisper struct {
	Type string `json:"response_type"`
	Text string `json:"text"`
	Keep bool   `json:"replace_original"`
}

// whispered is a message that only who caused it sees.
func whispered(text string) whisper { return whisper{Type: "ephemeral", Text: text} }

// later does work after Slack was answered. It reports false where there is too much of it.
func (a *slackApp) later(ctx context.Context, work func(context.Context)) bool {
	select {
	case a.jobs <- struct{}{}:
	default:
		return false
	}
	// The call ends with its answer; its work goes on, until the service is closed.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), workTime)
	begun := a.begin(func() {
		defer func() { <-a.jobs }()
		defer cancel()
		work(ctx)
	})
	if !begun {
		cancel()
		<-a.jobs
	}
	return begun
}

const tooBusy = "Sallyport is busy. Try again in a moment."

// command answers a slash command.
func (a *slackApp) command(ctx context.Context, c slack.SlashCommand) reply {
	u := slackUser{Team: c.TeamID, ID: c.UserID, Name: c.UserName}
	p, err := a.who(ctx, u)
	if err != nil {
		return whispered(a.refusal(ctx, u, err))
	}
	verb, rest, _ := strings.Cut(strings.TrimSpace(c.Text), " ")
	switch verb {
	case "request", "ask":
	case "whoami":
		return whispered("You are " + slackInline(line(p.Name, maxName)) + " in Sallyport.")
	default:
		return whispered("`" + slackInline(line(c.Command, maxName)) + " request [FLOW]` asks for access; `whoami` says who you are here. Approve and deny with the buttons of a request's message.")
	}
	to := answerTo{url: c.ResponseURL, user: c.UserID}
	if !a.later(ctx, func(ctx context.Context) { a.openForm(ctx, u, p, strings.TrimSpace(rest), c.TriggerID, to) }) {
		return whispered(tooBusy)
	}
	return nil
}

// interaction answers a click, a shortcut or a form.
func (a *slackApp) interaction(ctx context.Context, in slack.InteractionCallback) reply {
	u := slackUser{Team: in.Team.ID, Home: in.User.TeamID, ID: in.User.ID, Name: in.User.Name}
	switch in.Type {
	case slack.InteractionTypeShortcut:
		return a.shortcut(ctx, u, in)
	case slack.InteractionTypeBlockActions:
		a.click(ctx, u, in)
	case slack.InteractionTypeViewSubmission:
		return a.submit(ctx, u, in)
	}
	return nil
}

func (a *slackApp) shortcut(ctx context.Context, u slackUser, in slack.InteractionCallback) reply {
	if in.CallbackID != shortcutAsk {
		return nil
	}
	a.later(ctx, func(ctx context.Context) {
		p, err := a.who(ctx, u)
		if err != nil {
			a.open(ctx, in.TriggerID, noteView("Who are you?", a.refusal(ctx, u, err)), answerTo{user: u.ID})
			return
		}
		a.openForm(ctx, u, p, "", in.TriggerID, answerTo{user: u.ID})
	})
	return nil
}

// answerTo is where somebody is answered who was not answered at once.
type answerTo struct{ url, user string }

// whisper tells somebody something that nobody else sees.
func (a *slackApp) whisper(ctx context.Context, to answerTo, text string) {
	var err error
	if strings.HasPrefix(to.url, a.hooks) {
		err = a.postHook(ctx, to.url, text)
	} else {
		_, _, err = a.api.PostMessageContext(ctx, to.user, slack.MsgOptionText(text, false), slack.MsgOptionDisableLinkUnfurl())
	}
	if err != nil {
		a.log.Warn("answering in Slack", "error", hideURL(err))
	}
}

// postHook posts to a response_url. Who has it can write to the channel, so that errors,
// which name it, are not passed on.
func (a *slackApp) postHook(ctx context.Context, to, text string) error {
	body, err := json.Marshal(whispered(text))
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return errors.New("the response_url is not a URL")
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(r)
	if err != nil {
		return hideURL(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("slack answered %s", resp.Status)
	}
	return nil
}

// refusal words why somebody is not let through. Whom nobody knows gets a code.
func (a *slackApp) refusal(ctx context.Context, u slackUser, err error) string {
	if errors.Is(err, ErrNotFound) {
		var text string
		if text, err = a.introduce(ctx, u); err == nil {
			return text
		}
	}
	return a.words(err)
}

// words say what went wrong, to who did it.
func (a *slackApp) words(err error) string {
	refused, denied, field := (*grant.RefusedError)(nil), (*access.DeniedError)(nil), (*flow.FieldError)(nil)
	switch {
	case errors.Is(err, errForeign), errors.Is(err, errDisabled):
		return sentence(err.Error()) + "."
	case errors.As(err, &refused):
		return "Refused " + slackInline(line(refused.Because, maxComment)) + "."
	case errors.As(err, &denied):
		return "Refused: your policies deny it."
	case errors.As(err, &field):
		return slackInline(line(field.Error(), maxComment))
	case errors.Is(err, grant.ErrNotFound):
		return "There is no such request."
	case errors.Is(err, grant.ErrState):
		return "It is decided already, or over."
	case errors.Is(err, grant.ErrHash):
		return "This is not the request that the message showed. Nothing was decided."
	case errors.Is(err, context.DeadlineExceeded):
		return "It took too long. Try again in a moment."
	}
	a.log.Error("answering somebody in Slack", "error", err)
	return "Something went wrong here; the server's log says what."
}

// click takes a click on a button, after Slack was answered.
func (a *slackApp) click(ctx context.Context, u slackUser, in slack.InteractionCallback) {
	if len(in.ActionCallback.BlockActions) != 1 {
		return
	}
	action := in.ActionCallback.BlockActions[0]
	if action.ActionID != actionApprove && action.ActionID != actionDeny {
		return
	}
	to := answerTo{in.ResponseURL, u.ID}
	work := func(ctx context.Context) {
		if text := a.decideClick(ctx, u, action.ActionID == actionApprove, action.Value, in.TriggerID, to); text != "" {
			a.whisper(ctx, to, text)
		}
	}
	if !a.later(ctx, work) {
		a.log.Warn("a click in Slack was dropped: too many at a time")
	}
}

// decideClick decides, or asks for a comment first. It returns what the clicker is told.
func (a *slackApp) decideClick(ctx context.Context, u slackUser, approve bool, value, trigger string, to answerTo) string {
	p, err := a.who(ctx, u)
	if err != nil {
		return a.refusal(ctx, u, err)
	}
	id, hash, found := strings.Cut(value, " ")
	r, err := a.config.Access.Request(ctx, id)
	if err != nil && !errors.Is(err, grant.ErrNotFound) {
		return a.words(err)
	}
	if err != nil || !found {
		a.strays.refuse(ctx, "Forged", "a click on something that is no request", a.record(u))
		return a.words(grant.ErrNotFound)
	}
	stage, waits := stageOf(r)
	// What the engine would refuse anyway it is to refuse now, and to record.
	if waits && !stage.SecondFactor && r.Hash == hash && (!approve || stage.Comment == flow.CommentAlways) {
		a.open(ctx, trigger, commentView(r, stage, approve), to)
		return ""
	}
	after, err := a.decide(ctx, p, u, id, hash, approve, "")
	if err != nil {
		return a.words(err) + a.elsewhere(r)
	}
	return a.decided(after)
}

// elsewhere says where to decide what needs a second factor, which a chat cannot show.
func (a *slackApp) elsewhere(r grant.Request) string {
	if stage, waits := stageOf(r); !waits || !stage.SecondFactor {
		return ""
	}
	text := "\nIn Slack nobody can show a second factor. Decide in your terminal: `sallyport approve " + r.ID + "` or `sallyport deny " + r.ID + "`"
	if a.config.URL != "" {
		text += ", or on " + strings.TrimSuffix(a.config.URL, "/") + pathRequests + r.ID
	}
	return text + "."
}

func stageOf(r grant.Request) (flow.Stage, bool) {
	if r.State != grant.Pending || r.Stage >= len(r.Frozen.Flow.Stages) {
		return flow.Stage{}, false
	}
	return r.Frozen.Flow.Stages[r.Stage], true
}

// decide has the engine decide. The engine asks the policies and records what it refuses.
func (a *slackApp) decide(ctx context.Context, p identity.Principal, u slackUser, id, hash string, approve bool, comment string) (grant.Request, error) {
	r, err := a.config.Access.Decide(ctx, actor(p, u), id, hash, approve, comment)
	if err == nil {
		a.wake(wakeOutbox)
	}
	return r, err
}

// decided words what a decision came to.
func (a *slackApp) decided(r grant.Request) string {
	m := newMessage(r, nil, a.config.Now(), a.config.URL)
	return slackInline("Noted: " + m.Headline + ": " + m.Outcome)
}

// submit takes a form. Slack waits for the answer, which may say what is wrong with it.
func (a *slackApp) submit(ctx context.Context, u slackUser, in slack.InteractionCallback) reply {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	p, err := a.who(ctx, u)
	if err != nil {
		return slack.NewUpdateViewSubmissionResponse(ptr(noteView("Not possible", a.refusal(ctx, u, err))))
	}
	switch in.View.CallbackID {
	case viewFlows:
		return a.choseFlow(ctx, p, in.View)
	case viewForm:
		return a.filled(ctx, p, u, in.View)
	case viewComment:
		return a.commented(ctx, p, u, in.View)
	}
	return nil
}

func ptr[T any](v T) *T { return &v }

// pending is what a comment is asked for. It is kept in the view and carries no authority.
type pending struct {
	ID      string `json:"id"`
	Hash    string `json:"hash"`
	Approve bool   `json:"approve"`
}

func (a *slackApp) commented(ctx context.Context, p identity.Principal, u slackUser, v slack.View) reply {
	var about pending
	if err := json.Unmarshal([]byte(v.PrivateMetadata), &about); err != nil {
		return viewErrors(blockComment, "This form is not of Sallyport's making.")
	}
	r, err := a.decide(ctx, p, u, about.ID, about.Hash, about.Approve, inputText(v, blockComment))
	if err != nil {
		return viewErrors(blockComment, a.words(err))
	}
	return slack.NewUpdateViewSubmissionResponse(ptr(noteView("Noted", a.decided(r))))
}

func viewErrors(block, text string) *slack.ViewSubmissionResponse {
	return slack.NewErrorsViewSubmissionResponse(map[string]string{block: clip(text, 150)})
}

// open opens a view. It must come within three seconds of the click.
func (a *slackApp) open(ctx context.Context, trigger string, v slack.ModalViewRequest, to answerTo) {
	if _, err := a.api.OpenViewContext(ctx, trigger, v); err != nil {
		a.log.Warn("opening a form in Slack", "error", err)
		a.whisper(ctx, to, "The form could not be opened. Try again.")
	}
}
