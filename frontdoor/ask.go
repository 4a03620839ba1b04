package frontdoor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"sallyport.dev/access"
	"sallyport.dev/client"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
)

// Connecting is asking: who is refused a session with a terminal is asked there, by the
// door, whether they want to ask for access, waits, and goes on into the session. The
// door does so as the person whose key or certificate was proven, by the channel ssh.

// Access is what a Door needs of the engine of requests: *grant.Engine.
type Access interface {
	Helps(ctx context.Context, p identity.Principal, n node.Node, document, login, channel string) ([]grant.Help, error)
	Asked(ctx context.Context, p identity.Principal) ([]grant.Request, error)
	Ask(ctx context.Context, a grant.Actor, in grant.Ask) (grant.Request, error)
	Wait(ctx context.Context, id string, after int64) (grant.Request, error)
	Cancel(ctx context.Context, a grant.Actor, id string) (grant.Request, error)
	Deciders(ctx context.Context, r grant.Request, limit int) ([]flow.Person, error)
}

const (
	channelSSH = "ssh"
	// maxAnswers bounds the answers to one form, right and wrong ones.
	maxAnswers = 40
	// showEvery is how often it is shown how a request stands; it is a sign of life, too.
	showEvery = 5 * time.Second
	// waitPiece bounds one wait for news of a request.
	waitPiece = time.Minute
	// takesHold bounds how long a grant that was given may take until it counts.
	takesHold     = 5 * time.Second
	takesHoldStep = 200 * time.Millisecond
	// maxNamed bounds the people who are named as deciders.
	maxNamed = 5
)

var (
	errNotAsked   = errors.New("nothing was asked for")
	errLeftAsking = errors.New("you stopped waiting")
	errSlowAnswer = errors.New("there was no answer for too long")
)

// helpedError is a refusal that flows would help against, in a session that has no
// terminal to ask on.
type helpedError struct {
	error
	helps []grant.Help
	node  string
}

// Unwrap returns the refusal.
func (e *helpedError) Unwrap() error { return e.error }

// hint is what a person can do about it, a command in a line.
func (e *helpedError) hint() string {
	h := e.helps[0]
	command := "sallyport request " + h.Offer.Flow.Name
	if len(h.Offer.Flow.Targets) > 1 {
		command += " --target " + h.Target.Name
	}
	if h.Target.Kind == flow.TargetNodes {
		command += " --node " + e.node
	}
	return "you may ask for it: " + command + " --wait, or open a shell there, which asks (ssh, without a command)"
}

// asking is one conversation about access.
type asking struct {
	s      *sessionChannel
	access Access
	out    io.Writer
	p      identity.Principal
	node   node.Node
	own    string // id of the request that was made here, while it is not decided
}

// helps are the flows that would help against a refusal; none for other errors.
func (s *sessionChannel) helps(ctx context.Context, err error) ([]grant.Help, identity.Principal, node.Node) {
	denied := (*access.DeniedError)(nil)
	if s.c.door.cfg.Access == nil || !errors.As(err, &denied) || denied.Action != actionStart {
		return nil, identity.Principal{}, node.Node{}
	}
	p, err := s.c.principal(ctx)
	if err != nil {
		return nil, p, node.Node{}
	}
	n, known, err := s.c.node(ctx, p)
	if err != nil || !known {
		return nil, p, n
	}
	document, _ := s.document()
	helps, err := s.c.door.cfg.Access.Helps(ctx, p, n, document, s.c.proven.target.login, channelSSH)
	if err != nil {
		s.c.log.Warn("looking for flows that help", "node", n.ID, "error", err)
	}
	return helps, p, n
}

// askAccess asks for access where starting a session was refused. It returns nil once
// there is, and otherwise why there is none.
func (s *sessionChannel) askAccess(refusal error) error {
	looking, cancel := context.WithTimeout(s.ctx, startPatience)
	helps, p, n := s.helps(looking, refusal)
	cancel()
	switch {
	case len(helps) == 0:
		return refusal
	case s.exec.Terminal == nil:
		return &helpedError{refusal, helps, n.ID}
	}
	leave, ok := s.c.door.asking.enter(p.RootID())
	if !ok {
		s.say("Too many of your sessions wait for access already.")
		return refusal
	}
	defer leave()
	s.input.ahead(s.ctx, s.c.wg.Go)
	a := &asking{s: s, access: s.c.door.cfg.Access, out: s.ch.Stderr(), p: p, node: n}
	a.say("%s", s.c.explain(refusal))
	return a.run(helps)
}

