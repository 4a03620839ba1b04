package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/slack-go/slack"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/internal/loopback"
)

const (
	serviceSlack = "slack"
	// channelSlack is what the engine knows Slack as.
	channelSlack = "slack"
	slackAPI     = "https://slack.com/api/"
	// slackHooks is where Slack's response_urls lead.
	slackHooks = "https://hooks.slack.com/"
	// maxAnswer bounds what is read of an answer of Slack, in bytes.
	maxAnswer = 4 << 20
	slackTime = 10 * time.Second
)

// Slack is a Slack app. See docs/chat.md for how it is made.
type Slack struct {
	BotToken string // xoxb-…
	// AppToken (xapp-…) opens Socket Mode; SigningSecret checks calls by HTTP. One of them
	// is needed, both may be given.
	AppToken      string
	SigningSecret string
	// Team is the id of the workspace; that of the bot's token unless given.
	Team string
	// Channel is told of every request, beside what flows say; optional.
	Channel string
	// APIURL is Slack's, but for tests.
	APIURL string
}

// slackApp speaks with Slack.
type slackApp struct {
	*Service
	api       *slack.Client
	http      *http.Client
	signing   []byte // nil without calls by HTTP
	socket    bool
	hooks     string // what response_urls begin with
	channel   string
	reading   readers       // room for calls whose bodies are read
	answering chan struct{} // room for envelopes that are answered

	mu   sync.Mutex
	team slackTeam
}

// slackTeam is the workspace that the app is in.
type slackTeam struct{ id, name string }

func newSlackApp(s *Service, c Slack) (*slackApp, error) {
	if !strings.HasPrefix(c.BotToken, "xoxb-") {
		return nil, errors.New("slack: the bot token must begin with xoxb-")
	}
	if c.AppToken == "" && c.SigningSecret == "" {
		return nil, errors.New("slack: Socket Mode needs an app token, calls by HTTP a signing secret: give one of them")
	}
	if c.AppToken != "" && !strings.HasPrefix(c.AppToken, "xapp-") {
		return nil, errors.New("slack: the app token must begin with xapp-")
	}
	a := &slackApp{
		Service: s, socket: c.AppToken != "", channel: c.Channel, hooks: slackHooks,
		http: &http.Client{Transport: bounded{http.DefaultTransport}, Timeout: slackTime, CheckRedirect: noRedirect},
		team: slackTeam{id: c.Team}, reading: readers{of: map[string]int{}}, answering: make(chan struct{}, maxReading),
	}
	if c.SigningSecret != "" {
		a.signing = []byte(c.SigningSecret)
	}
	base := slackAPI
	if c.APIURL != "" {
		u, err := url.Parse(c.APIURL)
		if err != nil || u.Host == "" || u.Scheme != "https" && !loopback.Is(u.Hostname()) {
			return nil, fmt.Errorf("slack: api_url: %q is not https://…", c.APIURL)
		}
		base = strings.TrimSuffix(c.APIURL, "/") + "/"
		a.hooks = u.Scheme + "://" + u.Host + "/"
	}
	a.api = slack.New(c.BotToken, slack.OptionAppLevelToken(c.AppToken), slack.OptionAPIURL(base), slack.OptionHTTPClient(a.http))
	return a, nil
}

// noRedirect keeps what we send from going elsewhere than it was meant to.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// bounded bounds the answers that are read.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// workspace returns the team that the app is in. It asks Slack once.
func (a *slackApp) workspace(ctx context.Context) (slackTeam, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.team.id != "" && a.team.name != "" {
		return a.team, nil
	}
	who, err := a.api.AuthTestContext(ctx)
	if err != nil {
		return slackTeam{}, fmt.Errorf("asking Slack which workspace this is: %w", err)
	}
	if a.team.id != "" && a.team.id != who.TeamID {
		return slackTeam{}, fmt.Errorf("slack: the bot token is of workspace %q, the configuration says %q", who.TeamID, a.team.id)
	}
	a.team = slackTeam{who.TeamID, line(who.Team, maxName)}
	return a.team, nil
}

// send implements sender.
func (a *slackApp) send(ctx context.Context, d Delivery) error {
	if told, err := a.told(ctx, d); err != nil || told && d.What != tellRemind {
		return errors.Join(err, errNothing)
	}
	r, err := a.config.Access.Request(ctx, d.Request)
	if err != nil {
		return err
	}
	ref, err := a.reference(ctx, d)
	if err != nil {
		return err
	}
	switch {
	case d.What == tellUpdate && ref.Message == "":
		return errNothing
	case d.What == tellUpdate:
		return a.update(ctx, ref, d, r)
	case d.What == tellNews:
		return a.news(ctx, d, r)
	case ref.Message == "":
		return a.post(ctx, d, r)
	}
	return errors.Join(a.update(ctx, ref, d, r), a.nudge(ctx, ref, d, r))
}

// reference finds the message that a delivery's place has of the request, if any.
func (a *slackApp) reference(ctx context.Context, d Delivery) (Reference, error) {
	refs, err := a.config.Store.References(ctx, d.Request)
	for _, ref := range refs {
		if ref.Service == serviceSlack && ref.To == d.To {
			return ref, nil
		}
	}
	return Reference{}, err
}

// conversation is the channel of a place; that of a person is their Slack user id.
func (a *slackApp) conversation(ctx context.Context, to string) (string, error) {
	person, is := strings.CutPrefix(to, personPrefix)
	if !is {
		return to, nil
	}
	team, err := a.workspace(ctx)
	if err != nil {
		return "", err
	}
	links, err := a.config.Store.LinksOf(ctx, person)
	for _, l := range links {
		if l.Service == serviceSlack && l.Team == team.id {
			return l.User, nil
		}
	}
	return "", errors.Join(err, fmt.Errorf("the person is not linked to anybody in Slack: %w", errNever))
}

