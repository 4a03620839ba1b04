package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/smithy-go"
	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

// allTargets stands for every target of a flow.
const allTargets = "all"

type requestFlags struct {
	targets, nodes   []string
	reason, duration string
	set              []string
	wait, dryRun     bool
}

func (p *program) newRequestCommand() *cobra.Command {
	var flags requestFlags
	cmd := &cobra.Command{
		Use:   "request [FLOW]",
		Short: "Ask for access for a while",
		Long: `Ask for access that somebody decides on, and that ends by itself.

A flow says what may be asked for, what the form asks, and who decides; without FLOW the
flows that you may ask are listed to choose from. At a terminal you are asked for what is
missing; elsewhere each missing field is a line on standard error, and the status is 2.

The request's id goes to standard output. --wait waits until it is decided; Ctrl-C stops
the waiting and leaves the request as it is. sallyport connect, tunnel, ssh and run ask by
themselves where you are refused.

Exit status: 0 if it was asked for (with --wait: if it was approved), 1 if it was refused
(with --wait: denied, expired, cancelled), 2 for wrong usage, 130 if you left it.`,
		Example: `  sallyport request
  sallyport request frontend --duration 30m --reason 'fix the build' --wait
  sallyport request database --node db-1 --set ticket=OPS-12 --reason migration
  sallyport request frontend --reason look --dry-run`,
		Args:              between(0, 1, "want one FLOW"),
		ValidArgsFunction: p.completeFlows,
		RunE: func(cmd *cobra.Command, args []string) error {
			return interrupted(p.request(cmd.Context(), args, flags))
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&flags.targets, "target", nil, "`name` of a target of the flow; may be repeated, or all")
	f.StringArrayVar(&flags.nodes, "node", nil, "`id or name` of a node that the access is for; may be repeated")
	f.StringVar(&flags.reason, "reason", "", "why (256 characters)")
	f.StringVar(&flags.duration, "duration", "", "for how `long`: 30m, 1h")
	f.StringArrayVar(&flags.set, "set", nil, "`FIELD=VALUE` of the flow's form; repeated for a list")
	f.BoolVarP(&flags.wait, "wait", "w", false, "wait until it is decided")
	f.BoolVar(&flags.dryRun, "dry-run", false, "only check it, and tell who would decide")
	cmd.RegisterFlagCompletionFunc("node", p.completeNodes)
	return cmd
}

func (p *program) request(ctx context.Context, args []string, flags requestFlags) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	nodes, err := p.requestNodes(ctx, flags.nodes)
	if err != nil {
		return err
	}
	flow, err := p.chooseFlow(ctx, api, args, nodes)
	if err != nil {
		return err
	}
	f := newForm(flow)
	targets, err := p.fillForm(ctx, f, flags)
	if err != nil {
		return err
	}
	in, err := f.input()
	if err != nil {
		return err
	}
	in.Targets, in.NodeIDs, in.DryRun = targets, nodeIDs(nodes), flags.dryRun
	req, err := api.RequestAccess(ctx, in)
	if err != nil {
		return wrongForm(err)
	}
	return p.requested(ctx, api, req, flags)
}

// fillForm takes what flags say, and asks a person for the rest. Where nobody can be asked
// the error says, a line each, all that is missing or not allowed.
func (p *program) fillForm(ctx context.Context, f *form, flags requestFlags) (targets []string, err error) {
	wrong := f.setFlags(flags)
	asks := p.mayAsk() && !flags.dryRun
	if asks && len(wrong) > 0 {
		return nil, usageLines(wrong...)
	}
	targets, err = p.chooseTargets(f.flow, flags.targets)
	if err != nil && p.mayAsk() {
		return nil, err
	}
	if asks {
		if err := f.ask(ctx, p, true); err != nil {
			return nil, nothingAsked(err)
		}
	}
	wrong = append(wrong, err)
	return targets, usageLines(append(wrong, f.explainMissing()...)...)
}

