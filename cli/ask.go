package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport.dev/client"
)

// Connecting is asking: a command that is refused asks for the access that would help,
// where a person sits at a terminal, and goes on when it is given.

// wanted is what was refused.
type wanted struct {
	node     client.Node
	document string
	login    string
}

const (
	// takesHold bounds how long a grant that was given may take until every member
	// counts it, and takesHoldStep is how often that is tried.
	takesHold     = 5 * time.Second
	takesHoldStep = 250 * time.Millisecond
)

// withAccess runs start. Where that is refused and a flow would help, it asks for access
// on asking's terminal and runs start again. A nil asking asks nobody. A refusal comes
// back as a *refusedError if there are flows to ask by hand.
func (p *program) withAccess(ctx context.Context, api *client.API, asking *program, w wanted, start func() error) error {
	err := start()
	if !isDenied(err) {
		return err
	}
	flows := p.helpful(ctx, api, w)
	if len(flows) == 0 {
		return err
	}
	if asking == nil {
		return &refusedError{err, flows, w.node}
	}
	if err := asking.askAccess(ctx, api, w, flows, err); err != nil {
		return err
	}
	return untilItTakesHold(ctx, start)
}

// untilItTakesHold runs start until it is no longer refused, for a while.
func untilItTakesHold(ctx context.Context, start func() error) error {
	for deadline := time.Now().Add(takesHold); ; {
		err := start()
		if !isDenied(err) || time.Now().After(deadline) || sleep(ctx, takesHoldStep) != nil {
			return err
		}
	}
}

// refusedError is a refusal that flows would help against.
type refusedError struct {
	error
	flows []client.AccessFlow
	node  client.Node
}

// Unwrap returns the refusal.
func (e *refusedError) Unwrap() error { return e.error }

// helpful are the flows that would allow what was refused. That there are none, or that
// the server does not know of flows, adds nothing to the refusal.
func (p *program) helpful(ctx context.Context, api *client.API, w wanted) []client.AccessFlow {
	out, err := api.ListFlows(ctx, client.ListFlowsInput{NodeID: w.node.NodeID, Document: w.document, RunAs: w.login, Channel: "cli"})
	if err != nil {
		p.logger().Debug("asking for flows", "error", err)
		return nil
	}
	return slices.DeleteFunc(out.Flows, func(f client.AccessFlow) bool { return len(f.Targets) == 0 })
}

// askCommands are the command lines that ask for what was refused.
func (e *refusedError) askCommands() []string {
	var lines []string
	for _, f := range e.flows {
		lines = append(lines, askCommand(f, e.node)+"  # "+client.CleanLine(flowWords(f)))
	}
	return lines
}

// askCommand is the command line that asks a flow for access to a node.
func askCommand(f client.AccessFlow, n client.Node) string {
	line := "sallyport request " + shellQuote(client.CleanLine(f.Name))
	if len(f.Targets) == 1 && f.Targets[0].Kind == "nodes" {
		line += " --node " + shellQuote(n.NodeID)
	}
	if len(f.Targets) == 1 {
		line += " --target " + shellQuote(client.CleanLine(f.Targets[0].Name))
	}
	for _, field := range newForm(f).missing() {
		line += " " + asFlag(field)
	}
	return line + " --wait"
}

// askAccess asks a person for what a flow needs, makes the request, or takes up the one
// that there is, and waits until it is decided. The error says why it was not given.
func (p *program) askAccess(ctx context.Context, api *client.API, w wanted, flows []client.AccessFlow, refusal error) error {
	if text := errorText(refusal); text != "" {
		p.say("%s", text)
	}
	req, err := p.openRequest(ctx, api, w, flows)
	if err != nil {
		return err
	}
	if req == nil {
		if req, err = p.newRequest(ctx, api, w, flows); err != nil {
			return err
		}
	}
	return p.untilGranted(ctx, api, req)
}

// untilGranted waits for a decision, and begins what was approved.
func (p *program) untilGranted(ctx context.Context, api *client.API, req *client.AccessRequest) error {
	if req.State == statePending {
		p.say("%s", waitingWords(req))
		var err error
		if req, err = p.await(ctx, api, req); err != nil {
			return err
		}
	}
	p.say("%s", outcome(req))
	if req.Over() {
		return &statusError{status: statusRefused}
	}
	return nil
}

