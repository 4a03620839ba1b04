package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"sallyport.dev/client"
)

func (p *program) newFactorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "factor",
		Short: "Enrol, list and remove second factors",
		Long: `Second factors are one-time codes of an authenticator app (totp) and security keys. They
are shown at sign-in, with --code to "sallyport approve", and to AWS's own commands:
aws sts get-session-token --serial-number … --token-code …, or mfa_serial in a profile.

Where there is one already, changing them takes a code of it (--code), not older than a
quarter of an hour.`,
		Example: `  sallyport factor add totp
  sallyport factor list
  sallyport factor remove carol --code 123456`,
	}
	cmd.AddCommand(p.newFactorAddCommand(), p.newFactorEnableCommand(), p.newFactorListCommand(), p.newFactorRemoveCommand())
	return cmd
}

type factorFlags struct{ name, code, user string }

const codeUsage = "`code` of a second factor that there is already"

func (p *program) newFactorAddCommand() *cobra.Command {
	var flags factorFlags
	cmd := &cobra.Command{
		Use:   "add totp|key",
		Short: "Enrol an app for one-time codes, or a security key",
		Long: `Enrol a second factor for yourself. "totp" shows a QR code for an authenticator app and asks
for the first code that it makes; without a terminal, or with --json, it writes the seed and
"sallyport factor enable" finishes. "key" names the page where a browser enrols a security
key or passkey.`,
		Example: `  sallyport factor add totp
  sallyport factor add totp --name carol-phone --code 123456
  sallyport factor add key`,
		Args:      between(1, 1, "want totp or key"),
		ValidArgs: []string{"totp", "key"},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "totp":
				return p.addTOTP(cmd.Context(), flags)
			case "key":
				return p.addKey(cmd.Context())
			}
			return usagef("%q: want totp or key", args[0])
		},
	}
	cmd.Flags().StringVar(&flags.name, "name", "", "`name` of the device, the end of its serial number; your user name unless given")
	cmd.Flags().StringVar(&flags.code, "code", "", codeUsage)
	return cmd
}

// stronger is the API after a code was shown, if there is one.
func (p *program) stronger(ctx context.Context, code string) (*client.API, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	return withCode(ctx, api, code)
}

func (p *program) addTOTP(ctx context.Context, flags factorFlags) error {
	api, err := p.stronger(ctx, flags.code)
	if err != nil {
		return err
	}
	added, err := api.AddFactor(ctx, flags.name)
	if err != nil {
		return err
	}
	if p.flags.json || !p.interactive() {
		return p.toldSeed(added)
	}
	if err := p.showSeed(added); err != nil {
		return err
	}
	for range 3 {
		code, err := p.line(ctx, "Code that the app shows:")
		if err != nil {
			return interrupted(err)
		}
		err = api.EnableFactor(ctx, added.Factor.FactorID, strings.ReplaceAll(code, " ", ""))
		if err == nil {
			p.say("enrolled %s", added.Factor.SerialNumber)
			return nil
		}
		p.report(err)
	}
	return errors.New("not enrolled")
}

// toldSeed writes what a program needs to go on.
func (p *program) toldSeed(added *client.AddFactorOutput) error {
	out := struct {
		ID     string `json:"id"`
		Serial string `json:"serial"`
		Secret string `json:"secret"`
		URL    string `json:"url"`
	}{added.Factor.FactorID, added.Factor.SerialNumber, added.Secret, added.URL}
	p.say("it does not count yet: sallyport factor enable %s CODE", client.CleanLine(out.ID))
	if p.flags.json {
		return p.writeJSON(out)
	}
	_, err := fmt.Fprintf(p.stdout, "id      %s\nserial  %s\nsecret  %s\nurl     %s\n", client.CleanLine(out.ID),
		client.CleanLine(out.Serial), client.CleanLine(out.Secret), client.CleanLine(out.URL))
	return err
}

// showSeed shows the seed to the person at the terminal, this once.
func (p *program) showSeed(added *client.AddFactorOutput) error {
	picture, err := terminalQR(added.URL)
	if err != nil {
		return fmt.Errorf("drawing the QR code: %w", err)
	}
	fmt.Fprintf(p.stderr, "%s\nScan this with an authenticator app, or type the key into it: %s\n%s\n",
		picture, client.CleanLine(added.Secret), client.CleanLine(added.URL))
	return nil
}