// wrongForm is the server's word on what was asked for; that fields are not allowed is
// about the command line, a line each.
func wrongForm(err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != "ValidationException" {
		return err
	}
	var wrong []error
	for line := range strings.Lines(api.ErrorMessage()) {
		wrong = append(wrong, errors.New(client.CleanLine(line)))
	}
	if len(wrong) == 0 {
		return err
	}
	return usageLines(wrong...)
}

// nothingAsked tells a person who left the questions that nothing came of it.
func nothingAsked(err error) error {
	if errors.Is(err, errInterrupted) || errors.Is(err, errNothingChosen) {
		return &statusError{status: statusInterrupted, err: errors.New("nothing was asked for")}
	}
	return err
}

// requested tells what became of a new request.
func (p *program) requested(ctx context.Context, api *client.API, req *client.AccessRequest, flags requestFlags) error {
	if flags.dryRun {
		return p.printDryRun(req)
	}
	if flags.wait && req.State == statePending {
		if !p.flags.json {
			p.say("%s", waitingWords(req))
		}
		var err error
		if req, err = p.await(ctx, api, req); err != nil {
			return err
		}
	}
	if err := p.printRequested(req); err != nil {
		return err
	}
	if req.Over() {
		return &statusError{status: statusRefused}
	}
	return nil
}

func (p *program) printRequested(req *client.AccessRequest) error {
	if p.flags.json {
		return p.writeJSON(requestJSON(req))
	}
	fmt.Fprintln(p.stdout, client.CleanLine(req.RequestID))
	p.say("%s", outcome(req))
	if req.State == statePending {
		p.hint("sallyport show " + client.CleanLine(req.RequestID) + " tells how it stands")
	}
	return nil
}

func (p *program) printDryRun(req *client.AccessRequest) error {
	if p.flags.json {
		return p.writeJSON(requestJSON(req))
	}
	req.RequestID = "" // it is of nobody's use
	fmt.Fprint(p.stdout, requestText(req))
	p.say("nothing was asked for")
	return nil
}

