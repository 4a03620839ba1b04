package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

func (p *program) newAccessCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "access",
		Short: "Rehearse and review who gets access how",
		Example: `  sallyport access simulate --principal carol --node backend-1 access/
  sallyport access simulate --replay 200 access/
  sallyport access review`,
	}
	cmd.AddCommand(p.newSimulateCommand(), p.newReviewAccessCommand())
	return cmd
}

func (p *program) newSimulateCommand() *cobra.Command {
	var in client.SimulateAccessInput
	cmd := &cobra.Command{
		Use:   "simulate [PATH]...",
		Short: "Say what would become of access if files were applied",
		Long: `Say what would become of access if the files in the folders were applied, as "sallyport
apply" would; without any, of the files in force. Nothing is changed.

With --node, what a principal may do there now and under the draft, and which flows would
help. With --replay, the last N requests are asked and the last N sessions decided again;
those that would end differently are listed.

Exit status 0 if nothing would change, 3 if something would.`,
		Example: `  sallyport access simulate --principal carol --node backend-1 access/
  sallyport access simulate --replay 200 access/`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.NodeID == "" && in.Replay == 0 {
				return usagef("want --node, --replay, or both")
			}
			if in.Replay < 0 || in.Replay > 1000 {
				return usagef("--replay %d: want 1 to 1000", in.Replay)
			}
			return p.simulateAccess(cmd.Context(), in, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Principal, "principal", "", "`name` or ARN of a user or role; you, unless given")
	f.StringVar(&in.NodeID, "node", "", "`node` by id or name")
	f.StringVar(&in.Document, "document", "", "session `document`; a shell unless given")
	f.StringVar(&in.RunAs, "login", "", "`login` on the node")
	f.IntVar(&in.Replay, "replay", 0, "decide again about the last `N` requests and sessions")
	cmd.RegisterFlagCompletionFunc("node", p.completeNodes)
	return cmd
}

func (p *program) simulateAccess(ctx context.Context, in client.SimulateAccessInput, paths []string) (err error) {
	if len(paths) > 0 {
		if in.Files, err = readConfiguration(paths); err != nil {
			return err
		}
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	out, err := api.SimulateAccess(ctx, in)
	if err != nil {
		return err
	}
	if p.flags.json {
		err = p.writeJSON(out)
	} else {
		p.showSimulated(out, in.Replay > 0)
	}
	if err == nil && differs(out) {
		err = &statusError{status: statusDiffers}
	}
	return err
}

// differs reports whether a draft changes anything that was asked about.
func differs(out *client.SimulateAccessOutput) bool {
	if len(out.Changed) > 0 {
		return true
	}
	return out.Now != nil && (out.Now.Decision != out.Draft.Decision || fmt.Sprint(out.Now.Flows) != fmt.Sprint(out.Draft.Flows))
}

func (p *program) showSimulated(out *client.SimulateAccessOutput, replay bool) {
	if out.Now != nil {
		p.showSimulatedAccess("now", out.Now)
		p.showSimulatedAccess("draft", out.Draft)
	}
	if !replay {
		return
	}
	for _, r := range out.Changed {
		fmt.Fprintf(p.stdout, "%s %s of %s at %s (%s)\n    was:   %s\n    would: %s\n", r.Kind, client.CleanLine(r.ID),
			client.CleanLine(r.Person), clock(r.At.Time), client.CleanLine(r.What), client.CleanLine(r.Was), client.CleanLine(r.Would))
	}
	fmt.Fprintf(p.stdout, "%d of %d requests and sessions would end differently.\n", len(out.Changed), out.Replayed)
}

func (p *program) showSimulatedAccess(when string, s *client.SimulatedAccess) {
	fmt.Fprintf(p.stdout, "%-6s %s on %s: %s\n", when+":", client.CleanLine(s.Principal), client.CleanLine(s.NodeID), client.CleanLine(s.Decision))
	if s.Message != "" {
		fmt.Fprintf(p.stdout, "       %s\n", client.CleanLine(s.Message))
	}
	for _, f := range s.Flows {
		fmt.Fprintf(p.stdout, "       may ask flow %s for %s, decided by %s\n", client.CleanLine(f.Flow), client.CleanLine(f.Gives), client.CleanLine(f.Stages))
	}
}

func (p *program) newReviewAccessCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "review",
		Short: "List what goes around asking for access",
		Long: `List standing permissions that give what flows offer, so that nobody need ask; grants
under which nobody started a session; people who may approve themselves, or change who
decides; and keys in the nodes' authorized_keys files that are none of an active user's
here, as the agents report them.

Exit status 0, whatever is found.`,
		Example: "  sallyport access review\n  sallyport access review --json",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.reviewAccess(cmd.Context()) },
	}
}

func (p *program) reviewAccess(ctx context.Context) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	out, err := api.ReviewAccess(ctx)
	if err != nil {
		return err
	}
	if p.flags.json {
		return p.writeJSON(out)
	}
	p.heading("Standing permissions that make asking needless", len(out.Standing))
	for _, s := range out.Standing {
		p.finding("%s %s, as flow %s offers: %s", s.Person, s.What, s.Flow, orNone(s.Policy))
	}
	p.heading("Grants without a session", len(out.Unused))
	for _, u := range out.Unused {
		p.finding("%s of %s, flow %s, from %s to %s", u.RequestID, u.Person, u.Flow, clock(u.From.Time), clock(u.To.Time))
	}
	p.heading("People who may approve themselves", len(out.Self))
	for _, s := range out.Self {
		if s.Flow == "" {
			p.finding("%s %s", s.Person, s.Why)
			continue
		}
		p.finding("%s, flow %s: %s", s.Person, s.Flow, s.Why)
	}
	p.heading("Keys on nodes that nobody here manages", len(out.Keys))
	for _, k := range out.Keys {
		kind := k.Type
		if k.Authority {
			kind += " certificate authority"
		}
		p.finding("%s (%s), %s: %s %s %s", orNone(k.Name), k.NodeID, k.File, kind, k.Fingerprint, k.Comment)
	}
	fmt.Fprintf(p.stdout, "\n%s and %s were looked at", count(out.Users, "user"), count(out.Nodes, "node"))
	if len(out.Silent) > 0 {
		fmt.Fprintf(p.stdout, "; %s no keys", count(len(out.Silent), "node")+map[bool]string{true: " reports", false: " report"}[len(out.Silent) == 1])
	}
	fmt.Fprintln(p.stdout, ".")
	return nil
}

// orNone is a name, or that there is none.
func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (p *program) heading(title string, n int) {
	fmt.Fprintf(p.stdout, "%s: %d\n", title, n)
}

// finding writes one line of what a server found.
func (p *program) finding(format string, args ...any) {
	fmt.Fprintf(p.stdout, "  %s\n", client.CleanLine(fmt.Sprintf(format, args...)))
}