// openRequest finds a request of the person's that asks for the same already.
func (p *program) openRequest(ctx context.Context, api *client.API, w wanted, flows []client.AccessFlow) (*client.AccessRequest, error) {
	open, err := listRequests(ctx, api, client.ListAccessRequestsInput{Mine: true, States: []string{statePending, stateApproved}}, 100)
	if err != nil {
		return nil, err
	}
	for i := range open {
		if slices.ContainsFunc(flows, func(f client.AccessFlow) bool { return asksFor(&open[i], f, w.node.NodeID) }) {
			// With the people who decide, whom a list does not name.
			return api.GetAccessRequest(ctx, client.GetAccessRequestInput{RequestID: open[i].RequestID})
		}
	}
	return nil, nil
}

// asksFor reports whether a request is for one of a flow's targets, and for the node.
func asksFor(req *client.AccessRequest, f client.AccessFlow, node string) bool {
	if req.Flow != f.Name || req.Values[valueExtends] != nil {
		return false
	}
	if len(req.Nodes) > 0 && !slices.ContainsFunc(req.Nodes, func(n client.AccessNode) bool { return n.NodeID == node }) {
		return false
	}
	return slices.ContainsFunc(req.Targets, func(have client.AccessTarget) bool {
		return slices.ContainsFunc(f.Targets, func(t client.AccessTarget) bool { return t.Name == have.Name })
	})
}

// way is a flow and the one of its targets that helps.
type way struct {
	flow   client.AccessFlow
	target client.AccessTarget
}

func waysOf(flows []client.AccessFlow) []way {
	var ways []way
	for _, f := range flows {
		for _, t := range f.Targets {
			ways = append(ways, way{f, t})
		}
	}
	return ways
}

// newRequest asks the person which flow, and what its form needs, and makes the request.
func (p *program) newRequest(ctx context.Context, api *client.API, w wanted, flows []client.AccessFlow) (*client.AccessRequest, error) {
	chosen, err := p.chooseWay(ctx, waysOf(flows))
	if err != nil {
		return nil, nothingAsked(err)
	}
	f := newForm(chosen.flow)
	if err := f.ask(ctx, p, false); err != nil {
		return nil, nothingAsked(err)
	}
	in, err := f.input()
	if err != nil {
		return nil, err
	}
	in.Targets = []string{chosen.target.Name}
	if chosen.target.Kind == "nodes" {
		in.NodeIDs = []string{w.node.NodeID}
	}
	return api.RequestAccess(ctx, in)
}

// chooseWay lets a person pick a flow; of one alone they are asked whether they want it.
func (p *program) chooseWay(ctx context.Context, ways []way) (way, error) {
	if len(ways) == 1 {
		ok, err := p.yes(ctx, fmt.Sprintf("You may ask for it: %s (flow %s). Ask?", wayWords(ways[0]), ways[0].flow.Name))
		if err == nil && !ok {
			err = &statusError{status: statusRefused, err: errors.New("nothing was asked for")}
		}
		return ways[0], err
	}
	lines := make([]string, len(ways))
	for i, w := range ways {
		lines[i] = fmt.Sprintf("%-20s  %s", w.flow.Name, wayWords(w))
	}
	i, err := p.choice("You may ask for it. By which flow?", lines, 0)
	if err != nil {
		return way{}, err
	}
	return ways[i], nil
}

func wayWords(w way) string {
	words := w.target.Gives
	if w.flow.Label != "" {
		words = w.flow.Label + ", " + words
	}
	if w.flow.BreakGlass {
		words += ", break-glass: announced and reviewed"
	}
	return words
}

// asker is who asks for access on the standard streams; nil where nobody can be asked.
func (p *program) asker() *program {
	if p.mayAsk() {
		return p
	}
	return nil
}

// hintAsking names the commands that ask for what was refused.
func (p *program) hintAsking(err error) {
	var refused *refusedError
	if !errors.As(err, &refused) {
		return
	}
	for _, line := range refused.askCommands() {
		p.hint(line)
	}
}

// askFirst asks for access to a node that the person may only ask for, before something
// is started that cannot ask well.
func (p *program) askFirst(ctx context.Context, n client.Node, document, login string) error {
	if !onlyAsk(n) || !n.MayAsk || !p.mayAsk() {
		return nil
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	w := wanted{n, document, login}
	flows := p.helpful(ctx, api, w)
	if len(flows) == 0 {
		return nil
	}
	return p.askAccess(ctx, api, w, flows, errors.New(client.Clean(n.Reason)))
}
