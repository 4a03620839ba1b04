package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

func (p *program) newAuditStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how checkpoints and forwarding of the audit log are doing",
		Long: `Show the last checkpoint of the audit log that the member asked has made, and how far the
log was sent to the places that it is forwarded to.`,
		Example: "  sallyport audit status",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.auditStatus(cmd.Context()) },
	}
}

func (p *program) auditStatus(ctx context.Context) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	s, err := api.AuditStatus(ctx)
	if err != nil {
		return err
	}
	if p.flags.json {
		return p.writeJSON(s)
	}
	made := ""
	if !s.Made.IsZero() {
		made = " of " + clock(s.Made.Time)
	}
	fmt.Fprintf(p.stdout, "checkpoint %d%s; %d not in the recording store yet; %s found wrong\n", s.Checkpoint, made, s.Waiting, count(s.Problems, "thing"))
	for _, d := range s.Destinations {
		line := d.Name + "  " + count(int(d.Behind), "record") + " behind"
		if !d.Oldest.IsZero() {
			line += ", the oldest of " + clock(d.Oldest.Time)
		}
		if d.Problem != "" {
			line += ": " + d.Problem
		}
		if _, err := fmt.Fprintln(p.stdout, client.CleanLine(line)); err != nil {
			return err
		}
	}
	return nil
}
