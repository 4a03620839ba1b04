package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
	"sallyport.dev/flow"
)

func (p *program) newFlowShowCommand() *cobra.Command {
	var only string
	cmd := &cobra.Command{
		Use:   "show FILE_OR_FOLDER…",
		Short: "Say in words what flow files allow",
		Long: `Read flow files and say in words who may ask for what, what the form asks, who decides,
and for how long. With --json it is the flows as the server freezes them into requests.`,
		Example: `  sallyport flow show examples/flows
  sallyport flow show --flow two-stages examples/flows`,
		Args: atLeast(1, "want FILE_OR_FOLDER..."),
		RunE: func(_ *cobra.Command, args []string) error { return p.showFlows(args, only) },
	}
	cmd.Flags().StringVar(&only, "flow", "", "only the flow `NAME`")
	return cmd
}

func (p *program) showFlows(paths []string, only string) error {
	set, err := parseFlows(paths)
	if err != nil {
		p.reportLines(err)
		return &statusError{status: statusRefused}
	}
	if only != "" {
		f := set.Flows[only]
		if f == nil {
			return fmt.Errorf("there is no flow %q", only)
		}
		set.Flows = map[string]*flow.Flow{only: f}
	}
	if p.flags.json {
		return p.writeJSON(set)
	}
	for i, name := range slices.Sorted(maps.Keys(set.Flows)) {
		if i > 0 {
			fmt.Fprintln(p.stdout)
		}
		for _, line := range flowInWords(set.Flows[name]) {
			fmt.Fprintln(p.stdout, line)
		}
	}
	return nil
}

// flowInWords are the lines that say what a flow does.
func flowInWords(f *flow.Flow) []string {
	lines := []string{client.Clean(fmt.Sprintf("flow %s: %s", f.Name, f.Label))}
	add := func(what, format string, args ...any) {
		lines = append(lines, fmt.Sprintf("  %-9s %s", what, client.Clean(fmt.Sprintf(format, args...))))
	}
	if f.Description != "" {
		add("about", "%s", strings.Join(strings.Fields(f.Description), " "))
	}
	add("ask", "%s", f.Ask)
	if len(f.Channels) > 0 {
		add("by", "%s", strings.Join(f.Channels, ", "))
	}
	for _, t := range f.Targets {
		add("gives", "%s: %s", t.Name, t.Gives())
	}
	for _, field := range f.Fields {
		add("field", "%s", fieldInWords(field))
	}
	if strings.TrimSpace(f.Cedar) != "" {
		add("rules", "Cedar decides first")
	}
	if f.Code != nil {
		add("code", "%s: %s", f.Code.File, strings.Join(f.Code.Functions(), ", "))
	}
	for i, s := range f.Stages {
		add("stage", "%d %s: %s", i+1, s.Name, stageInWords(s))
	}
	if b := f.BreakGlass; b != nil {
		add("decides", "nobody: break-glass, reviewed by %s within %s", b.Review, flow.FormatDuration(b.ReviewWithin))
	}
	add("clocks", "%s", clocksInWords(f.Clocks))
	return lines
}

func fieldInWords(f flow.Field) string {
	text := f.Name + " (" + string(f.Type)
	if f.Required {
		text += ", required"
	}
	text += ")"
	switch {
	case len(f.Allowed) > 0:
		text += ": " + strings.Join(f.Allowed, ", ")
	case f.Options != "":
		text += ": what " + f.Options + " gives"
	case f.Pattern != "":
		text += ": matching " + f.Pattern
	}
	if len(f.Default) > 0 {
		text += "; otherwise " + strings.Join(f.Default, ", ")
	}
	return text
}

func stageInWords(s flow.Stage) string {
	text := fmt.Sprintf("%d of %s", s.Approvals, s.Of)
	if s.Within > 0 {
		text += ", within " + flow.FormatDuration(s.Within)
	}
	if s.Fallback != nil && s.Fallback.After > 0 {
		text += fmt.Sprintf(", after %s also %s", flow.FormatDuration(s.Fallback.After), s.Fallback.Of)
	} else if s.Fallback != nil {
		text += fmt.Sprintf(", then also %s", s.Fallback.Of)
	}
	for _, more := range []struct {
		on   bool
		text string
	}{
		{s.SecondFactor, "with a second factor"}, {s.AllowSelf, "even who asks"}, {s.Delegate, "or whom they name"},
		{s.Comment == flow.CommentAlways, "with a comment"}, {s.Comment == flow.CommentOnDeny, "with a comment to deny"},
	} {
		if more.on {
			text += ", " + more.text
		}
	}
	return text
}

func clocksInWords(c flow.Clocks) string {
	text := fmt.Sprintf("waits %s, grants %s", flow.FormatDuration(c.Pending), flow.FormatDuration(c.Default))
	if c.Longest > c.Default {
		text += ", up to " + flow.FormatDuration(c.Longest)
	}
	if c.ActivateBy > 0 {
		text += ", to be used within " + flow.FormatDuration(c.ActivateBy)
	}
	if c.Extensions > 0 {
		text += fmt.Sprintf(", %d extensions of %s", c.Extensions, flow.FormatDuration(c.Extension))
		if c.ExtendWithout {
			text += " without asking"
		}
	}
	return text
}
