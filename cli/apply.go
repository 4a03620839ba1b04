package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/apply/files"
	"sallyport.dev/client"
)

// statusDiffers is what sallyport apply --plan exits with where there is something to do.
const statusDiffers = 3

type applyFlags struct{ plan, yes, delete bool }

func (p *program) newApplyCommand() *cobra.Command {
	var flags applyFlags
	cmd := &cobra.Command{
		Use:   "apply [PATH]...",
		Short: "Make users, groups, roles, policies, documents and flows what files say",
		Long: `Make users, groups, roles, policies, documents and flows what the files *.sallyport.hcl
in the folders (this one, unless given) say, with the *.star, *.json and *.yaml beside
them. What is to be done is shown first, and done when you agree.

The files of the last time are remembered: what they had and these have not is taken away
(users are disabled). What no file ever named is left alone.

Every change is an operation of the API, authorised for you and audited. Where one fails,
those before it are done; run it again once the cause is mended.

Exit status: 0 when all is as the files say; with --plan, 3 where there is something to
do; 1 if refused or failed, 2 for wrong usage.`,
		Example: `  sallyport apply --plan
  sallyport apply access/
  sallyport apply --yes --delete access/    # in CI`,
		RunE: func(cmd *cobra.Command, args []string) error { return p.apply(cmd.Context(), args, flags) },
	}
	f := cmd.Flags()
	f.BoolVar(&flags.plan, "plan", false, "only show what is to be done")
	f.BoolVarP(&flags.yes, "yes", "y", false, "do it without asking")
	f.BoolVar(&flags.delete, "delete", false, "with --yes, also take away what the files have no more")
	return cmd
}

func (p *program) apply(ctx context.Context, paths []string, flags applyFlags) error {
	files, err := readConfiguration(paths)
	if err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	plan, err := api.PlanConfiguration(ctx, files)
	if err != nil {
		return err
	}
	if flags.plan {
		return p.showPlan(plan)
	}
	if len(plan.Steps) > 0 {
		if !p.flags.json {
			p.writeSteps(plan.Steps)
		}
		if err := p.mayApply(plan, flags); err != nil {
			return err
		}
	}
	return p.applyPlan(ctx, api, files, plan)
}

// showPlan shows a plan and tells by the exit status whether there is anything to do.
func (p *program) showPlan(plan *client.ConfigurationPlan) error {
	if p.flags.json {
		if err := p.writeJSON(plan); err != nil {
			return err
		}
	} else {
		p.writeSteps(plan.Steps)
		fmt.Fprintln(p.stdout, planSummary(plan.Steps))
	}
	if len(plan.Steps) > 0 {
		return &statusError{status: statusDiffers}
	}
	return nil
}

// mayApply asks whether to go on. What takes something away is not done on --yes alone.
func (p *program) mayApply(plan *client.ConfigurationPlan, flags applyFlags) error {
	if flags.yes && !flags.delete && takesAway(plan.Steps) > 0 {
		return &statusError{status: statusRefused, err: fmt.Errorf("nothing was done: --yes alone takes nothing away, --yes --delete does (%s)", strings.TrimSuffix(planSummary(plan.Steps), "."))}
	}
	return p.confirm(flags.yes, planSummary(plan.Steps)+" Go on?", "nothing was done")
}

func (p *program) applyPlan(ctx context.Context, api *client.API, files map[string]string, plan *client.ConfigurationPlan) error {
	result, err := &client.ConfigurationResult{}, error(nil)
	if len(plan.Steps) > 0 {
		if result, err = api.ApplyConfiguration(ctx, files, plan.Hash); err != nil {
			return err
		}
	}
	if p.flags.json {
		if err := p.writeJSON(result); err != nil {
			return err
		}
	}
	switch {
	case result.Error != "":
		return fmt.Errorf("%s (%d of %d steps were done)", client.Clean(result.Error), result.Done, len(result.Steps))
	case p.flags.json:
	case result.Done == 0:
		fmt.Fprintln(p.stdout, "Nothing to do.")
	default:
		fmt.Fprintf(p.stdout, "Done: %s.\n", count(result.Done, "step"))
	}
	return nil
}

func (p *program) writeSteps(steps []client.ConfigurationStep) {
	marks := map[string]string{"create": "+", "change": "~", "delete": "-", "disable": "-"}
	for _, s := range steps {
		verb := ""
		if s.Verb == "disable" {
			verb = " (is disabled)"
		}
		fmt.Fprintf(p.stdout, "%s %s %s%s\n", marks[s.Verb], client.CleanLine(s.Kind), client.CleanLine(s.Name), verb)
		for _, line := range s.Lines {
			fmt.Fprintf(p.stdout, "    %s\n", client.CleanLine(line))
		}
	}
}

// takesAway counts what is there no more afterwards, with the flows and schedules that
// the files have no more.
func takesAway(steps []client.ConfigurationStep) int {
	n := 0
	for _, s := range steps {
		switch {
		case s.Verb == "delete" || s.Verb == "disable":
			n++
		case s.Kind == "files":
			for _, line := range s.Lines {
				if strings.HasPrefix(line, "- ") {
					n++
				}
			}
		}
	}
	return n
}

func planSummary(steps []client.ConfigurationStep) string {
	if len(steps) == 0 {
		return "Nothing to do."
	}
	verbs := map[string]int{}
	for _, s := range steps {
		verbs[s.Verb]++
	}
	return fmt.Sprintf("%d to make, %d to change, %d to take away.", verbs["create"], verbs["change"], takesAway(steps))
}

// readConfiguration reads the configuration files of folders, or files, by their paths
// inside of these.
func readConfiguration(paths []string) (map[string]string, error) {
	if len(paths) == 0 {
		paths = []string{"."}
	}
	found := map[string][]byte{}
	for _, path := range paths {
		if err := readConfigurationAt(path, found); err != nil {
			return nil, err
		}
	}
	named := slices.ContainsFunc(slices.Collect(maps.Keys(found)), func(name string) bool { return strings.HasSuffix(name, files.Suffix) })
	if !named {
		return nil, fmt.Errorf("%s: there is no file *%s", strings.Join(paths, ", "), files.Suffix)
	}
	texts := map[string]string{}
	for name, text := range found {
		texts[name] = string(text)
	}
	return texts, files.Check(found)
}

func readConfigurationAt(path string, into map[string][]byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return readInto(into, filepath.Base(path), path)
	}
	return filepath.WalkDir(path, func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(entry.Name(), ".") && at != path
		switch {
		case entry.IsDir() && hidden:
			return filepath.SkipDir
		case entry.IsDir() || hidden || !isConfiguration(entry.Name()):
			return nil
		}
		name, err := filepath.Rel(path, at)
		if err != nil {
			return err
		}
		return readInto(into, filepath.ToSlash(name), at)
	})
}

// isConfiguration reports whether a file belongs to the configuration: what tests flows
// does not.
func isConfiguration(name string) bool {
	for _, suffix := range []string{files.Suffix, ".star", ".json", ".yaml", ".yml"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

var errTwice = errors.New("another path has a file of that name")

func readInto(into map[string][]byte, name, path string) error {
	if _, ok := into[name]; ok {
		return fmt.Errorf("%s: %w", path, errTwice)
	}
	text, err := readSmall(path, files.MaxAll)
	if err != nil {
		return err
	}
	into[name] = text
	return nil
}
