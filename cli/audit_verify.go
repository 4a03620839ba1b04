package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
	"sallyport.dev/audit/checkpoint"
	"sallyport.dev/client"
)

type verifyFlags struct {
	key, recordings                string
	file, checkpoints, noted, note string
	partial                        bool
}

func (p *program) newAuditVerifyCommand() *cobra.Command {
	var flags verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Check that the audit log is whole, or a file of sallyport audit export",
		Long: `Check the whole audit log: every record's hash and link to the one before, and every
checkpoint's signature, order and heads, in the database and in the recording store. What
was changed, removed, moved or cut off is named with its place. With --file a log that was
exported as JSON lines is checked, without the server if --key and --checkpoints are given.

With FILE, a request that was exported with --request, check that a trusted key signed it,
that the request is the one that was decided on, that the audit records are whole, and that
recordings have the digests noted.

Trusted are the keys in the file of --key, as "sallyport ssh-authority list --json" shows
those of kind audit (for the log) and evidence (for a request); without it, the server is
asked for them. Keep them, and what --note writes, where those who run the server cannot
change them.

Exit status 0 if all is right, 1 if not.`,
		Example: `  sallyport audit verify --key audit.pub --note today.json
  sallyport audit verify --key audit.pub --noted today.json
  sallyport audit verify --file audit.jsonl --checkpoints /backup/audit/checkpoints --key audit.pub
  sallyport audit verify evidence.json --key evidence.pub --recordings /backup/recordings`,
		Args: between(0, 1, "want one FILE, or none for the whole log"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if flags.file+flags.checkpoints+flags.noted+flags.note != "" || flags.partial {
					return usagef("FILE is a request that was exported; a log is given with --file")
				}
				return p.verifyEvidence(cmd.Context(), args[0], flags)
			}
			if flags.recordings != "" {
				return usagef("--recordings: goes with the FILE of a request")
			}
			return p.verifyLog(cmd.Context(), flags)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.key, "key", "", "`file` of trusted public keys, one a line, as in authorized_keys")
	f.StringVar(&flags.recordings, "recordings", "", "`folder` with a copy of the recording store to check, too, with FILE")
	f.StringVar(&flags.file, "file", "", "check the log in this `file` of JSON lines instead of the server's")
	f.StringVar(&flags.checkpoints, "checkpoints", "", "`folder` of the checkpoints in the recording store, or a copy of it")
	f.StringVar(&flags.noted, "noted", "", "what an earlier --note wrote to this `file` must be in the log")
	f.StringVar(&flags.note, "note", "", "write where the log stands to this `file`, for --noted")
	f.BoolVar(&flags.partial, "partial", false, "the file of --file is a part of the log")
	return cmd
}

func (p *program) verifyLog(ctx context.Context, flags verifyFlags) error {
	if flags.partial && flags.file == "" {
		return usagef("--partial: goes with --file")
	}
	keys, asked, err := p.trustedKeys(ctx, flags.key, "audit")
	if err != nil {
		return err
	}
	var noted []checkpoint.Noted
	if flags.noted != "" {
		n, err := readNote(flags.noted)
		if err != nil {
			return err
		}
		noted = append(noted, n)
	}
	v := checkpoint.NewVerifier(keys, noted...)
	v.Partial = flags.partial
	if err := p.feed(ctx, v, flags); err != nil {
		return err
	}
	return p.reportLog(v.Finish(), keys, asked, flags)
}

// readNote reads what --note wrote.
func readNote(file string) (n checkpoint.Noted, err error) {
	text, err := readSmall(file, maxSettings)
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(text, &n); err != nil || len(n.Heads) == 0 {
		return n, fmt.Errorf("%s: is not what --note writes", file)
	}
	return n, nil
}