// requestNodes are the nodes that a request is for.
func (p *program) requestNodes(ctx context.Context, names []string) ([]client.Node, error) {
	var nodes []client.Node
	for _, name := range names {
		n, err := p.resolve(ctx, []string{name})
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func nodeIDs(nodes []client.Node) []string {
	var ids []string
	for _, n := range nodes {
		ids = append(ids, n.NodeID)
	}
	return ids
}

// chooseFlow finds the flow that is named, or lets a person choose.
func (p *program) chooseFlow(ctx context.Context, api *client.API, args []string, nodes []client.Node) (client.AccessFlow, error) {
	in := client.ListFlowsInput{Channel: "cli"}
	if len(nodes) == 1 && len(args) == 0 {
		in.NodeID = nodes[0].NodeID
	}
	out, err := api.ListFlows(ctx, in)
	switch {
	case err != nil:
		return client.AccessFlow{}, err
	case len(args) > 0:
		return flowNamed(out.Flows, args[0])
	case len(out.Flows) == 0:
		return client.AccessFlow{}, &statusError{status: statusRefused, err: errors.New("there is no flow that you may ask")}
	case len(out.Flows) == 1:
		if only := out.Flows[0]; p.mayAsk() {
			p.say("%s (flow %s)", client.CleanLine(flowWords(only)), client.CleanLine(only.Name))
		}
		return out.Flows[0], nil
	case !p.mayAsk():
		return client.AccessFlow{}, usagef("name a flow: %s", flowNames(out.Flows))
	}
	i, err := p.choice("Which access?", flowLines(out.Flows), 0)
	if err != nil {
		return client.AccessFlow{}, nothingAsked(err)
	}
	return out.Flows[i], nil
}

func flowNamed(flows []client.AccessFlow, name string) (client.AccessFlow, error) {
	for _, f := range flows {
		if f.Name == name {
			return f, nil
		}
	}
	if len(flows) == 0 {
		return client.AccessFlow{}, &statusError{status: statusRefused, err: fmt.Errorf("there is no flow %q that you may ask, and no other", name)}
	}
	return client.AccessFlow{}, &statusError{status: statusRefused,
		err: fmt.Errorf("there is no flow %q that you may ask; there is %s", name, flowNames(flows))}
}

func flowNames(flows []client.AccessFlow) string {
	names := make([]string, len(flows))
	for i, f := range flows {
		names[i] = f.Name
	}
	return list(names)
}

func flowLines(flows []client.AccessFlow) []string {
	lines := make([]string, len(flows))
	for i, f := range flows {
		lines[i] = fmt.Sprintf("%-20s  %s", f.Name, flowWords(f))
	}
	return lines
}

// flowWords say what a flow is for.
func flowWords(f client.AccessFlow) string {
	words := f.Label
	if words == "" {
		words = givesText(f.Targets)
	}
	if f.BreakGlass {
		words += " (break-glass: announced, and reviewed afterwards)"
	}
	return words
}

// givesText is what targets give, in words.
func givesText(targets []client.AccessTarget) string {
	var gives []string
	for _, t := range targets {
		if t.Gives != "" && !slices.Contains(gives, t.Gives) {
			gives = append(gives, t.Gives)
		}
	}
	return strings.Join(gives, ", ")
}

// setFlags takes the values that flags give, and returns all that is wrong with them.
func (f *form) setFlags(flags requestFlags) (wrong []error) {
	take := func(name string, values ...string) {
		if err := f.set(name, values...); err != nil {
			wrong = append(wrong, err)
		}
	}
	if flags.reason != "" {
		take(fieldReason, flags.reason)
	}
	if flags.duration != "" {
		take(fieldDuration, flags.duration)
	}
	given := map[string][]string{}
	for _, pair := range flags.set {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			wrong = append(wrong, usagef("--set %q: want FIELD=VALUE", pair))
			continue
		}
		given[name] = append(given[name], value)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if f.values[name] != nil {
			wrong = append(wrong, usagef("--set %s: it is given by its own flag, too", client.CleanLine(name)))
			continue
		}
		take(name, given[name]...)
	}
	return wrong
}

// chooseTargets are the names of the targets that a request is for; nil for all.
func (p *program) chooseTargets(flow client.AccessFlow, names []string) ([]string, error) {
	have := make([]string, len(flow.Targets))
	for i, t := range flow.Targets {
		have[i] = t.Name
	}
	switch {
	case len(names) == 1 && names[0] == allTargets && !slices.Contains(have, allTargets):
		return nil, nil
	case len(names) > 0:
		for _, n := range names {
			if !slices.Contains(have, n) {
				return nil, usagef("--target %q: flow %s has %s", n, client.CleanLine(flow.Name), list(have))
			}
		}
		return names, nil
	case len(have) < 2:
		return nil, nil
	case !p.mayAsk():
		return nil, usagef("target is missing: give --target NAME, one of %s, or all", list(have))
	}
	lines := append(targetLines(flow.Targets), allTargets)
	i, err := p.choice("For what?", lines, 0)
	if err != nil {
		return nil, nothingAsked(err)
	}
	if i == len(have) {
		return nil, nil
	}
	return have[i : i+1], nil
}

func targetLines(targets []client.AccessTarget) []string {
	lines := make([]string, len(targets))
	for i, t := range targets {
		words := t.Gives
		if t.Label != "" {
			words = t.Label + ": " + words
		}
		lines[i] = fmt.Sprintf("%-20s  %s", t.Name, words)
	}
	return lines
}

// completeFlows offers the flows that may be asked.
func (p *program) completeFlows(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completePatience)
	defer cancel()
	api, err := p.api(ctx)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	out, err := api.ListFlows(ctx, client.ListFlowsInput{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, f := range out.Flows {
		names = append(names, cobra.CompletionWithDesc(client.CleanLine(f.Name), client.CleanLine(flowWords(f))))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
