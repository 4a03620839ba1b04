package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
	"sallyport.dev/flow"
)

func (p *program) newFlowLintCommand() *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "lint FILE_OR_FOLDER…",
		Short: "Check flow files for mistakes",
		Long: `Read flow files and all that are in folders together, as the server would, and print
mistakes as FILE:LINE: MESSAGE, and warnings about what is allowed and perhaps not meant
as warning: flow NAME: MESSAGE.

The exit status is 0 without mistakes (there may be warnings, unless --strict), 1 with
some, 2 for a wrong command line. With --json it is one object with problems (File, Line,
Text) and warnings (flow, text).`,
		Example: `  sallyport flow lint examples/flows`,
		Args:    atLeast(1, "want FILE_OR_FOLDER..."),
		RunE:    func(_ *cobra.Command, args []string) error { return p.lintFlows(args, strict) },
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "let warnings fail, too")
	return cmd
}

// flowLinted is the outcome of "sallyport flow lint", as --json writes it.
type flowLinted struct {
	Problems []flow.Problem `json:"problems"`
	Warnings []flow.Warning `json:"warnings"`
}

func (p *program) lintFlows(paths []string, strict bool) error {
	found := flowLinted{Problems: []flow.Problem{}, Warnings: []flow.Warning{}}
	set, err := parseFlows(paths)
	var parse *flow.ParseError
	switch {
	case errors.As(err, &parse):
		found.Problems = parse.Problems
	case err != nil:
		return err
	default:
		found.Warnings = append(found.Warnings, flow.Lint(set)...)
	}
	if err := p.writeFlowLinted(found); err != nil {
		return err
	}
	if len(found.Problems) > 0 || strict && len(found.Warnings) > 0 {
		return &statusError{status: statusRefused}
	}
	return nil
}

func (p *program) writeFlowLinted(found flowLinted) error {
	if p.flags.json {
		return p.writeJSON(found)
	}
	var b strings.Builder
	for _, problem := range found.Problems {
		fmt.Fprintln(&b, client.Clean(problem.String()))
	}
	for _, w := range found.Warnings {
		where := ""
		if w.Flow != "" {
			where = "flow " + w.Flow + ": "
		}
		fmt.Fprintln(&b, "warning: "+client.Clean(where+w.Text))
	}
	_, err := fmt.Fprint(p.stdout, b.String())
	return err
}