// feed gives a verifier everything that is to be checked.
func (p *program) feed(ctx context.Context, v *checkpoint.Verifier, flags verifyFlags) error {
	if flags.file == "" {
		api, err := p.api(ctx)
		if err != nil {
			return err
		}
		return p.feedServer(ctx, v, api, flags)
	}
	if flags.checkpoints != "" {
		if err := feedFolder(ctx, v, flags.checkpoints, false); err != nil {
			return err
		}
	}
	return feedFile(v, flags.file)
}

// feedServer reads the checkpoints of the database and of the recording store, and then
// the log, which has what they saw.
func (p *program) feedServer(ctx context.Context, v *checkpoint.Verifier, api *client.API, flags verifyFlags) error {
	v.Source("the database")
	last, err := feedCheckpoints(ctx, v, api, 0, false)
	if err != nil {
		return err
	}
	if flags.checkpoints != "" {
		err = feedFolder(ctx, v, flags.checkpoints, true)
	} else {
		err = feedStore(ctx, v, api)
	}
	if err != nil {
		return err
	}
	// Those that were made meanwhile: the store need not have had them.
	v.Return()
	if _, err := feedCheckpoints(ctx, v, api, last, true); err != nil {
		return err
	}
	heads, err := api.AuditHeads(ctx)
	if err != nil {
		return err
	}
	for _, h := range heads {
		if err := feedChain(ctx, v, api, h.Member); err != nil {
			return err
		}
	}
	return nil
}

// feedCheckpoints reads the checkpoints of the database after a number.
func feedCheckpoints(ctx context.Context, v *checkpoint.Verifier, api *client.API, after int64, late bool) (int64, error) {
	for {
		page, err := api.Checkpoints(ctx, after)
		if err != nil || len(page) == 0 {
			return after, err
		}
		for _, c := range page {
			if c.Number <= after {
				return after, errors.New("the server answers checkpoints out of order")
			}
			c.Stored = c.Stored && !late
			v.Checkpoint(c)
			after = c.Number
		}
	}
}

// feedStore reads the checkpoints of the recording store through the server.
func feedStore(ctx context.Context, v *checkpoint.Verifier, api *client.API) error {
	v.Source("the recording store")
	for after := ""; ; {
		names, more, err := api.CheckpointNames(ctx, after)
		if err != nil {
			return err
		}
		texts, err := sortNames(v, names)
		if err != nil {
			return err
		}
		for len(texts) > 0 {
			page, err := api.CheckpointsNamed(ctx, texts[:min(len(texts), client.MaxCheckpointNames)])
			if err != nil {
				return err
			}
			if len(page) == 0 || len(page) > len(texts) {
				return errors.New("the server answers nothing of the recording store")
			}
			for i, c := range page {
				c.Number, c.Stored = checkpoint.NumberOf(texts[i]), true
				v.Checkpoint(c)
			}
			texts = texts[len(page):]
		}
		if !more {
			return nil
		}
		after = names[len(names)-1]
	}
}

// sortNames returns the names of texts, in order, and tells of what has no business there.
func sortNames(v *checkpoint.Verifier, names []string) (texts []string, err error) {
	for i, name := range names {
		if i > 0 && name <= names[i-1] {
			return nil, errors.New("the recording store lists names out of order")
		}
		switch text := strings.TrimSuffix(name, checkpoint.SignatureSuffix); {
		case checkpoint.NumberOf(name) > 0:
			texts = append(texts, name)
		case text == name || checkpoint.NumberOf(text) == 0:
			v.Stray(strings.TrimPrefix(name, checkpoint.Folder))
		}
	}
	return texts, nil
}

// feedFolder reads checkpoints from a folder: the recording store's, or what of it holds
// them.
func feedFolder(ctx context.Context, v *checkpoint.Verifier, folder string, second bool) error {
	name := folder
	if second {
		name = "the recording store"
	}
	v.Source(name)
	if err := checkFolder(folder); err != nil {
		return err
	}
	objects := checkpoint.Under(folder)
	var names []string
	for name, err := range objects.List(ctx, checkpoint.Folder) {
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	texts, err := sortNames(v, names)
	if err != nil {
		return err
	}
	for _, name := range texts {
		c, err := checkpoint.Read(ctx, objects, name)
		if err != nil {
			return err
		}
		v.Checkpoint(c)
	}
	return nil
}

func checkFolder(folder string) error {
	info, err := os.Stat(folder)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a folder", folder)
	}
	return err
}