// say writes a line of the door's own, cleaned.
func (a *asking) say(format string, args ...any) {
	io.WriteString(a.out, "\r\x1b[K"+line(fmt.Sprintf(format, args...)))
}

// run takes up an open request, or makes one, and waits for it.
func (a *asking) run(helps []grant.Help) error {
	r, err := a.open(helps)
	if err != nil {
		return err
	}
	if r == nil {
		if r, err = a.request(helps); err != nil {
			return err
		}
	}
	return a.await(*r)
}

// open finds a request of the person's that asks for the same already.
func (a *asking) open(helps []grant.Help) (*grant.Request, error) {
	open, err := a.access.Asked(a.s.ctx, a.p)
	if err != nil {
		return nil, fmt.Errorf("looking for your requests: %w", err)
	}
	for _, r := range open {
		if slices.ContainsFunc(helps, func(h grant.Help) bool { return asksFor(r, h, a.node.ID) }) {
			return &r, nil
		}
	}
	return nil, nil
}

// asksFor reports whether a request is for what would help, and for the node.
func asksFor(r grant.Request, h grant.Help, id string) bool {
	f := r.Frozen
	if f.Flow.Name != h.Offer.Flow.Name || r.Extends() != "" {
		return false
	}
	if len(f.Nodes) > 0 && !slices.ContainsFunc(f.Nodes, func(n flow.Node) bool { return n.ID == id }) {
		return false
	}
	return slices.ContainsFunc(f.Targets, func(t flow.Target) bool { return t.Name == h.Target.Name })
}

// request asks for the flow and what its form needs, until what is asked for can be made.
func (a *asking) request(helps []grant.Help) (*grant.Request, error) {
	h, err := a.choose(helps)
	if err != nil {
		return nil, err
	}
	in := grant.Ask{Flow: h.Offer.Flow.Name, Targets: []string{h.Target.Name}, Values: flow.Values{}}
	if h.Target.Kind == flow.TargetNodes {
		in.Nodes = []string{a.node.ID}
	}
	fields := formOf(h)
	for _, f := range fields {
		if f.Required && len(f.Default) == 0 || f.Name == flow.FieldTime && len(f.Allowed) > 1 {
			if err := a.field(f, in.Values); err != nil {
				return nil, err
			}
		}
	}
	return a.make(in, fields)
}

// formOf are the fields of a flow's form, with those that every form has.
func formOf(h grant.Help) []flow.Field {
	fields := slices.Clone(h.Offer.Fields)
	for _, name := range []string{flow.FieldReason, flow.FieldTime} {
		if !slices.ContainsFunc(fields, func(f flow.Field) bool { return f.Name == name }) {
			fields = append(fields, flow.Field{Name: name})
		}
	}
	return fields
}

// make makes the request; a field that is not as it should be is asked for again.
func (a *asking) make(in grant.Ask, fields []flow.Field) (*grant.Request, error) {
	for range maxAnswers {
		r, err := a.access.Ask(a.s.ctx, a.actor(), in)
		wrong := (*flow.FieldError)(nil)
		if !errors.As(err, &wrong) {
			a.own = r.ID
			return &r, err
		}
		a.say("%s", wrong.Error())
		i := slices.IndexFunc(fields, func(f flow.Field) bool { return f.Name == wrong.Field })
		if i < 0 {
			return nil, err
		}
		if err := a.field(fields[i], in.Values); err != nil {
			return nil, err
		}
	}
	return nil, errNotAsked
}

// actor is the person as the engine knows them.
func (a *asking) actor() grant.Actor {
	o := a.s.c.newOrigin()
	return grant.Actor{Principal: a.p, Channel: channelSSH, SourceIP: o.SourceIP, UserAgent: o.UserAgent, RequestID: o.RequestID}
}

