package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/client"
)

func (p *program) newSSHAuthorityCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ssh-authority",
		Short: "Show and replace the keys that sign SSH certificates",
		Long: `Show the server's SSH authorities: the key that certifies people (user), the one that
certifies hosts (host), the gateway's own host key (gateway), the key that signs what is exported of
requests (evidence), and the one that signs checkpoints of the audit log (audit). Of each
kind one signs; others are trusted until they are deleted.`,
		Example: `  sallyport ssh-authority list
  sallyport ssh-authority rotate user`,
	}
	var trusted, yes bool
	list := &cobra.Command{
		Use:   "list",
		Short: "Show the authorities that are trusted",
		Example: `  sallyport ssh-authority list
  sallyport ssh-authority list --trusted >/etc/ssh/sallyport-ca.pub`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listSSHAuthorities(cmd.Context(), trusted) },
	}
	list.Flags().BoolVar(&trusted, "trusted", false, "print the lines of sshd's TrustedUserCAKeys")
	rotate := &cobra.Command{
		Use:     "rotate {user|host|gateway|evidence|audit}",
		Short:   "Let a new key sign; the old one stays trusted",
		Example: "  sallyport ssh-authority rotate user",
		Args:    between(1, 1, "want user, host, gateway, evidence or audit"),
		RunE:    func(cmd *cobra.Command, args []string) error { return p.rotateSSHAuthority(cmd.Context(), args[0]) },
	}
	remove := &cobra.Command{
		Use:     "delete ID",
		Short:   "End the trust in a key that signs no more, and in all that it signed",
		Example: "  sallyport ssh-authority delete SSHAABCDEFGHIJKLMNOP",
		Args:    between(1, 1, "want the ID of an authority"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.deleteSSHAuthority(cmd.Context(), args[0], yes)
		},
	}
	remove.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.AddCommand(list, rotate, remove)
	return cmd
}

func (p *program) listSSHAuthorities(ctx context.Context, trusted bool) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	out, err := api.GetSSHAuthorities(ctx)
	if err != nil {
		return err
	}
	if trusted {
		return p.printTrusted(out.Authorities)
	}
	return p.showSSHAuthorities(out)
}

// printTrusted prints lines for sshd, made of the keys alone.
func (p *program) printTrusted(all []client.SSHAuthority) error {
	for _, a := range all {
		if a.Kind != "user" {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(a.PublicKey))
		if err != nil {
			return fmt.Errorf("reading the authority %.40q: it is not a public key", a.ID)
		}
		if _, err := fmt.Fprintf(p.stdout, "%s", ssh.MarshalAuthorizedKey(key)); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) showSSHAuthorities(out *client.GetSSHAuthoritiesOutput) error {
	if p.flags.json {
		return p.writeJSON(out)
	}
	rows := [][]string{{"ID", "KIND", "SIGNS", "CREATED", "FINGERPRINT"}}
	for _, a := range out.Authorities {
		print, signs := "", "no"
		if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(a.PublicKey)); err == nil {
			print = ssh.FingerprintSHA256(key)
		}
		if a.Signing {
			signs = "yes"
		}
		rows = append(rows, []string{a.ID, a.Kind, signs, clock(a.Created.Time), print})
	}
	return p.writeTable(rows)
}

func (p *program) rotateSSHAuthority(ctx context.Context, kind string) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	now, err := api.GetSSHAuthorities(ctx)
	if err != nil {
		return err
	}
	for _, a := range now.Authorities {
		if a.Kind != kind || !a.Signing {
			continue
		}
		out, err := api.RotateSSHAuthority(ctx, kind, a.ID)
		if err != nil {
			return err
		}
		return p.showSSHAuthorities(out)
	}
	return usagef("%q: want user, host or gateway", kind)
}

func (p *program) deleteSSHAuthority(ctx context.Context, id string, yes bool) error {
	if err := p.confirm(yes, "End the trust in authority "+id+" and in every certificate that it signed?", "nothing was changed"); err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	return api.DeleteSSHAuthority(ctx, id)
}
