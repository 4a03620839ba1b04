package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
	"sallyport.dev/policy"
)

// shortActions are words that people use for actions.
var shortActions = map[string]string{
	"connect":   "ssm:StartSession",
	"shell":     "ssm:StartSession",
	"start":     "ssm:StartSession",
	"resume":    "ssm:ResumeSession",
	"terminate": "ssm:TerminateSession",
}

func (p *program) newWhyCommand() *cobra.Command {
	var in client.ExplainAccessInput
	var parameters string
	cmd := &cobra.Command{
		Use:   "why [PRINCIPAL] ACTION [NODE]",
		Short: "Explain why something is allowed or refused",
		Long: `Explain why PRINCIPAL (you, unless given) may or may not do ACTION on NODE: every
policy that applies, the statement that decided, the conditions that failed with both
values, and what would make it pass. Grants count among the policies; what was asked for
lately, and the flows that would allow it, follow with the command that asks.

PRINCIPAL is a user's or a role's name, an ARN, or what sessions and audit show of one:
user/alice, role/Operators, assumed-role/Operators/alice.
ACTION is connect, an operation of ssm such as StartSession, or service:Operation.
Exit status 0 if it is allowed, 1 if not.`,
		Example: `  sallyport why connect backend-1
  sallyport why alice connect backend-1 --document AWS-StartSSHSession
  sallyport why connect frontend-1 --document AWS-StartPortForwardingSessionToRemoteHost --parameters host=db,portNumber=5432
  sallyport why connect frontend-1 --login root
  sallyport why assumed-role/Operators/bob ssm:StartSession i-060ee0879f3ec4eb7
  sallyport why sallyport:QueryAudit`,
		Args:              between(1, 3, "want [PRINCIPAL] ACTION [NODE]"),
		ValidArgsFunction: p.completeWhy,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if in.Parameters, err = documentParameters(parameters); err != nil {
				return err
			}
			return p.why(cmd.Context(), in, args)
		},
	}
	cmd.Flags().StringVar(&in.Document, "document", "", "session `document`, where the action takes one")
	cmd.Flags().StringVar(&parameters, "parameters", "", "parameters of the document: `JSON` such as {\"host\": [\"db\"]}, or host=db,portNumber=5432")
	cmd.Flags().StringVar(&in.RunAs, "login", "", "`login` on the node that is asked for")
	cmd.Flags().StringVar(&in.Resource, "resource", "", "`ARN` of what it would be done to, in place of a node")
	return cmd
}

// documentParameters reads JSON of lists, or the AWS CLI's shorthand of single values.
func documentParameters(text string) (map[string][]string, error) {
	var parameters map[string][]string
	if text == "" {
		return nil, nil
	}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		if err := json.Unmarshal([]byte(text), &parameters); err != nil {
			return nil, usagef(`--parameters: want JSON such as {"name": ["value"]}: %w`, err)
		}
		return parameters, nil
	}
	parameters = map[string][]string{}
	for _, pair := range strings.Split(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, usagef("--parameters: %q is not NAME=VALUE", pair)
		}
		parameters[name] = []string{value}
	}
	return parameters, nil
}

// whyArguments are [PRINCIPAL] ACTION [NODE]: of two, the first is the principal if it is
// no action and the second is one.
func whyArguments(args []string) (principal, action, node string, err error) {
	action, err = fullAction(args[0])
	if len(args) == 1 || len(args) == 2 && err == nil {
		return "", action, strings.Join(args[1:], ""), err
	}
	second, secondErr := fullAction(args[1])
	if len(args) == 3 || secondErr == nil {
		return args[0], second, strings.Join(args[2:], ""), secondErr
	}
	return "", "", "", err
}

// fullAction makes service:Operation of what people type, which must be an action that
// there is.
func fullAction(a string) (string, error) {
	if full, ok := shortActions[strings.ToLower(a)]; ok {
		return full, nil
	}
	if strings.Contains(a, ":") {
		if known, meant := policy.KnownAction(a); !known {
			return "", unknownAction(a, meant)
		}
		return a, nil
	}
	meant := ""
	for _, service := range []string{"ssm", "sallyport", "sts", "iam", "ec2"} {
		known, near := policy.KnownAction(service + ":" + a)
		if known {
			return service + ":" + a, nil
		}
		if meant == "" {
			meant = near
		}
	}
	return "", unknownAction(a, strings.TrimPrefix(meant, "ssm:"))
}

func unknownAction(a, meant string) error {
	if meant == "" {
		return usagef("%q is no action: want connect, an operation of ssm such as StartSession, or service:Operation", a)
	}
	return usagef("%q is no action; did you mean %s?", a, meant)
}