// choose asks which flow is to help; of one alone, whether it is.
func (a *asking) choose(helps []grant.Help) (grant.Help, error) {
	if len(helps) == 1 {
		answer, err := a.answer(fmt.Sprintf("You may ask for it: %s (flow %s). Ask? [y/N]", helpWords(helps[0]), helps[0].Offer.Flow.Name))
		if answer = strings.ToLower(answer); err == nil && answer != "y" && answer != "yes" {
			err = errNotAsked
		}
		return helps[0], err
	}
	lines := make([]string, len(helps))
	for i, h := range helps {
		lines[i] = h.Offer.Flow.Name + ": " + helpWords(h)
	}
	a.say("You may ask for it:")
	i, err := a.pick("By which flow", lines, -1)
	if err != nil {
		return grant.Help{}, err
	}
	return helps[i], nil
}

// helpWords say what a flow gives.
func helpWords(h grant.Help) string {
	words := "this node"
	if h.Target.Kind != flow.TargetNodes {
		words = h.Target.Gives()
	}
	if label := cmp.Or(h.Target.Label, h.Offer.Flow.Label); label != "" {
		words = label + ", " + words
	}
	if h.Offer.Flow.BreakGlass != nil {
		words += ", break-glass: announced, and reviewed afterwards"
	}
	return words
}

// field asks for a field's values.
func (a *asking) field(f flow.Field, values flow.Values) error {
	title := cmp.Or(f.Label, f.Name)
	if len(f.Allowed) > 0 {
		preset := -1
		if len(f.Default) > 0 {
			preset = slices.Index(f.Allowed, f.Default[0])
		}
		i, err := a.pick(title, f.Allowed, preset)
		if err == nil {
			values[f.Name] = f.Allowed[i : i+1]
		}
		return err
	}
	for range maxAnswers {
		answer, err := a.answer(title + ":")
		if err != nil {
			return err
		}
		if answer == "" && f.Required {
			continue
		}
		values[f.Name] = answers(f, answer)
		return nil
	}
	return errNotAsked
}

// answers are the values that one answer gives a field.
func answers(f flow.Field, answer string) []string {
	if answer == "" {
		return nil
	}
	if !strings.HasSuffix(string(f.Type), "_list") {
		return []string{answer}
	}
	var values []string
	for v := range strings.SplitSeq(answer, ",") {
		values = append(values, strings.TrimSpace(v))
	}
	return values
}

// pick asks for one of several lines, by its number or itself; preset, unless negative, is
// taken for no answer.
func (a *asking) pick(title string, lines []string, preset int) (int, error) {
	for i, l := range lines {
		fmt.Fprintf(a.out, "  %d) %s\r\n", i+1, client.CleanLine(l))
	}
	question := fmt.Sprintf("%s, 1 to %d:", title, len(lines))
	if preset >= 0 {
		question = fmt.Sprintf("%s, 1 to %d [%d]:", title, len(lines), preset+1)
	}
	for range maxAnswers {
		answer, err := a.answer(question)
		switch n, numErr := strconv.Atoi(answer); {
		case err != nil:
			return 0, err
		case answer == "" && preset >= 0:
			return preset, nil
		case slices.Contains(lines, answer):
			return slices.Index(lines, answer), nil
		case numErr == nil && n >= 1 && n <= len(lines):
			return n - 1, nil
		}
	}
	return 0, errNotAsked
}

// answer asks for a line. Ctrl-C, Ctrl-D and too long a time without an answer leave.
func (a *asking) answer(question string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(a.s.ctx, a.s.c.door.cfg.AnswerTimeout, errSlowAnswer)
	defer cancel()
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{keys{ctx, a.s.input}, a.out}, client.CleanLine(question)+" ")
	if size := a.s.exec.Terminal; size != nil && size.Cols > 10 && size.Rows > 0 {
		t.SetSize(int(size.Cols), int(size.Rows))
	}
	text, err := t.ReadLine()
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case errors.Is(err, io.EOF):
		io.WriteString(a.out, "\r\n")
		return "", errNotAsked
	case err != nil && !errors.Is(err, term.ErrPasteIndicator):
		return "", err
	}
	return strings.TrimSpace(text), nil
}

