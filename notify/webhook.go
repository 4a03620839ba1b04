package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sallyport.dev/internal/hooksign"
	"sallyport.dev/internal/loopback"
)

// Formats of webhooks.
const (
	FormatJSON       = "json"       // the Message as it is
	FormatTeams      = "teams"      // an Adaptive Card, as Microsoft Teams takes
	FormatMattermost = "mattermost" // text with an attachment, as Mattermost and others take
)

const minSecret = 16 // bytes of a webhook's secret

// Webhook is an address that is told of requests by HTTP.
type Webhook struct {
	Name   string // what flows call it
	URL    string
	Secret string // signs; at least 16 bytes
	Format string // json unless given
}

var webhookName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// webhook delivers to one address. Whatever address the configuration names may be
// reached, a private one, too: it is the administrator's word, and nothing that flows or
// people say can change it, nor do answers that redirect.
type webhook struct {
	*Service
	config Webhook
	client *http.Client
}

func newWebhook(s *Service, c Webhook) (*webhook, error) {
	if c.Format == "" {
		c.Format = FormatJSON
	}
	u, err := url.Parse(c.URL)
	switch {
	case !webhookName.MatchString(c.Name):
		return nil, fmt.Errorf("webhook %q: a name is of letters, digits, dots, dashes and underscores", c.Name)
	case err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && loopback.Is(u.Hostname())):
		return nil, fmt.Errorf("webhook %q: url: want https://…", c.Name)
	case len(c.Secret) < minSecret:
		return nil, fmt.Errorf("webhook %q: the secret is shorter than %d bytes", c.Name, minSecret)
	case c.Format != FormatJSON && c.Format != FormatTeams && c.Format != FormatMattermost:
		return nil, fmt.Errorf("webhook %q: format: %q is none of json, teams, mattermost", c.Name, c.Format)
	}
	client := &http.Client{Transport: bounded{http.DefaultTransport}, Timeout: sendTime, CheckRedirect: noRedirect}
	return &webhook{s, c, client}, nil
}

// send implements sender.
func (w *webhook) send(ctx context.Context, d Delivery) error {
	m, err := w.about(ctx, d)
	if err != nil {
		return err
	}
	body, err := w.body(m)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.config.URL, bytes.NewReader(body))
	if err != nil {
		return errors.Join(hideURL(err), errNever)
	}
	stamp := strconv.FormatInt(w.Service.config.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "sallyport")
	r.Header.Set(hooksign.HeaderTimestamp, stamp)
	r.Header.Set(hooksign.HeaderDelivery, d.ID)
	r.Header.Set(hooksign.HeaderSignature, hooksign.Sign(w.config.Secret, stamp, body))
	resp, err := w.client.Do(r)
	if err != nil {
		return hideURL(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is used again
	return webhookAnswer(resp)
}

func webhookAnswer(resp *http.Response) error {
	err := fmt.Errorf("the webhook answered %s", resp.Status)
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &laterError{time.Duration(min(max(seconds, 0), 3600)) * time.Second, err}
	case code == http.StatusRequestTimeout || code >= 500:
		return err
	}
	return errors.Join(err, errNever)
}

// about makes the message of a delivery, unless its place was told already.
func (s *Service) about(ctx context.Context, d Delivery) (Message, error) {
	if told, err := s.told(ctx, d); err != nil || told {
		return Message{}, errors.Join(err, errNothing)
	}
	r, err := s.config.Access.Request(ctx, d.Request)
	if err != nil {
		return Message{}, err
	}
	events, err := s.config.Events.Events(ctx, d.Request)
	if err != nil {
		return Message{}, err
	}
	m := s.render(ctx, r)
	for _, e := range events {
		if e.Seq == d.Seq {
			return m.about(e, d.ID), nil
		}
	}
	return Message{}, errNothing
}

// body renders the message as the webhook wants it.
func (w *webhook) body(m Message) ([]byte, error) {
	switch w.config.Format {
	case FormatTeams:
		return json.Marshal(teamsCard(m))
	case FormatMattermost:
		return json.Marshal(mattermostPost(m))
	}
	return json.Marshal(m)
}

// fact is a line of a card.
type fact struct{ name, value string }

// facts are what a card says of a request.
func facts(m Message) []fact {
	all := []fact{
		{"Status", sentence(m.Outcome)}, {"Reason", m.Reason}, {"Access", strings.Join(m.Targets, "; ")},
		{"Nodes", strings.Join(m.Nodes, ", ")}, {"For", m.Duration}, {"As", m.As},
	}
	for _, v := range m.Values {
		all = append(all, fact{v.Name, v.Value})
	}
	if m.Stage != nil {
		all = append(all, fact{"May decide", strings.Join(m.Stage.People, ", ")})
	}
	for _, d := range m.Decided {
		all = append(all, fact{fmt.Sprintf("Stage %d", d.Stage), decisionWords(d)})
	}
	for _, warning := range m.Warnings {
		all = append(all, fact{"Warning", warning})
	}
	all = append(all, fact{"Review", m.Review}, fact{"Time left", m.Left}, fact{"Request", m.ID})
	kept := all[:0]
	for _, f := range all {
		if f.value != "" {
			kept = append(kept, f)
		}
	}
	return kept
}

// card is a JSON object of somebody else's format.
type card map[string]any

// teamsCard is an Adaptive Card in the envelope that Teams' workflows take.
func teamsCard(m Message) card {
	var list []card
	for _, f := range facts(m) {
		list = append(list, card{"title": markdown(f.name), "value": markdown(f.value)})
	}
	content := card{
		"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
		"body": []card{
			{"type": "TextBlock", "size": "Medium", "weight": "Bolder", "wrap": true, "text": markdown(m.Headline)},
			{"type": "FactSet", "facts": list},
		},
	}
	if m.URL != "" {
		content["actions"] = []card{{"type": "Action.OpenUrl", "title": "Open", "url": m.URL}}
	}
	return card{"type": "message", "attachments": []card{{"contentType": "application/vnd.microsoft.card.adaptive", "content": content}}}
}

// mattermostPost is a post with an attachment.
func mattermostPost(m Message) card {
	var list []card
	for _, f := range facts(m) {
		list = append(list, card{"title": markdown(f.name), "value": markdown(f.value), "short": len(f.value) < 40})
	}
	return card{
		"text": markdown(m.Headline),
		"attachments": []card{{
			"fallback": m.Headline + ": " + m.Outcome, "title": markdown(m.Label), "title_link": m.URL, "fields": list,
		}},
	}
}
