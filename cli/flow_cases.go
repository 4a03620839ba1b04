package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
	"sallyport.dev/flow"
)

func (p *program) newFlowTestCommand() *cobra.Command {
	var run string
	cmd := &cobra.Command{
		Use:   "test FILE_OR_FOLDER…",
		Short: "Play the cases of flow test files",
		Long: `Play the cases of files named NAME.flowtest.hcl, and of all that are in a folder and
those within, against the flow files beside them, and say which came out as expected.

Cases name people, groups, nodes, who is on call, the time, and what HTTP requests are
answered; nothing is asked of a server. Cedar rules and Starlark code run as they would
there.

The exit status is 0 if every case passed, 1 if one failed or a file has mistakes, 2 for
a wrong command line. With --json the result is one object with passed, failed and cases;
a case has file, line, name, passed, failures (line, what, want, got) and printed.`,
		Example: `  sallyport flow test examples/flows
  sallyport flow test peer.flowtest.hcl --run colleague`,
		Args: atLeast(1, "want FILE_OR_FOLDER..."),
		RunE: func(cmd *cobra.Command, args []string) error { return p.testFlows(cmd.Context(), args, run) },
	}
	cmd.Flags().StringVar(&run, "run", "", "only cases whose names have `TEXT` in them")
	return cmd
}

// flowTested is the outcome of "sallyport flow test", as --json writes it.
type flowTested struct {
	Passed int               `json:"passed"`
	Failed int               `json:"failed"`
	Cases  []flow.CaseResult `json:"cases"`
}

func (p *program) testFlows(ctx context.Context, paths []string, run string) error {
	var files []string
	for _, name := range paths {
		found, err := below(name, flow.TestSuffix)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("%s: there are no cases; want files named NAME%s", name, flow.TestSuffix)
		}
		files = append(files, found...)
	}
	tested := flowTested{Cases: []flow.CaseResult{}}
	broken := false
	for _, name := range files {
		results, err := testFlowFile(ctx, name)
		if err != nil {
			p.reportLines(err)
			broken = true
			continue
		}
		tested.add(results, run)
	}
	if err := p.writeFlowTested(tested); err != nil {
		return err
	}
	if broken || tested.Failed > 0 {
		return &statusError{status: statusRefused}
	}
	if tested.Passed == 0 {
		return fmt.Errorf("no case has %q in its name", run)
	}
	return nil
}

func (t *flowTested) add(results []flow.CaseResult, run string) {
	for _, r := range results {
		if !strings.Contains(r.Name, run) {
			continue
		}
		if r.Passed {
			t.Passed++
		} else {
			t.Failed++
		}
		t.Cases = append(t.Cases, r)
	}
}

// testFlowFile plays the cases of one file against the flow files that it names, or those
// beside it.
func testFlowFile(ctx context.Context, name string) ([]flow.CaseResult, error) {
	source, err := readBounded(name, maxFlowFile)
	if err != nil {
		return nil, err
	}
	cases, err := flow.ParseCases(path.Clean(filepath.ToSlash(name)), source)
	if err != nil {
		return nil, err
	}
	about, err := casesAbout(name, cases)
	if err != nil {
		return nil, err
	}
	set, err := parseFlows(about)
	if err != nil {
		return nil, err
	}
	return cases.Run(ctx, set), nil
}

// casesAbout are the flow files of cases.
func casesAbout(name string, cases *flow.Cases) ([]string, error) {
	folder := filepath.Dir(name)
	if len(cases.Files) == 0 {
		return filepath.Glob(filepath.Join(quoteGlob(folder), "*"+flow.FileSuffix))
	}
	var about []string
	for _, f := range cases.Files {
		file := filepath.Join(folder, filepath.FromSlash(f))
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("%s: files: %w", name, err)
		}
		about = append(about, file)
	}
	return about, nil
}

// reportLines reports mistakes, one a line.
func (p *program) reportLines(err error) {
	var parse *flow.ParseError
	if !errors.As(err, &parse) {
		p.report(err)
		return
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		p.say("%s", client.Clean(line))
	}
}

func (p *program) writeFlowTested(t flowTested) error {
	if p.flags.json {
		return p.writeJSON(t)
	}
	var b strings.Builder
	for _, c := range t.Cases {
		writeCase(&b, c)
	}
	fmt.Fprintf(&b, "%d passed, %d failed\n", t.Passed, t.Failed)
	_, err := fmt.Fprint(p.stdout, b.String())
	return err
}

// writeCase writes what came of a case, and of what did not come true both sides.
func writeCase(b *strings.Builder, c flow.CaseResult) {
	verdict := "ok  "
	if !c.Passed {
		verdict = "FAIL"
	}
	fmt.Fprintf(b, "%s  %s:%d: %s\n", verdict, client.Clean(c.File), c.Line, client.Clean(c.Name))
	if c.Passed {
		return
	}
	for _, f := range c.Failures {
		fmt.Fprintf(b, "      line %d: %s\n        - want %s\n        + got  %s\n", f.Line, client.Clean(f.What), client.Clean(f.Want), client.Clean(f.Got))
	}
	for _, text := range c.Printed {
		fmt.Fprintf(b, "      printed: %s\n", client.Clean(text))
	}
}
