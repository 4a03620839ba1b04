package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/client"
	"sallyport.dev/evidence"
)

func (p *program) newAuditExportCommand() *cobra.Command {
	var request, file string
	cmd := &cobra.Command{
		Use:   "export --request ID",
		Short: "Write all that is known of a request for access into one signed file",
		Long: `Write the request as it was asked, every decision and step, the sessions that it opened
with the digests of their recordings, and the audit records of all that into one file. The
server signs it; "sallyport audit verify" checks it without the server.`,
		Example: `  sallyport audit export --request oi-0123456789ab -o evidence.json
  sallyport audit verify evidence.json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if request == "" {
				return usagef("--request: want the id of a request, oi-…")
			}
			return p.exportRequest(cmd.Context(), request, file)
		},
	}
	cmd.Flags().StringVar(&request, "request", "", "`ID` of the request")
	cmd.Flags().StringVarP(&file, "output", "o", "", "`file` to write, readable by you alone; standard output unless given")
	return cmd
}

func (p *program) exportRequest(ctx context.Context, id, file string) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	f, err := api.ExportRequest(ctx, id)
	if err != nil {
		return err
	}
	if file == "" {
		return p.writeJSON(f)
	}
	var b bytes.Buffer
	if err := encodeJSON(&b, f, "  "); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o600)
}

type verifyFlags struct{ key, recordings string }

func (p *program) newAuditVerifyCommand() *cobra.Command {
	var flags verifyFlags
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a file of sallyport audit export",
		Long: `Check that a trusted key signed the file, that the request is the one that was decided
on, that the audit records are whole, and that recordings have the digests noted.

Trusted are the keys in the file of --key, as "sallyport ssh-authority list --json" shows
those of kind evidence; without it, the server is asked for them. Keep them where those
who run the server cannot change them.

Exit status 0 if all is right, 1 if not.`,
		Example: `  sallyport audit verify evidence.json
  sallyport audit verify evidence.json --key evidence.pub --recordings /var/lib/sallyport/recordings`,
		Args: between(1, 1, "want the FILE"),
		RunE: func(cmd *cobra.Command, args []string) error { return p.verifyEvidence(cmd.Context(), args[0], flags) },
	}
	cmd.Flags().StringVar(&flags.key, "key", "", "`file` of trusted public keys, one a line, as in authorized_keys")
	cmd.Flags().StringVar(&flags.recordings, "recordings", "", "`folder` of recordings to check, too")
	return cmd
}

func (p *program) verifyEvidence(ctx context.Context, path string, flags verifyFlags) error {
	trusted, err := p.evidenceKeys(ctx, flags.key)
	if err != nil {
		return err
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	file, err := evidence.Read(in)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	e, wrong, err := evidence.Verify(file, trusted)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	checked := 0
	if flags.recordings != "" {
		for _, s := range e.Session {
			problem, ok := checkRecording(flags.recordings, s.Recording)
			if problem != "" {
				wrong = append(wrong, problem)
			}
			if ok {
				checked++
			}
		}
	}
	return p.reportEvidence(e, wrong, checked)
}

func (p *program) reportEvidence(e evidence.Export, wrong []string, recordings int) error {
	for _, w := range wrong {
		fmt.Fprintln(p.stdout, client.CleanLine(w))
	}
	if len(wrong) > 0 {
		return &statusError{status: statusRefused, err: fmt.Errorf("%s wrong", count(len(wrong), "thing"))}
	}
	r, err := e.Asked()
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%s of %s, %s: signed, whole; %s, %s, %s, %s checked\n", client.CleanLine(r.ID),
		client.CleanLine(r.Person()), client.CleanLine(strings.ToLower(r.State)), count(len(r.Decisions), "decision"),
		count(len(e.Session), "session"), count(len(e.Audit), "audit record"), count(recordings, "recording"))
	return nil
}

// evidenceKeys reads the trusted keys from a file, or asks the server for them.
func (p *program) evidenceKeys(ctx context.Context, file string) ([]ssh.PublicKey, error) {
	if file != "" {
		text, err := readSmall(file, maxSettings)
		if err != nil {
			return nil, err
		}
		return parseKeys(file, text)
	}
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	all, err := api.GetSSHAuthorities(ctx)
	if err != nil {
		return nil, err
	}
	var lines strings.Builder
	for _, a := range all.Authorities {
		if a.Kind == "evidence" {
			lines.WriteString(a.PublicKey + "\n")
		}
	}
	return parseKeys("the server's answer", []byte(lines.String()))
}

func parseKeys(whence string, text []byte) (keys []ssh.PublicKey, err error) {
	for len(bytes.TrimSpace(text)) > 0 {
		key, _, _, rest, err := ssh.ParseAuthorizedKey(text)
		if err != nil {
			return nil, fmt.Errorf("%s: want public keys, one a line, as in authorized_keys", whence)
		}
		keys, text = append(keys, key), rest
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: there is no public key in it", whence)
	}
	return keys, nil
}

// checkRecording compares a recording in a folder with its digest; ok is whether it was
// there and right. One that is not there is no lie.
func checkRecording(dir string, r *evidence.Recording) (problem string, ok bool) {
	if r == nil || r.SHA256 == "" {
		return "", false
	}
	if !filepath.IsLocal(r.Name) {
		return "recording " + r.Name + ": not a name inside of a folder", false
	}
	f, err := os.Open(filepath.Join(dir, r.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", false
	}
	if err != nil {
		return "recording " + r.Name + ": " + err.Error(), false
	}
	defer f.Close()
	digest := sha256.New()
	size, err := io.Copy(digest, f)
	if err != nil || size != r.Size || hex.EncodeToString(digest.Sum(nil)) != r.SHA256 {
		return "recording " + r.Name + " does not have the digest noted", false
	}
	return "", true
}