func (p *program) why(ctx context.Context, in client.ExplainAccessInput, args []string) error {
	principal, action, node, err := whyArguments(args)
	if err != nil {
		return err
	}
	if node != "" && in.Resource != "" {
		return usagef("%q: give a node or --resource", node)
	}
	in.Principal, in.Action = principal, action
	if in.NodeID, err = p.nodeFilter(ctx, node); err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	out, err := api.ExplainAccess(ctx, in)
	if err != nil {
		return err
	}
	out.NodeID = in.NodeID
	if p.flags.json {
		err = p.writeJSON(whyJSON(out))
	} else {
		_, err = fmt.Fprint(p.stdout, explanation(out))
	}
	if err == nil && out.Decision != allowed {
		return &statusError{status: statusRefused}
	}
	return err
}

// allowed is the decision that lets something pass.
const allowed = "Allowed"

// explanation is the whole answer in words: the refusal as it would be worded, then
// what each policy says about the resources that decided.
func explanation(out *client.ExplainAccessOutput) string {
	var b strings.Builder
	verb := map[bool]string{true: "may", false: "may not"}[out.Decision == allowed]
	fmt.Fprintf(&b, "%s %s %s%s (%s)\n", client.CleanLine(out.Principal), verb, client.CleanLine(out.Action), onNode(out), client.CleanLine(out.Decision))
	if out.Message != "" {
		fmt.Fprintf(&b, "  %s\n", client.CleanLine(out.Message))
	}
	said := map[string]bool{}
	for _, r := range out.Resources {
		fmt.Fprintf(&b, "\n%s: %s\n", client.CleanLine(r.Resource), client.CleanLine(r.Decision))
		if out.Decision != allowed && r.Decision == allowed {
			continue
		}
		text := resourceText(r)
		if said[text] {
			text = "  every policy says the same as above\n"
		}
		said[text] = true
		b.WriteString(text)
	}
	return b.String() + askingText(out)
}

// askingText is what requests and flows have to do with the answer.
func askingText(out *client.ExplainAccessOutput) string {
	var b strings.Builder
	if len(out.Requests) > 0 {
		b.WriteString("\nrequests:\n")
	}
	for i := range out.Requests {
		fmt.Fprintf(&b, "  %s\n", standing(&out.Requests[i]))
	}
	if len(out.Flows) > 0 {
		b.WriteString("\nflows that would help:\n")
	}
	for _, f := range out.Flows {
		fmt.Fprintf(&b, "  %s: %s\n    %s\n", client.CleanLine(f.Name), client.CleanLine(flowWords(f)),
			askCommand(f, client.Node{NodeID: client.CleanLine(out.NodeID)}))
	}
	return b.String()
}

// standing is what a request does at this moment, in a line.
func standing(r *client.AccessRequest) string {
	line := outcome(r) + "; " + askedFor(r)
	if r.State == statePending && !r.PendingUntil.IsZero() {
		line += ", until " + clock(r.PendingUntil.Time)
	}
	if r.Over() && !r.EndedAt.IsZero() {
		line += ", ended " + clock(r.EndedAt.Time)
	}
	return line
}

func onNode(out *client.ExplainAccessOutput) string {
	if out.NodeID == "" {
		return ""
	}
	return " on " + client.CleanLine(out.NodeID)
}

// resourceText shows each policy once, with all that it says.
func resourceText(r client.ExplainedResource) string {
	b := &strings.Builder{}
	if len(r.Sources) == 0 && len(r.Statements) == 0 {
		b.WriteString("  no policy applies to this principal\n")
	}
	var sources []string
	said := map[string][]client.ExplainedStatement{}
	for _, s := range r.Statements {
		if said[s.Source] == nil {
			sources = append(sources, s.Source)
		}
		said[s.Source] = append(said[s.Source], s)
	}
	for _, source := range sources {
		fmt.Fprintf(b, "  %s (%s)\n", client.CleanLine(source), client.CleanLine(said[source][0].Kind))
		for _, s := range said[source] {
			explainStatement(b, s, r.Decision)
		}
	}
	for _, s := range r.Sources {
		if said[s] == nil {
			fmt.Fprintf(b, "  %s\n    has no statement about it\n", client.CleanLine(s))
		}
	}
	return b.String()
}

func explainStatement(b *strings.Builder, s client.ExplainedStatement, decision string) {
	name := fmt.Sprintf("statement %d", s.Statement)
	if s.Sid != "" {
		name += fmt.Sprintf(" %q", client.CleanLine(s.Sid))
	}
	if s.Matched {
		fmt.Fprintf(b, "    %s: %s\n", name, map[bool]string{true: "denies it", false: "allows it"}[s.Effect == "Deny"])
		return
	}
	if otherActions(s) {
		fmt.Fprintf(b, "    %s is about other actions\n", name)
		return
	}
	fmt.Fprintf(b, "    %s (%s) does not apply\n", name, client.CleanLine(s.Effect))
	for _, c := range s.Checks {
		if !c.Held {
			fmt.Fprintf(b, "      %s\n", checkText(c))
		}
	}
	if s.Hint != "" && s.Effect == "Allow" && decision != allowed {
		fmt.Fprintf(b, "      to make it apply: %s\n", client.CleanLine(s.Hint))
	}
}

