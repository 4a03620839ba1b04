package notify

import (
	"context"
	"fmt"
	"net/mail"
	"slices"
	"strings"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
)

// Lanes in which deliveries are made, one after the other in each. Webhooks have one
// each: a slow one holds nobody else up.
const (
	laneStep    = "step"
	laneSlack   = "slack"
	laneMail    = "mail"
	laneWebhook = "webhook:"
)

// What a delivery is for.
const (
	tellUpdate   = "update"   // brings a message that was sent up to date
	tellAnnounce = "announce" // as the flow says
	tellAsk      = "ask"      // those who decide
	tellRemind   = "remind"   // likewise, once more
	tellTrack    = "track"    // who asked, that it waits; kept up to date
	tellNews     = "news"     // who asked, what became of it
	tellReview   = "review"   // those who review break-glass
)

// personPrefix marks places that are persons, by their unique id.
const personPrefix = "@"

// maxTold bounds the people who are told of one event by themselves.
const maxTold = 50

// tagEmail is the tag of a user that holds their address.
const tagEmail = "Email"

// planner gathers the deliveries of an event.
type planner struct {
	s    *Service
	e    grant.Event
	r    grant.Request
	step int
	ds   []Delivery
	seen map[string]bool
}

// add adds a delivery, unless there is one to that place.
func (p *planner) add(lane, what, to string) {
	if _, known := p.s.lanes[lane]; !known {
		return
	}
	id := fmt.Sprintf("%d/%d/%s/%s", p.e.Seq, p.step, lane, to)
	if what == tellUpdate {
		id += "/update"
	}
	if p.seen[id] {
		return
	}
	p.seen[id] = true
	now := p.s.config.Now()
	p.ds = append(p.ds, Delivery{
		ID: id, Seq: p.e.Seq, Request: p.r.ID, Kind: p.e.Kind, Lane: lane, What: what, To: to,
		Step: p.step, Stage: p.r.Stage, Next: now, State: DeliveryWaiting, Made: now,
	})
}

// update brings what was sent up to date.
func (p *planner) update(ctx context.Context) error {
	refs, err := p.s.config.Store.References(ctx, p.r.ID)
	for _, ref := range refs {
		p.add(ref.Service, tellUpdate, ref.To)
	}
	return err
}

// announce tells where the flow and the configuration say.
func (p *planner) announce() {
	for _, a := range p.r.Frozen.Flow.Announce {
		if p.loud() || len(a.On) == 0 || slices.Contains(a.On, p.e.Kind) {
			p.places(tellAnnounce, a.Slack, a.Email, a.Webhook)
		}
	}
	if p.s.slack == nil || p.s.slack.channel == "" {
		return
	}
	switch p.e.Kind {
	case grant.KindRequested, grant.KindAlarm, grant.KindReviewDue:
		p.add(laneSlack, tellAnnounce, p.s.slack.channel)
	}
}

// loud reports whether all who are ever told must hear of it.
func (p *planner) loud() bool {
	switch p.e.Kind {
	case grant.KindAlarm, grant.KindReviewDue:
		return true
	case grant.KindRequested, grant.KindActivated:
		return p.r.Frozen.Flow.BreakGlass != nil
	}
	return false
}

func (p *planner) places(what string, slack, email, webhooks []string) {
	for _, c := range slack {
		p.add(laneSlack, what, c)
	}
	for _, a := range email {
		p.add(laneMail, what, a)
	}
	for _, w := range webhooks {
		p.add(laneWebhook+w, what, w)
	}
}

// ask begins telling those who are to decide: in steps, as flow code says.
func (p *planner) ask() {
	if p.r.State != grant.Pending {
		return
	}
	switch p.e.Kind {
	case grant.KindRequested, grant.KindStage, grant.KindFallback, grant.KindDelegated, grant.KindStruck, grant.KindReminder:
		p.nextStep(1)
	}
}

// nextStep plans to take a step of the flow code's notifications.
func (p *planner) nextStep(step int) {
	was := p.step
	p.step = step
	p.add(laneStep, tellAsk, "")
	p.step = was
}

// tell tells who asked, and who reviews.
func (p *planner) tell(ctx context.Context) error {
	f := p.r.Frozen
	if p.e.Kind == grant.KindRequested && p.r.State == grant.Pending {
		if err := p.person(ctx, tellTrack, f.Person); err != nil {
			return err
		}
	}
	if p.news() {
		if err := p.person(ctx, tellNews, f.Person); err != nil {
			return err
		}
	}
	if p.loud() && f.Flow.BreakGlass != nil {
		return p.people(ctx, tellReview, f.Flow.BreakGlass.Review)
	}
	return nil
}

// news reports whether the event changes something for who asked.
func (p *planner) news() bool {
	switch p.e.Kind {
	case grant.KindGranted:
		// One that begins at once is told of as such.
		f := p.r.Frozen.Flow
		return f.Clocks.ActivateBy > 0 && f.BreakGlass == nil
	case grant.KindActivated, grant.KindDenied, grant.KindExpired, grant.KindLapsed, grant.KindWarning,
		grant.KindExtended, grant.KindRevoked, grant.KindEnded, grant.KindStruck:
		return true
	}
	return false
}

func (p *planner) people(ctx context.Context, what string, of flow.People) error {
	persons, err := p.s.config.Access.Persons(ctx, of, maxTold)
	if err != nil {
		p.s.log.Warn("finding whom to tell", "request", p.r.ID, "error", err)
	}
	return p.persons(ctx, what, persons)
}

func (p *planner) persons(ctx context.Context, what string, persons []flow.Person) error {
	for i, person := range persons {
		if i == maxTold {
			return nil
		}
		if err := p.person(ctx, what, person); err != nil {
			return err
		}
	}
	return nil
}

// person tells somebody in Slack, or else by mail.
func (p *planner) person(ctx context.Context, what string, who flow.Person) error {
	if p.s.slack != nil {
		links, err := p.s.config.Store.LinksOf(ctx, who.ID)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(links, func(l Link) bool { return l.Service == serviceSlack }) {
			p.add(laneSlack, what, personPrefix+who.ID)
			return nil
		}
	}
	if to := address(who); to != "" && what != tellTrack {
		p.add(laneMail, what, to)
	}
	return nil
}

// address is the mail address of a person, empty for none.
func address(who flow.Person) string {
	for key, value := range who.Tags {
		if strings.EqualFold(key, tagEmail) && validAddress(value) {
			return value
		}
	}
	return ""
}

// validAddress reports whether text is one bare mail address.
func validAddress(text string) bool {
	a, err := mail.ParseAddress(text)
	return err == nil && a.Name == "" && a.Address == text && len(text) <= 254 && !strings.ContainsAny(text, "\r\n\t \"<>,;")
}
