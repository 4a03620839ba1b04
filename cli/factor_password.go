package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sallyport.dev/client"
)

func (p *program) newPasswordCommand() *cobra.Command {
	var remove, yes bool
	cmd := &cobra.Command{
		Use:   "password [NAME]",
		Short: "Give somebody an initial password, or set your own",
		Long: `With a NAME, give that user an initial password, which is shown this once: it is good for a
day, and only for setting another one, in the browser or with this command.

Without one, set your own password. The present one and the new one are read from the
terminal or, where standard input is none, one to a line from there; never from the command
line.`,
		Example: `  sallyport user password carol
  sallyport user password
  sallyport user password --remove carol`,
		Args: between(0, 1, "want the NAME of one user at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := strings.Join(args, "")
			switch {
			case remove:
				return p.removePassword(cmd.Context(), name, yes)
			case name != "":
				return p.resetPassword(cmd.Context(), name)
			}
			return p.changePassword(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&remove, "remove", false, "take the password away")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (p *program) removePassword(ctx context.Context, name string, yes bool) error {
	whose := "your password"
	if name != "" {
		whose = "the password of " + name
	}
	if err := p.confirm(yes, "Remove "+whose+"?", "nothing was removed"); err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	return api.RemovePassword(ctx, name)
}

func (p *program) resetPassword(ctx context.Context, name string) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	password, err := api.ResetPassword(ctx, name)
	if err != nil {
		return err
	}
	if p.flags.json {
		return p.writeJSON(map[string]string{"user": name, "initialPassword": password})
	}
	p.say("initial password of %s, good for a day and for setting another one:", client.CleanLine(name))
	_, err = fmt.Fprintln(p.stdout, client.CleanLine(password))
	return err
}

func (p *program) changePassword(ctx context.Context) error {
	old, password, err := p.passwords()
	if err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	return api.ChangePassword(ctx, old, password)
}

// maxPasswordLine bounds a password that is read, in bytes.
const maxPasswordLine = 1024

// passwords reads the present password and the new one.
func (p *program) passwords() (old, password string, err error) {
	if p.stdin == nil {
		return "", "", errors.New("there is no standard input to read passwords from")
	}
	if !term.IsTerminal(int(p.stdin.Fd())) {
		return passwordLines(p.stdin)
	}
	if old, err = p.secret("Present password: "); err != nil {
		return "", "", err
	}
	if password, err = p.secret("New password: "); err != nil {
		return "", "", err
	}
	again, err := p.secret("New password once more: ")
	if err == nil && again != password {
		err = errors.New("the two new passwords are not the same")
	}
	return old, password, err
}

// secret asks for something that the terminal does not show.
func (p *program) secret(question string) (string, error) {
	fmt.Fprint(p.stderr, question)
	b, err := term.ReadPassword(int(p.stdin.Fd()))
	fmt.Fprintln(p.stderr)
	if err != nil {
		return "", fmt.Errorf("reading a password: %w", err)
	}
	return string(b), nil
}

// passwordLines reads two lines.
func passwordLines(r io.Reader) (old, password string, err error) {
	lines := bufio.NewScanner(io.LimitReader(r, 2*maxPasswordLine+2))
	lines.Buffer(nil, maxPasswordLine+1)
	var read []string
	for len(read) < 2 && lines.Scan() {
		read = append(read, strings.TrimSuffix(lines.Text(), "\r"))
	}
	if err := lines.Err(); err != nil {
		return "", "", fmt.Errorf("reading passwords: %w", err)
	}
	if len(read) < 2 {
		return "", "", usagef("standard input has %d lines: want the present password and the new one, one to a line", len(read))
	}
	return read[0], read[1], nil
}