// await waits for a decision and shows how the request stands. Who stops waiting leaves
// the request as it is; who hangs up takes back what they have just asked for.
func (a *asking) await(r grant.Request) (err error) {
	patient, end := context.WithTimeoutCause(a.s.ctx, a.s.c.door.cfg.AskPatience, errLeftAsking)
	defer end()
	ctx, cancel := context.WithCancelCause(patient)
	defer cancel(nil)
	defer func() { a.settle(r, err) }()
	left := make(chan struct{})
	leaving, stop := context.WithCancel(ctx)
	defer func() { stop(); <-left }() // the next keys are the session's
	go func() {                       // waited for above
		defer close(left)
		if err := (keys{leaving, a.s.input}).leaves(); err != nil {
			cancel(err)
		}
	}()
	a.say("%s asks for it; %s may decide", r.ID, a.deciders(ctx, r))
	for r.State == grant.Pending && ctx.Err() == nil {
		if r, err = a.news(ctx, r); err != nil {
			return fmt.Errorf("waiting for %s: %w", r.ID, err)
		}
	}
	if r.State == grant.Pending {
		return context.Cause(ctx)
	}
	return a.decided(r)
}

// news waits until a request has changed, and shows the time going by meanwhile.
func (a *asking) news(ctx context.Context, r grant.Request) (grant.Request, error) {
	type result struct {
		r   grant.Request
		err error
	}
	waiting, cancel := context.WithTimeout(ctx, waitPiece)
	defer cancel()
	got := make(chan result, 1)
	go func() { // ends with its context
		next, err := a.access.Wait(waiting, r.ID, r.Revision)
		got <- result{next, err}
	}()
	names := a.deciders(ctx, r)
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	for {
		a.show(r, names)
		select {
		case next := <-got:
			if ctx.Err() != nil { // it is as it was
				return r, nil
			}
			return next.r, next.err
		case <-tick.C:
		}
	}
}

// show draws how a request stands in place of what was there.
func (a *asking) show(r grant.Request, names string) {
	text := "waiting for " + names
	if left := r.PendingUntil.Sub(a.s.c.door.cfg.Now()); left > 0 {
		text += "; " + left.Round(time.Second).String() + " left"
	}
	text = client.CleanLine(text + "; Ctrl-C stops waiting")
	if size := a.s.exec.Terminal; size != nil && size.Cols > 10 && len([]rune(text)) >= int(size.Cols) {
		text = string([]rune(text)[:size.Cols-1])
	}
	io.WriteString(a.out, "\r"+text+"\x1b[K")
}

// deciders names those who may decide on a request now.
func (a *asking) deciders(ctx context.Context, r grant.Request) string {
	people, err := a.access.Deciders(ctx, r, maxNamed+1)
	if err != nil || len(people) == 0 {
		return "those who may decide"
	}
	var names []string
	for _, p := range people[:min(maxNamed, len(people))] {
		names = append(names, p.Name)
	}
	if len(people) > maxNamed {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

// decided tells what became of a request; nil where there is access now.
func (a *asking) decided(r grant.Request) error {
	a.own = ""
	if !r.State.Over() {
		words := r.ID + " is approved"
		if !r.EndsAt.IsZero() && r.State == grant.Active {
			words += " and holds until " + r.EndsAt.Format("15:04:05 MST")
		}
		a.say("%s", words)
		return nil
	}
	words := r.ID + " was not approved: " + strings.ToLower(string(r.State))
	if r.Because != "" {
		words += ", " + r.Because
	}
	return &undecidedError{words}
}

// undecidedError says what became of a request that gave no access.
type undecidedError struct{ words string }

// Error implements error.
func (e *undecidedError) Error() string { return e.words }

// settle tells who stopped waiting what becomes of the request, and takes back what was
// asked for here by somebody who has hung up: nobody waits for it any more.
func (a *asking) settle(r grant.Request, err error) {
	if err == nil || r.State != grant.Pending {
		return
	}
	if errors.Is(err, errLeftAsking) {
		a.say("%s goes on waiting; ssh here again goes on with it, sallyport cancel %s takes it back", r.ID, r.ID)
		return
	}
	if a.own == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.s.ctx), startPatience)
	defer cancel()
	if _, err := a.access.Cancel(ctx, a.actor(), a.own); err != nil && !errors.Is(err, grant.ErrState) {
		a.s.c.log.Warn("taking back a request whose person has gone", "request", a.own, "error", err)
	}
}