func feedChain(ctx context.Context, v *checkpoint.Verifier, api *client.API, member string) error {
	for after := int64(0); ; {
		rows, err := api.AuditRows(ctx, member, after)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			if row.Member != member || row.Seq <= after {
				return fmt.Errorf("the server answers the chain of %q out of order", member)
			}
			v.Record(row)
			after = row.Seq
		}
	}
}

// maxRecordLine bounds one record in a file, in bytes.
const maxRecordLine = 32 << 20

func feedFile(v *checkpoint.Verifier, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxRecordLine)
	for n := 1; lines.Scan(); n++ {
		r, err := audit.ParseRecord(lines.Bytes())
		if err != nil && (r.Member == "" || r.Seq == 0) {
			v.Line(n, err)
			continue
		}
		v.Record(audit.RowOf(r, lines.Text()))
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// logReport is what --json prints.
type logReport struct {
	checkpoint.Report
	Keys   []string // that were trusted
	Pinned bool     // by --key
}

func (p *program) reportLog(r checkpoint.Report, keys []ssh.PublicKey, asked bool, flags verifyFlags) error {
	if p.flags.json {
		report := logReport{Report: r, Pinned: !asked}
		for _, key := range keys {
			report.Keys = append(report.Keys, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))))
		}
		if err := p.writeJSON(report); err != nil {
			return err
		}
	} else if err := p.printReport(r, keys, asked, flags); err != nil {
		return err
	}
	if len(r.Findings) > 0 {
		return &statusError{status: statusRefused, err: fmt.Errorf("%s wrong", count(len(r.Findings), "thing"))}
	}
	if flags.note != "" {
		return writeNote(flags.note, r.Note())
	}
	return nil
}

func (p *program) printReport(r checkpoint.Report, keys []ssh.PublicKey, asked bool, flags verifyFlags) error {
	if asked {
		fmt.Fprintln(p.stderr, "sallyport: the keys are those that the server names; pin them with --key:")
		for _, key := range keys {
			fmt.Fprintln(p.stderr, "  "+checkpoint.Fingerprint(key))
		}
	}
	for _, f := range r.Findings {
		fmt.Fprintln(p.stdout, client.CleanLine(f))
	}
	whole := ": whole"
	if len(r.Findings) > 0 {
		whole = " looked at"
	}
	fmt.Fprintf(p.stdout, "%s of %s and %s%s\n", count(int(r.Records), "record"), count(len(r.Heads), "chain"),
		count(int(r.Checkpoints), "checkpoint"), whole)
	if flags.file != "" && flags.checkpoints == "" {
		fmt.Fprintln(p.stdout, "without --checkpoints, an end that was cut off cannot be seen")
	}
	if r.Uncovered > 0 && r.Checkpoints > 0 {
		fmt.Fprintf(p.stdout, "%s newer than the last checkpoint\n", count(int(r.Uncovered), "record"))
	}
	if r.Checkpoints > 0 {
		fmt.Fprintf(p.stdout, "checkpoint %d  %s\n", r.Checkpoints, r.Sum)
	}
	for _, h := range r.Heads {
		if _, err := fmt.Fprintf(p.stdout, "head %s %d  %s\n", client.CleanLine(h.Member), h.Seq, h.Hash); err != nil {
			return err
		}
	}
	return nil
}

// writeNote writes a note; one that is there is replaced.
func writeNote(file string, n checkpoint.Noted) error {
	text, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	if dir := filepath.Dir(file); dir != "." {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("--note: there is no folder %s", dir)
		}
	}
	return os.WriteFile(file, append(text, '\n'), 0o600)
}