// otherActions reports whether a statement is not about the action at all; its other
// elements are of no interest then.
func otherActions(s client.ExplainedStatement) bool {
	for _, c := range s.Checks {
		if !c.Held && (c.Element == "Action" || c.Element == "NotAction") {
			return true
		}
	}
	return false
}

// checkText shows a failed element with both its values.
func checkText(c client.ExplainedCheck) string {
	what := strings.TrimSpace(strings.Join([]string{c.Element, c.Operator, c.Key}, " "))
	has := "the request has " + quoteAll(c.Request)
	if c.Absent || len(c.Request) == 0 {
		has = "the request has no value"
	}
	return client.CleanLine(fmt.Sprintf("%s: the policy says %s, %s", strings.Join(strings.Fields(what), " "), quoteAll(c.Policy), has))
}

func quoteAll(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	return strings.Join(quoted, ", ")
}

// jsonWhy is the contract of "why --json".
type jsonWhy struct {
	Principal string        `json:"principal"`
	Action    string        `json:"action"`
	Node      string        `json:"node,omitempty"`
	Document  string        `json:"document,omitempty"`
	Decision  string        `json:"decision"`
	Message   string        `json:"message,omitempty"`
	Resources []jsonWhyPart `json:"resources"`
	Requests  []jsonRequest `json:"requests,omitempty"` // what the principal holds, has asked for and held lately
	Flows     []jsonFlow    `json:"flows,omitempty"`    // that would allow it
}

type jsonFlow struct {
	Name    string       `json:"name"`
	Label   string       `json:"label,omitempty"`
	Targets []jsonTarget `json:"targets"`
	Command string       `json:"command"` // that asks
}

type jsonWhyPart struct {
	Resource   string             `json:"resource"`
	Decision   string             `json:"decision"`
	Message    string             `json:"message,omitempty"`
	Sources    []string           `json:"sources"`
	Statements []jsonWhyStatement `json:"statements"`
}

type jsonWhyStatement struct {
	Source    string         `json:"source"`
	Kind      string         `json:"kind"`
	Sid       string         `json:"sid,omitempty"`
	Statement int            `json:"statement"`
	Effect    string         `json:"effect"`
	Matched   bool           `json:"matched"`
	Hint      string         `json:"hint,omitempty"`
	Checks    []jsonWhyCheck `json:"checks"`
}

type jsonWhyCheck struct {
	Element  string   `json:"element"`
	Operator string   `json:"operator,omitempty"`
	Key      string   `json:"key,omitempty"`
	Policy   []string `json:"policy,omitempty"`
	Request  []string `json:"request,omitempty"`
	Absent   bool     `json:"absent,omitempty"`
	Held     bool     `json:"held"`
}

func whyJSON(out *client.ExplainAccessOutput) jsonWhy {
	j := jsonWhy{Principal: out.Principal, Action: out.Action, Node: out.NodeID, Document: out.Document,
		Decision: out.Decision, Message: out.Message, Resources: []jsonWhyPart{}}
	for _, r := range out.Resources {
		part := jsonWhyPart{Resource: r.Resource, Decision: r.Decision, Message: r.Message,
			Sources: append([]string{}, r.Sources...), Statements: []jsonWhyStatement{}}
		for _, s := range r.Statements {
			statement := jsonWhyStatement{Source: s.Source, Kind: s.Kind, Sid: s.Sid, Statement: s.Statement,
				Effect: s.Effect, Matched: s.Matched, Hint: s.Hint, Checks: []jsonWhyCheck{}}
			for _, c := range s.Checks {
				statement.Checks = append(statement.Checks, jsonWhyCheck(c))
			}
			part.Statements = append(part.Statements, statement)
		}
		j.Resources = append(j.Resources, part)
	}
	j.addAsking(out)
	return j
}

func (j *jsonWhy) addAsking(out *client.ExplainAccessOutput) {
	for i := range out.Requests {
		j.Requests = append(j.Requests, requestJSON(&out.Requests[i]))
	}
	for _, f := range out.Flows {
		flow := jsonFlow{Name: f.Name, Label: f.Label, Targets: []jsonTarget{}, Command: askCommand(f, client.Node{NodeID: out.NodeID})}
		for _, t := range f.Targets {
			flow.Targets = append(flow.Targets, jsonTarget{t.Name, t.Kind, t.Gives})
		}
		j.Flows = append(j.Flows, flow)
	}
}
