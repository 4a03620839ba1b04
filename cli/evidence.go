package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/client"
	"sallyport.dev/evidence"
)

func (p *program) exportRequest(ctx context.Context, flags exportFlags) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	f, err := api.ExportRequest(ctx, flags.request)
	if err != nil {
		return err
	}
	if flags.file == "" {
		return p.writeJSON(f)
	}
	return p.writeFile(flags.file, flags.force, func(w io.Writer) error { return encodeJSON(w, f, "  ") })
}

func (p *program) verifyEvidence(ctx context.Context, path string, flags verifyFlags) error {
	if flags.recordings != "" {
		if err := checkFolder(flags.recordings); err != nil {
			return fmt.Errorf("--recordings: %w", err)
		}
	}
	trusted, _, err := p.trustedKeys(ctx, flags.key, "evidence")
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
	for _, s := range e.Session {
		if flags.recordings == "" || s.Recording == nil || s.Recording.Manifest == "" {
			continue
		}
		// One that is not in the folder is no lie.
		switch err := s.Recording.Check(os.DirFS(flags.recordings)); {
		case err == nil:
			checked++
		case !errors.Is(err, fs.ErrNotExist):
			wrong = append(wrong, err.Error())
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

// trustedKeys reads the trusted keys from a file, or asks the server for those of a kind;
// asked says which.
func (p *program) trustedKeys(ctx context.Context, file, kind string) (keys []ssh.PublicKey, asked bool, err error) {
	if file != "" {
		text, err := readSmall(file, maxSettings)
		if err != nil {
			return nil, false, err
		}
		keys, err = parseKeys(file, text)
		return keys, false, err
	}
	api, err := p.api(ctx)
	if err != nil {
		return nil, true, err
	}
	all, err := api.GetSSHAuthorities(ctx)
	if err != nil {
		return nil, true, err
	}
	var lines strings.Builder
	for _, a := range all.Authorities {
		if a.Kind == kind {
			lines.WriteString(a.PublicKey + "\n")
		}
	}
	keys, err = parseKeys("the server's answer", []byte(lines.String()))
	return keys, true, err
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
