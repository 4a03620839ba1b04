package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

func (p *program) newLogoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout [URL]",
		Short: "End the sign-in at a server",
		Long: `End the sign-in at a server: its credentials and SSH certificates stop working, sessions
that were opened with them end, and the file is gone. Profiles stay, for the next time.`,
		Example: "  sallyport logout",
		Args:    between(0, 1, "want at most the URL of a server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				p.flags.endpoint = args[0]
			}
			file, err := p.signInOf(cmd, "")
			if err != nil {
				return err
			}
			return p.logout(cmd.Context(), file)
		},
	}
}

func (p *program) logout(ctx context.Context, file string) error {
	unlock, err := lockSignIn(file)
	if err != nil {
		return err
	}
	defer unlock()
	in, err := readSignIn(file)
	if err != nil {
		return err
	}
	ended := p.revoke(ctx, in)
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the sign-in: %w", err)
	}
	if !ended {
		return &statusError{status: statusRefused}
	}
	fmt.Fprintf(p.stdout, "signed out at %s\n", client.CleanLine(in.Endpoint))
	return nil
}
