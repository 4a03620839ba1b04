package cli

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"sallyport.dev/audit/format"
	"sallyport.dev/client"
)

type exportFlags struct {
	request, file, since, until, format string
	force                               bool
}

func (p *program) newAuditExportCommand() *cobra.Command {
	var flags exportFlags
	cmd := &cobra.Command{
		Use:   "export [--request ID]",
		Short: "Write the audit log, or all that is known of a request, into a file",
		Long: `Write the audit log as JSON lines, oldest first: as it is, which "sallyport audit verify
--file" checks, or as events of OCSF or ECS.

With --request write the request as it was asked, every decision and step, the sessions
that it opened with the digests of their recordings, and the audit records of all that into
one file. The server signs it; "sallyport audit verify" checks it without the server.`,
		Example: `  sallyport audit export -o audit.jsonl
  sallyport audit export --since 24h --format ocsf
  sallyport audit export --request oi-0123456789ab -o evidence.json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.export(cmd.Context(), flags) },
	}
	f := cmd.Flags()
	f.StringVar(&flags.request, "request", "", "`ID` of the request")
	f.StringVarP(&flags.file, "output", "o", "", "`file` to write, readable by you alone; standard output unless given")
	f.BoolVar(&flags.force, "force", false, "replace the file of --output")
	f.StringVar(&flags.since, "since", "", "records since this `time`, or so long ago (2h, 3d); all unless given")
	f.StringVar(&flags.until, "until", "", "records before this `time`")
	f.StringVar(&flags.format, "format", format.JSON, "json, ocsf or ecs")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(format.Names(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (p *program) export(ctx context.Context, flags exportFlags) error {
	if flags.force && flags.file == "" {
		return usagef("--force wants --output FILE")
	}
	if flags.request != "" {
		if flags.since != "" || flags.until != "" || flags.format != format.JSON {
			return usagef("--request: a request is exported whole, without --since, --until and --format")
		}
		return p.exportRequest(ctx, flags)
	}
	encode, err := format.Of(flags.format)
	if err != nil {
		return usagef("--%v", err)
	}
	in := client.QueryAuditInput{MaxResults: maxAuditPage}
	if in.Since, err = timeFlag(flags.since); err != nil {
		return err
	}
	if in.Until, err = timeFlag(flags.until); err != nil {
		return err
	}
	return p.writeFile(flags.file, flags.force, func(w io.Writer) error { return p.exportLog(ctx, w, in, encode) })
}

// writeFile writes to a new file, or to standard output for "".
func (p *program) writeFile(file string, force bool, write func(io.Writer) error) error {
	if file == "" {
		return write(p.stdout)
	}
	return writeNewFile(file, force, func(w io.Writer) error {
		buffered := bufio.NewWriter(w)
		return errors.Join(write(buffered), buffered.Flush())
	})
}

// exportLog writes the records that there are now.
func (p *program) exportLog(ctx context.Context, w io.Writer, in client.QueryAuditInput, encode format.Encoder) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	for {
		out, err := api.QueryAudit(ctx, in)
		if err != nil {
			return err
		}
		for _, r := range out.Records {
			line, err := encode(r)
			if err != nil {
				return err
			}
			if _, err := w.Write(append(line, '\n')); err != nil {
				return err
			}
		}
		if !out.More || out.NextToken == "" {
			return nil
		}
		in.NextToken = out.NextToken
	}
}
