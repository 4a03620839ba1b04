package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

type recordingsFlags struct {
	node, owner, state, key string
	since, until            string
	limit                   int
}

func (p *program) newRecordingsCommand() *cobra.Command {
	var f recordingsFlags
	list := &cobra.Command{
		Use:   "list",
		Short: "List recordings that you may see",
		Example: `  sallyport recordings list --node web-1 --user alice --since 30d
  sallyport recordings list --state deleted --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listRecordings(cmd.Context(), f) },
	}
	cmd := &cobra.Command{
		Use:   "recordings",
		Short: "Keep recordings: list, verify, hold, delete",
		Long: `Keep recordings as things of their own: what there is, whether it is still what was
recorded, how long it is kept, and what must not be deleted. To see what a recording
shows, use "sallyport play".`,
		Example: `  sallyport recordings --since 7d
  sallyport recordings verify alice-0a1b2c3d4e5f67890
  sallyport recordings hold --user alice --reason "case 7"
  sallyport recordings delete alice-0a1b2c3d4e5f67890 --reason "asked for by alice"`,
		Args: noArguments,
		RunE: list.RunE,
	}
	for _, c := range []*cobra.Command{cmd, list} {
		fs := c.Flags()
		p.addWhose(c, &f.node, &f.owner)
		fs.StringVar(&f.state, "state", "", "in this `state`: spooled, stored or deleted")
		fs.StringVar(&f.key, "key", "", "whose key is wrapped with this key `id`")
		fs.StringVar(&f.since, "since", "", "of sessions that began after this `time`, or so long ago")
		fs.StringVar(&f.until, "until", "", "of sessions that began before this `time`")
		fs.IntVar(&f.limit, "limit", 100, "so many at most; 0 for all")
	}
	cmd.AddCommand(list, p.newShowRecordingCommand(), p.newVerifyRecordingCommand(), p.newHoldRecordingCommand(),
		p.newHoldsCommand(), p.newReleaseHoldCommand(), p.newDeleteRecordingCommand(), p.newRewrapCommand())
	return cmd
}

func (p *program) listRecordings(ctx context.Context, f recordingsFlags) error {
	if f.limit < 0 {
		return usagef("--limit %d: want 0 or more", f.limit)
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	in := client.ListRecordingsInput{State: f.state, KeyID: f.key}
	if in.NodeID, in.Owner, err = p.whose(ctx, f.node, f.owner); err != nil {
		return err
	}
	if in.Since, err = timeFlag(f.since); err != nil {
		return err
	}
	if in.Until, err = timeFlag(f.until); err != nil {
		return err
	}
	all, err := recordings(ctx, api, in, f.limit)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		if err := p.noRecordings(ctx, api, in); err != nil {
			return err
		}
	}
	if p.flags.json {
		return p.writeJSON(all)
	}
	rows := [][]string{{"SESSION", "NODE", "OWNER", "STARTED", "SIZE", "STATE", "UNTIL"}}
	for _, r := range all {
		rows = append(rows, recordingRow(r))
	}
	return p.writeTable(rows)
}

// recordings lists so many recordings at most, or all for 0.
func recordings(ctx context.Context, api *client.API, in client.ListRecordingsInput, limit int) ([]client.Recording, error) {
	all := []client.Recording{}
	for more := true; more && (limit == 0 || len(all) < limit); more = in.NextToken != "" {
		page, err := api.ListRecordings(ctx, in)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Recordings...)
		in.NextToken = page.NextToken
	}
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all, nil
}

// noRecordings says that nothing matches. A person or node of whom there is nothing at all
// is an error: the name is mistyped rather than all their recordings too old.
func (p *program) noRecordings(ctx context.Context, api *client.API, in client.ListRecordingsInput) error {
	for _, one := range []struct {
		of string
		in client.ListRecordingsInput
	}{
		{in.NodeID, client.ListRecordingsInput{NodeID: in.NodeID}},
		{in.Owner, client.ListRecordingsInput{Owner: in.Owner}},
	} {
		if one.of == "" {
			continue
		}
		some, err := recordings(ctx, api, one.in, 1)
		if err != nil {
			return err
		}
		if len(some) == 0 {
			return &statusError{status: statusRefused, err: fmt.Errorf("there is no recording that you may see of %s", one.of)}
		}
	}
	if in != (client.ListRecordingsInput{}) {
		p.say("no recording that you may see matches")
	}
	return nil
}

func recordingRow(r client.Recording) []string {
	until := "forever"
	switch {
	case r.State == "deleted":
		until = "deleted " + clock(r.DeletedAt.Time)
	case r.Held:
		until = "held"
	case !r.DeleteAfter.IsZero():
		until = clock(r.DeleteAfter.Time)
	case r.State == "spooled":
		until = "-"
	}
	node := r.NodeName
	if node == "" {
		node = r.NodeID
	}
	owner := r.Owner[strings.LastIndexByte(r.Owner, ':')+1:]
	return []string{r.SessionID, node, owner, clock(r.Started.Time), byteText(r.Size), r.State, until}
}

// byteText is a size as tables show it.
func byteText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	size, suffix := float64(n)/unit, 0
	for size >= unit && suffix < 3 {
		size /= unit
		suffix++
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGT"[suffix])
}

func (p *program) newShowRecordingCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show SESSION",
		Short:             "Show what is known of a recording",
		Example:           "  sallyport recordings show alice-0a1b2c3d4e5f67890",
		Args:              between(1, 1, "want one SESSION"),
		ValidArgsFunction: p.completeRecordings,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			info, err := api.GetRecordingInfo(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if p.flags.json {
				return p.writeJSON(info)
			}
			return p.writeTable(recordingLines(info))
		},
	}
}

func recordingLines(info *client.RecordingInfo) [][]string {
	r := info.Recording
	until := recordingRow(r)[6]
	if info.RetentionRule != "" {
		until += " (rule " + info.RetentionRule + ")"
	}
	kept := []string{"Kept until", until}
	if r.State == "deleted" {
		kept = []string{"Deleted", clock(r.DeletedAt.Time)}
	}
	lines := [][]string{
		{"Recording", r.Recording}, {"Owner", r.Owner}, {"Node", strings.TrimSpace(r.NodeID + " " + r.NodeName)}, {"Document", r.Document},
		{"Started", clock(r.Started.Time)}, {"Ended", strings.TrimSpace(clock(r.Ended.Time) + " " + r.EndReason)},
		{"State", strings.TrimSpace(r.State + " " + r.Member)}, kept, {"Size", byteText(r.Size)},
		{"SHA-256", r.SHA256}, {"Manifest's", r.ManifestSHA256}, {"Wrapped by", r.KeyID},
		{"Node's tags", tagText(info.NodeTags)}, {"Owner's tags", tagText(info.OwnerTags)},
	}
	for _, h := range info.Holds {
		lines = append(lines, []string{"Held", h.HoldID + " of " + h.Of + " " + h.Value + " by " + h.HeldBy + ": " + h.Reason})
	}
	if r.State == "deleted" {
		lines = append(lines, []string{"Deleted by", r.DeletedBy}, []string{"Because", r.DeleteReason})
		if info.PurgeProblem != "" {
			lines = append(lines, []string{"Left over", info.PurgeProblem})
		}
	}
	for _, line := range lines {
		line[1] = orDash(line[1])
	}
	return lines
}

// errDamaged is the end of a verification that found something.
var errDamaged = errors.New("the recording is not what was recorded")

func (p *program) newVerifyRecordingCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify SESSION…",
		Short: "Read recordings and compare them with what the audit log says",
		Long: `Read recordings to their last byte and compare them with their manifests, and those with
the audit log. Where something differs, the place is named, and the exit status is 1.
"sallyport audit verify" tells whether the audit log itself is whole.`,
		Example:           "  sallyport recordings verify alice-0a1b2c3d4e5f67890",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: p.completeRecordings,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			return p.verifyRecordings(cmd.Context(), api, args)
		},
	}
}

func (p *program) verifyRecordings(ctx context.Context, api *client.API, sessions []string) error {
	all := []*client.VerifiedRecording{}
	damaged := false
	for _, id := range sessions {
		v, err := api.VerifyRecording(ctx, id)
		if err != nil {
			return err
		}
		all = append(all, v)
		damaged = damaged || !v.Verified
		if !p.flags.json {
			p.showVerified(v)
		}
	}
	if p.flags.json {
		if err := p.writeJSON(all); err != nil {
			return err
		}
	}
	if damaged {
		return errDamaged
	}
	return nil
}

func (p *program) showVerified(v *client.VerifiedRecording) {
	if v.Verified {
		fmt.Fprintf(p.stdout, "%s: good: %d bytes in %s, manifest %s by record %d of member %s\n",
			client.CleanLine(v.Recording), v.Size, count(v.Chunks, "chunk"), client.CleanLine(v.ManifestSHA256), v.AuditSeq, client.CleanLine(v.AuditMember))
		return
	}
	for _, d := range v.Damage {
		where := d.Object
		if d.Frame > 0 {
			where += fmt.Sprintf(", frame %d", d.Frame)
		}
		fmt.Fprintf(p.stdout, "%s: %s: %s\n", client.CleanLine(v.Recording), client.CleanLine(where), client.CleanLine(d.What))
	}
}

func (p *program) newHoldRecordingCommand() *cobra.Command {
	var in client.HoldRecordingInput
	cmd := &cobra.Command{
		Use:   "hold [SESSION]",
		Short: "Keep a recording, or all of somebody or something, from being deleted",
		Long: `Place a legal hold: what it is on is deleted by nobody until the hold is released,
retention included. A hold of a person, node or request is on recordings to come as well.`,
		Example: `  sallyport recordings hold alice-0a1b2c3d4e5f67890 --reason "case 7"
  sallyport recordings hold --user alice --reason "case 7"
  sallyport recordings hold --node web-1 --reason "incident of 20 November"`,
		Args:              between(0, 1, "want one SESSION, or --user, --node or --request"),
		ValidArgsFunction: p.completeRecordings,
		RunE: func(cmd *cobra.Command, args []string) error {
			in.SessionID = strings.Join(args, "")
			return p.hold(cmd.Context(), in)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&in.Owner, "user", "", "all sessions of this user, by `name`, ARN or as tables show it")
	fs.StringVar(&in.NodeID, "node", "", "all sessions on the node with this `id or name`")
	fs.StringVar(&in.RequestID, "request", "", "all sessions under the request with this `id`")
	fs.StringVar(&in.Reason, "reason", "", "why (required)")
	cmd.RegisterFlagCompletionFunc("node", p.completeNodes)
	return cmd
}

func (p *program) hold(ctx context.Context, in client.HoldRecordingInput) error {
	given := 0
	for _, v := range []string{in.SessionID, in.Owner, in.NodeID, in.RequestID} {
		if v != "" {
			given++
		}
	}
	if given != 1 {
		return usagef("want one SESSION, or one of --user, --node and --request")
	}
	if in.Reason == "" {
		return usagef("want --reason")
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	owner := in.Owner
	if in.NodeID, in.Owner, err = p.whose(ctx, in.NodeID, owner); err != nil {
		return err
	}
	if !strings.Contains(owner, "/") {
		in.Owner = owner // the server knows the ARN of a name, whatever its path
	}
	out, err := api.HoldRecording(ctx, in)
	if err != nil {
		return err
	}
	if p.flags.json {
		return p.writeJSON(out)
	}
	fmt.Fprintf(p.stdout, "%s is on %s\n", client.CleanLine(out.HoldID), count(int(out.Recordings), "recording"))
	return nil
}

func (p *program) newHoldsCommand() *cobra.Command {
	var released bool
	cmd := &cobra.Command{
		Use:     "holds",
		Short:   "List holds",
		Example: "  sallyport recordings holds --released",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			all := []client.RecordingHold{}
			for token, more := "", true; more; more = token != "" {
				page, err := api.ListRecordingHolds(cmd.Context(), released, token)
				if err != nil {
					return err
				}
				all, token = append(all, page.Holds...), page.NextToken
			}
			if p.flags.json {
				return p.writeJSON(all)
			}
			rows := [][]string{{"HOLD", "OF", "", "SINCE", "BY", "REASON", "RELEASED"}}
			for _, h := range all {
				gone := ""
				if !h.ReleasedAt.IsZero() {
					gone = clock(h.ReleasedAt.Time) + " by " + h.ReleasedBy + ": " + h.ReleaseReason
				}
				rows = append(rows, []string{h.HoldID, h.Of, h.Value, clock(h.HeldAt.Time), h.HeldBy, h.Reason, gone})
			}
			return p.writeTable(rows)
		},
	}
	cmd.Flags().BoolVar(&released, "released", false, "also those that were released")
	return cmd
}

func (p *program) newReleaseHoldCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     "release HOLD",
		Short:   "Release a hold",
		Example: `  sallyport recordings release hold-0a1b2c3d4e5f6789 --reason "case 7 is closed"`,
		Args:    between(1, 1, "want one HOLD"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usagef("want --reason")
			}
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			h, err := api.ReleaseRecordingHold(cmd.Context(), args[0], reason)
			if err == nil && p.flags.json {
				return p.writeJSON(h)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why (required)")
	return cmd
}

func (p *program) newDeleteRecordingCommand() *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete SESSION",
		Short: "Delete a recording for good",
		Long: `Delete a recording for good: its key first, so that what is left of it in a backup cannot
be read either. Who deleted it and why stays known. What is held is not deleted.`,
		Example:           `  sallyport recordings delete alice-0a1b2c3d4e5f67890 --reason "asked for by alice"`,
		Args:              between(1, 1, "want one SESSION"),
		ValidArgsFunction: p.completeRecordings,
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usagef("want --reason")
			}
			if err := p.confirm(yes, "Delete the recording of "+args[0]+" for good?", "nothing was deleted"); err != nil {
				return err
			}
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			out, err := api.DeleteRecording(cmd.Context(), args[0], reason)
			if err != nil {
				return err
			}
			if out.PurgeProblem != "" {
				fmt.Fprintf(p.stderr, "sallyport: the recording is deleted, but the store still has something of it, and is asked again later: %s\n",
					client.CleanLine(out.PurgeProblem))
			}
			if p.flags.json {
				return p.writeJSON(out)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why (required)")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (p *program) newRewrapCommand() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "rewrap",
		Short: "Wrap recordings' keys with the key that is configured now",
		Long: `Wrap recordings' keys with the key that is configured now, after another one was put in
its place ("old_keys" names the one before). Recordings themselves stay as they are. It can
be broken off and typed again; what failed stays as it was, and the exit status is 1.`,
		Example: `  sallyport recordings rewrap
  sallyport recordings rewrap --from file:0123456789abcdef`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.rewrap(cmd.Context(), from) },
	}
	cmd.Flags().StringVar(&from, "from", "", "only those that the key with this `id` wraps")
	return cmd
}

func (p *program) rewrap(ctx context.Context, from string) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	total := client.RewrapRecordingsOutput{}
	in := client.RewrapRecordingsInput{FromKeyID: from}
	for more := true; more; more = in.NextToken != "" {
		page, err := api.RewrapRecordings(ctx, in)
		if err != nil {
			return fmt.Errorf("after %d: %w", total.Rewrapped, err)
		}
		total.KeyID, total.Rewrapped = page.KeyID, total.Rewrapped+page.Rewrapped
		total.Failed = append(total.Failed, page.Failed...)
		in.NextToken = page.NextToken
	}
	if p.flags.json {
		if err := p.writeJSON(total); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(p.stdout, "%d are wrapped by %s now\n", total.Rewrapped, client.CleanLine(total.KeyID))
	}
	for _, f := range total.Failed {
		fmt.Fprintf(p.stderr, "sallyport: %s: %s\n", client.CleanLine(f.Recording), client.CleanLine(f.Error))
	}
	if n := len(total.Failed); n > 0 {
		return fmt.Errorf("%d keys stay as they were", n)
	}
	return nil
}