// message renders a request for a place.
func (a *slackApp) message(ctx context.Context, d Delivery, r grant.Request) (blocks []slack.Block, text string) {
	m := a.render(ctx, r)
	return slackBlocks(m, a.buttons(d.To, r)), m.Headline + ": " + m.Outcome
}

// render makes the message of a request as it is now.
func (s *Service) render(ctx context.Context, r grant.Request) Message {
	var people []flow.Person
	if r.State == grant.Pending {
		var err error
		if people, err = s.config.Access.Deciders(ctx, r, maxList+1); err != nil {
			s.log.Warn("finding who decides", "request", r.ID, "error", err)
		}
	}
	return newMessage(r, people, s.config.Now(), s.config.URL)
}

// buttons reports whether a request may be decided by buttons at a place.
func (a *slackApp) buttons(to string, r grant.Request) bool {
	f := r.Frozen.Flow
	if r.State != grant.Pending || r.Stage >= len(f.Stages) || !allows(f.Channels, channelSlack) {
		return false
	}
	return f.Stages[r.Stage].AllowSelf || to != personPrefix+r.Frozen.Person.ID
}

func allows(channels []string, c string) bool {
	if len(channels) == 0 {
		return true
	}
	for _, have := range channels {
		if have == c {
			return true
		}
	}
	return false
}

// post sends a new message and keeps where it is.
func (a *slackApp) post(ctx context.Context, d Delivery, r grant.Request) error {
	to, err := a.conversation(ctx, d.To)
	if err != nil {
		return err
	}
	blocks, text := a.message(ctx, d, r)
	channel, ts, err := a.api.PostMessageContext(ctx, to, slackOptions(text, blocks)...)
	if err != nil {
		return slackError(err)
	}
	ref := Reference{
		Request: r.ID, Service: serviceSlack, To: d.To, Channel: channel, Message: ts,
		Revision: r.Revision, Shown: shown(blocks), Made: a.config.Now(),
	}
	if err := a.config.Store.PutReference(ctx, ref); err != nil {
		return err
	}
	// What happened between reading the request and keeping the reference was planned
	// while nobody knew of this message.
	if r, err = a.config.Access.Request(ctx, r.ID); err != nil || r.Revision == ref.Revision {
		return err
	}
	return a.update(ctx, ref, d, r)
}

// update brings a message up to date, unless it is.
func (a *slackApp) update(ctx context.Context, ref Reference, d Delivery, r grant.Request) error {
	blocks, text := a.message(ctx, d, r)
	if ref.Revision > r.Revision || ref.Shown == shown(blocks) {
		return nil
	}
	if _, _, _, err := a.api.UpdateMessageContext(ctx, ref.Channel, ref.Message, slackOptions(text, blocks)...); err != nil {
		return slackError(err)
	}
	ref.Revision, ref.Shown = r.Revision, shown(blocks)
	return a.config.Store.PutReference(ctx, ref)
}

// nudge says beneath a message, which by itself changes silently, that somebody is waited
// for.
func (a *slackApp) nudge(ctx context.Context, ref Reference, d Delivery, r grant.Request) error {
	if r.State != grant.Pending || d.Kind == grant.KindRequested || d.What != tellAsk && d.What != tellRemind {
		return nil
	}
	m := a.render(ctx, r)
	text := m.Headline + ": " + m.Outcome
	if d.What == tellRemind {
		text = "Reminder: " + text
	}
	_, _, err := a.api.PostMessageContext(ctx, ref.Channel, append(slackOptions(text, nil), slack.MsgOptionTS(ref.Message))...)
	return slackError(err)
}

// news tells who asked what became of it.
func (a *slackApp) news(ctx context.Context, d Delivery, r grant.Request) error {
	to, err := a.conversation(ctx, d.To)
	if err != nil {
		return err
	}
	m := a.render(ctx, r)
	_, _, err = a.api.PostMessageContext(ctx, to, slackOptions(newsText(d.Kind, m), slackNews(d.Kind, m))...)
	return slackError(err)
}

// slackPermanent are errors of Slack that another try does not mend.
var slackPermanent = map[string]bool{
	"channel_not_found": true, "not_in_channel": true, "is_archived": true, "invalid_auth": true, "not_authed": true,
	"account_inactive": true, "token_revoked": true, "token_expired": true, "no_permission": true, "missing_scope": true,
	"restricted_action": true, "user_not_found": true, "user_disabled": true, "message_not_found": true,
	"cant_update_message": true, "edit_window_closed": true, "invalid_blocks": true, "invalid_arguments": true,
	"msg_too_long": true, "cannot_dm_bot": true, "messages_tab_disabled": true, "team_access_not_granted": true,
}

// slackError says of an error whether another try is worth it.
func slackError(err error) error {
	limited, answer := (*slack.RateLimitedError)(nil), slack.SlackErrorResponse{}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &limited):
		return &laterError{limited.RetryAfter, err}
	case errors.As(err, &answer) && slackPermanent[answer.Err]:
		return fmt.Errorf("slack: %w: %w", err, errNever)
	}
	return fmt.Errorf("slack: %w", err)
}

// principal finds who an account of Slack is here.
func (a *slackApp) principal(ctx context.Context, user string) (identity.Principal, error) {
	team, err := a.workspace(ctx)
	if err != nil {
		return identity.Principal{}, err
	}
	link, err := a.config.Store.LinkOf(ctx, Account{serviceSlack, team.id, user})
	if err != nil {
		return identity.Principal{}, err
	}
	return a.config.Principal(ctx, link.Person)
}
