package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
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
	var document string
	cmd := &cobra.Command{
		Use:   "why [PRINCIPAL] ACTION NODE",
		Short: "Explain why something is allowed or refused",
		Long: `Explain why PRINCIPAL (a user's name or an ARN; you, unless given) may or may not do
ACTION on NODE: every policy that applies, the statement that decided, the conditions
that failed with both values, and what would make it pass.

ACTION is connect, an operation of ssm such as StartSession, or service:Operation.
Exit status 0 if it is allowed, 1 if not.`,
		Example: `  sallyport why connect backend-1
  sallyport why alice connect backend-1 --document AWS-StartSSHSession
  sallyport why bob ssm:StartSession i-060ee0879f3ec4eb7`,
		Args:              cobra.RangeArgs(2, 3),
		ValidArgsFunction: p.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			principal := ""
			if len(args) == 3 {
				principal, args = args[0], args[1:]
			}
			return p.why(cmd.Context(), client.ExplainAccessInput{
				Principal: principal, Action: fullAction(args[0]), NodeID: args[1], Document: document,
			})
		},
	}
	cmd.Flags().StringVar(&document, "document", "", "session `document`, where the action takes one")
	return cmd
}

func fullAction(a string) string {
	if full, ok := shortActions[strings.ToLower(a)]; ok {
		return full
	}
	if strings.Contains(a, ":") {
		return a
	}
	return "ssm:" + a
}

func (p *program) why(ctx context.Context, in client.ExplainAccessInput) error {
	node, err := p.resolve(ctx, []string{in.NodeID})
	if err != nil {
		return err
	}
	in.NodeID = node.NodeID
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
		err = p.writeJSON(out)
	} else {
		_, err = fmt.Fprint(p.stdout, explanation(out))
	}
	if err == nil && out.Decision != "Allowed" {
		return &statusError{status: statusRefused}
	}
	return err
}

// explanation is the whole answer in words.
func explanation(out *client.ExplainAccessOutput) string {
	var b strings.Builder
	verb := map[bool]string{true: "may", false: "may not"}[out.Decision == "Allowed"]
	fmt.Fprintf(&b, "%s %s %s on %s (%s)\n", client.Clean(out.Principal), verb, client.Clean(out.Action), client.Clean(out.NodeID), client.Clean(out.Decision))
	if out.Message != "" {
		fmt.Fprintf(&b, "  %s\n", client.Clean(out.Message))
	}
	for _, r := range out.Resources {
		explainResource(&b, r)
	}
	return b.String()
}

func explainResource(b *strings.Builder, r client.ExplainedResource) {
	fmt.Fprintf(b, "\n%s: %s\n", client.Clean(r.Resource), client.Clean(r.Decision))
	if r.Message != "" {
		fmt.Fprintf(b, "  %s\n", client.Clean(r.Message))
	}
	if len(r.Sources) == 0 && len(r.Statements) == 0 {
		b.WriteString("  no policy applies to this principal\n")
	}
	spoke := map[string]bool{}
	for _, s := range r.Statements {
		if !spoke[s.Source] {
			fmt.Fprintf(b, "  %s (%s)\n", client.Clean(s.Source), client.Clean(s.Kind))
		}
		spoke[s.Source] = true
		explainStatement(b, s, r.Decision)
	}
	for _, s := range r.Sources {
		if !spoke[s] {
			fmt.Fprintf(b, "  %s\n    has no statement about it\n", client.Clean(s))
		}
	}
}

func explainStatement(b *strings.Builder, s client.ExplainedStatement, decision string) {
	name := fmt.Sprintf("statement %d", s.Statement)
	if s.Sid != "" {
		name += fmt.Sprintf(" %q", client.Clean(s.Sid))
	}
	if s.Matched {
		fmt.Fprintf(b, "    %s: %s\n", name, map[bool]string{true: "denies it", false: "allows it"}[s.Effect == "Deny"])
		return
	}
	if otherActions(s) {
		fmt.Fprintf(b, "    %s is about other actions\n", name)
		return
	}
	fmt.Fprintf(b, "    %s (%s) does not apply\n", name, client.Clean(s.Effect))
	for _, c := range s.Checks {
		if !c.Held {
			fmt.Fprintf(b, "      %s\n", checkText(c))
		}
	}
	if s.Hint != "" && s.Effect == "Allow" && decision != "Allowed" {
		fmt.Fprintf(b, "      to make it apply: %s\n", client.Clean(s.Hint))
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
	return client.Clean(fmt.Sprintf("%s: the policy says %s, %s", strings.Join(strings.Fields(what), " "), quoteAll(c.Policy), has))
}

func quoteAll(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	return strings.Join(quoted, ", ")
}
