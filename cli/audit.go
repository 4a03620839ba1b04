package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/audit"
	"sallyport.dev/audit/format"
	"sallyport.dev/client"
)

// followEvery is how often "audit --follow" asks for more.
const followEvery = time.Second

// auditDecisions are what --decision selects by.
var auditDecisions = [...]string{allowed, "ExplicitlyDenied", "ImplicitlyDenied", "Refused"}

type auditFlags struct {
	since, until string
	query        client.QueryAuditInput
	limit        int
	follow       bool
	format       string
}

func (p *program) newAuditCommand() *cobra.Command {
	var flags auditFlags
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who did what, allowed or not",
		Long: `Show audit records, oldest first; without --since the newest ones.

A refusal's reason follows on a line of its own. With --json every record is one line, and
with --format ocsf or ecs one event of the Open Cybersecurity Schema Framework or by the
Elastic Common Schema.`,
		Example: `  sallyport audit --decision ImplicitlyDenied --since 1h
  sallyport audit --principal user/alice --action 'ssm:*Session' --json
  sallyport audit --follow`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.audit(cmd.Context(), flags)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.since, "since", "", "records since this `time`, or so long ago (2h, 3d)")
	f.StringVar(&flags.until, "until", "", "records before this `time`")
	f.StringVar(&flags.query.Principal, "principal", "", "records of principals whose ARN holds this `text`")
	f.StringVar(&flags.query.Action, "action", "", "records of this `action`; * and ? stand for anything")
	f.StringVar(&flags.query.NodeID, "node", "", "records about the node with this `id or name`")
	f.StringVar(&flags.query.SessionID, "session", "", "records about the session with this `id`")
	f.StringVar(&flags.query.Decision, "decision", "", strings.Join(auditDecisions[:], ", "))
	f.StringVar(&flags.query.Event, "event", "", strings.Join(audit.Events(), ", "))
	f.IntVar(&flags.limit, "limit", 100, "at most so many; with --follow so many from before")
	f.BoolVarP(&flags.follow, "follow", "f", false, "go on as records come in")
	f.StringVar(&flags.format, "format", "", "print JSON lines: json, ocsf or ecs")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(format.Names(), cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("decision", cobra.FixedCompletions(auditDecisions[:], cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("event", cobra.FixedCompletions(audit.Events(), cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("node", p.completeNodes)
	cmd.AddCommand(p.newAuditExportCommand(), p.newAuditVerifyCommand(), p.newAuditStatusCommand())
	return cmd
}

func (p *program) audit(ctx context.Context, flags auditFlags) error {
	in, err := flags.input()
	if err != nil {
		return err
	}
	show, err := p.recordPrinter(flags.format)
	if err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	if in.NodeID, err = p.nodeFilter(ctx, in.NodeID); err != nil {
		return err
	}
	shown := 0
	for {
		out, err := api.QueryAudit(ctx, in)
		if err != nil {
			return err
		}
		for _, r := range out.Records {
			if err := show(r); err != nil {
				return err
			}
			shown++
		}
		if out.NextToken != "" {
			in.NextToken, in.Newest = out.NextToken, false
		}
		switch {
		case out.More && (flags.follow || shown < flags.limit) && out.NextToken != "":
			in.MaxResults = flags.page(shown)
			continue
		case !flags.follow:
			return nil
		}
		in.MaxResults = maxAuditPage
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

// recordPrinter prints records in a format; "" is for people, or as --json says.
func (p *program) recordPrinter(name string) (func(audit.Record) error, error) {
	if name == "" {
		return p.printRecord, nil
	}
	encode, err := format.Of(name)
	if err != nil {
		return nil, usagef("--%v", err)
	}
	return func(r audit.Record) error {
		line, err := encode(r)
		if err == nil {
			_, err = p.stdout.Write(append(line, '\n'))
		}
		return err
	}, nil
}

const maxAuditPage = 1000

func (f auditFlags) page(shown int) int {
	if f.follow {
		return maxAuditPage
	}
	return min(maxAuditPage, f.limit-shown)
}

func (f auditFlags) input() (client.QueryAuditInput, error) {
	in := f.query
	var err error
	if in.Since, err = timeFlag(f.since); err != nil {
		return in, err
	}
	if in.Until, err = timeFlag(f.until); err != nil {
		return in, err
	}
	if f.limit < 1 {
		return in, usagef("--limit %d: want 1 or more", f.limit)
	}
	if in.Decision != "" && !slices.Contains(auditDecisions[:], in.Decision) {
		return in, usagef("--decision %q: want one of %s", in.Decision, strings.Join(auditDecisions[:], ", "))
	}
	if in.Event != "" && !slices.Contains(audit.Events(), in.Event) {
		return in, usagef("--event %q: want one of %s", in.Event, strings.Join(audit.Events(), ", "))
	}
	in.Newest = f.since == ""
	in.MaxResults = min(maxAuditPage, f.limit)
	return in, nil
}

// printRecord writes one record: as JSON, the server's own shape; or for a person.
func (p *program) printRecord(r audit.Record) error {
	if p.flags.json {
		return encodeJSON(p.stdout, r, "")
	}
	what := r.Event
	if r.Action != "" {
		what = r.Action
	}
	line := fmt.Sprintf("%s  %-16s  %-28s  %s", clock(r.Time), client.CleanLine(verdictText(r)), client.CleanLine(what),
		orDash(client.CleanLine(shortARN(r.Principal))))
	for _, s := range []string{r.Node, r.Document, r.Session, detailText(r)} {
		if s != "" {
			line += "  " + client.CleanLine(s)
		}
	}
	if _, err := fmt.Fprintln(p.stdout, line); err != nil {
		return err
	}
	if r.Reason != "" && r.Decision != "Allowed" {
		_, err := fmt.Fprintln(p.stdout, "    "+client.CleanLine(r.Reason))
		return err
	}
	return nil
}

// detailText is what a person wants to know besides: how a session ended, and where a
// refused login came from and with which key.
func detailText(r audit.Record) string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, strings.TrimSpace(name+" "+value))
		}
	}
	switch r.Event {
	case audit.EventSessionEnd:
		add("exit", r.Details["exit_status"])
	case audit.EventTransfer:
		add("", quoteName(r.Details["path"]))
		add(towards(r.Action), quoteName(r.Details["target"]))
		add("bytes", r.Details["bytes"])
		add("sha256", r.Details["sha256"])
		add("failed:", r.Details["error"])
		add("note:", r.Details["note"])
	case audit.EventLogin:
		add("from", r.SourceIP)
		add("key", r.Details["access_key_id"])
		add("repeated", r.Details["repeated"])
	}
	return strings.Join(parts, " ")
}

// towards is how the second name of a transfer's record stands to the first.
func towards(action string) string {
	if action == "download" {
		return "from"
	}
	return "to"
}

// quoteName keeps a file's name from passing for what follows it in the line.
func quoteName(name string) string {
	if strings.ContainsAny(name, " \"") {
		return strconv.Quote(name)
	}
	return name
}

func verdictText(r audit.Record) string {
	switch {
	case r.Decision != "":
		return r.Decision
	case r.Error != "":
		return r.Error
	}
	return "-"
}
