package cli

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"sallyport.dev/policy"
)

func newPolicyLintCommand() *cobra.Command {
	var opts policy.LintOptions
	cmd := &cobra.Command{
		Use:   "lint FILE…",
		Short: "Check policies for mistakes",
		Long: `Check policies, one in each JSON file (- is standard input), and print what is found as
FILE:LINE:COLUMN: SEVERITY: MESSAGE [RULE].

Errors are policies that cannot be read and ARNs that match nothing. Warnings are what
may not mean what was meant: a forward-only policy that grants a shell, actions and
condition keys that do not exist, tags that no node bears (with --tags), everything
allowed, letters that look like others, and more.

The exit status is 0 without errors (there may be warnings), 1 with errors or if a file
cannot be read, 2 for a wrong command line. With --json the findings are one JSON array of
objects with file, line, column, severity, rule, message and hint.`,
		Example: `  sallyport policy lint access.json
  sallyport policy lint --tags Name,Team,Environment policies/*.json`,
		Args: atLeast(1, "want FILE..."),
		RunE: func(cmd *cobra.Command, args []string) error { return lintFiles(cmd, args, opts) },
	}
	cmd.Flags().StringSliceVar(&opts.NodeTagKeys, "tags", nil, "tag `KEY`s that nodes bear; others are reported")
	return cmd
}

func lintFiles(cmd *cobra.Command, files []string, opts policy.LintOptions) error {
	findings := []policy.Finding{}
	unread := false
	for _, name := range files {
		src, err := readPolicyFile(cmd.InOrStdin(), name)
		if err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "sallyport: %v\n", err)
			unread = true
			continue
		}
		findings = append(findings, policy.Lint(name, src, opts)...)
	}
	if err := writeFindings(cmd.OutOrStdout(), findings, jsonWanted(cmd)); err != nil {
		return fmt.Errorf("writing findings: %w", err)
	}
	if unread || slices.ContainsFunc(findings, func(f policy.Finding) bool { return f.Severity == policy.Error }) {
		return &statusError{status: statusRefused}
	}
	return nil
}

// readPolicyFile reads no more than it takes to see that a policy is too long.
func readPolicyFile(stdin io.Reader, name string) ([]byte, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading policy: %w", err)
		}
		defer f.Close()
		in = f
	}
	src, err := io.ReadAll(io.LimitReader(in, policy.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading policy: %w", err)
	}
	return src, nil
}

func writeFindings(w io.Writer, findings []policy.Finding, asJSON bool) error {
	if asJSON {
		return encodeJSON(w, findings, "  ")
	}
	for _, f := range findings {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	return nil
}