// terminalQR draws a QR code, two rows of it to a line, dark on light whatever the
// terminal's colours are.
func terminalQR(text string) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", err
	}
	const margin = 2
	black := func(x, y int) bool { return code.Black(x, y) } // outside of it nothing is
	var b strings.Builder
	for y := -margin; y < code.Size+margin; y += 2 {
		b.WriteString("\x1b[30;107m")
		for x := -margin; x < code.Size+margin; x++ {
			switch top, bottom := black(x, y), black(x, y+1); {
			case top && bottom:
				b.WriteRune('█')
			case top:
				b.WriteRune('▀')
			case bottom:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String(), nil
}

// addKey names the page where a browser enrols a security key.
func (p *program) addKey(ctx context.Context) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	out, err := api.ListFactors(ctx, "")
	if err != nil {
		return err
	}
	if out.EnrolURL == "" {
		return errors.New("this server has no page for security keys: its sign_in.url must be https and have a host name")
	}
	p.say("open this page in a browser, and sign in there:")
	_, err = fmt.Fprintln(p.stdout, client.CleanLine(out.EnrolURL))
	return err
}

func (p *program) newFactorEnableCommand() *cobra.Command {
	var flags factorFlags
	cmd := &cobra.Command{
		Use:     "enable ID CODE",
		Short:   "Finish enrolling one-time codes",
		Example: "  sallyport factor enable fa-0a1b2c3d4e5f60718293 123456",
		Args:    between(2, 2, "want the ID that was shown, and the CODE that the app shows"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !authenticatorCode.MatchString(args[1]) {
				return usagef("want the 6 digits that your authenticator shows")
			}
			api, err := p.stronger(cmd.Context(), flags.code)
			if err != nil {
				return err
			}
			return api.EnableFactor(cmd.Context(), args[0], args[1])
		},
	}
	cmd.Flags().StringVar(&flags.code, "code", "", codeUsage)
	return cmd
}

func (p *program) newFactorListCommand() *cobra.Command {
	var flags factorFlags
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List second factors",
		Example: "  sallyport factor list --json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			out, err := api.ListFactors(cmd.Context(), flags.user)
			if err != nil {
				return err
			}
			return p.printFactors(out)
		},
	}
	cmd.Flags().StringVar(&flags.user, "user", "", "`name` of another user")
	return cmd
}

func (p *program) printFactors(out *client.ListFactorsOutput) error {
	if p.flags.json {
		return p.writeJSON(out)
	}
	table := [][]string{{"NAME", "KIND", "SERIAL NUMBER", "ENROLLED", "USED"}}
	for _, f := range out.Factors {
		used := "-"
		if !f.Used.IsZero() {
			used = clock(f.Used.Time)
		}
		table = append(table, []string{f.Name, f.Kind, f.SerialNumber, clock(f.Enabled.Time), used})
	}
	if err := p.writeTable(table); err != nil {
		return err
	}
	switch {
	case out.MustChange:
		p.say("there is an initial password, good for setting another one")
	case out.HasPassword:
		p.say("there is a password")
	}
	return nil
}

func (p *program) newFactorRemoveCommand() *cobra.Command {
	var flags factorFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a second factor",
		Long: `Remove a second factor of yours by its name or id, or with --user one of somebody who has
lost theirs.`,
		Example: `  sallyport factor remove carol --code 123456
  sallyport factor remove carol --user carol`,
		Args: between(1, 1, "want the NAME of a second factor"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.confirm(yes, "Remove second factor "+args[0]+"?", "nothing was removed"); err != nil {
				return err
			}
			api, err := p.stronger(cmd.Context(), flags.code)
			if err != nil {
				return err
			}
			return api.RemoveFactor(cmd.Context(), flags.user, args[0])
		},
	}
	cmd.Flags().StringVar(&flags.user, "user", "", "`name` of another user")
	cmd.Flags().StringVar(&flags.code, "code", "", codeUsage)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
