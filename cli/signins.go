package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

type signInsFlags struct {
	user            string
	everyone, ended bool
}

func (p *program) newSignInsCommand() *cobra.Command {
	var f signInsFlags
	cmd := &cobra.Command{
		Use:   "sign-ins",
		Short: "List where you are signed in, or end that",
		Example: `  sallyport sign-ins
  sallyport sign-ins end si-0123456789abcdef
  sallyport sign-ins --user alice --ended`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listSignIns(cmd.Context(), f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.user, "user", "", "those of the user with this `name`")
	fs.BoolVar(&f.everyone, "everyone", false, "those of everybody")
	fs.BoolVar(&f.ended, "ended", false, "also those that are over")
	cmd.MarkFlagsMutuallyExclusive("user", "everyone")
	cmd.AddCommand(p.newEndSignInCommand(), p.newAccountsCommand())
	return cmd
}

func (p *program) listSignIns(ctx context.Context, f signInsFlags) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	in := client.ListSignInsInput{UserName: f.user, Everyone: f.everyone, Ended: f.ended}
	all := []client.SignIn{}
	for {
		page, err := api.ListSignIns(ctx, in)
		if err != nil {
			return err
		}
		all = append(all, page.SignIns...)
		if in.NextToken = page.NextToken; in.NextToken == "" {
			break
		}
	}
	if p.flags.json {
		return p.writeJSON(all)
	}
	rows := [][]string{{"SIGN-IN", "PERSON", "WHERE", "BY", "SINCE", "USED", "UNTIL", "FROM", ""}}
	for _, s := range all {
		rows = append(rows, signInRow(s))
	}
	return p.writeTable(rows)
}

func signInRow(s client.SignIn) []string {
	where, by, note := s.Kind, s.Method, ""
	if s.Computer != "" {
		where += " on " + s.Computer
	}
	if s.Factor != "" {
		by += " + " + s.Factor
	}
	switch {
	case !s.Ended.IsZero():
		note = "ended: " + s.Because
	case s.Expires.Before(time.Now()):
		note = "expired"
	case s.Current:
		note = "this one"
	}
	at := func(t client.Time) string { return t.Local().Format(time.DateTime) }
	return []string{s.SignInID, s.UserName, where, by, at(s.Created), at(s.LastUsed), at(s.Expires), s.SourceIP, note}
}

func (p *program) newEndSignInCommand() *cobra.Command {
	var all bool
	var user string
	cmd := &cobra.Command{
		Use:   "end [SIGN-IN]",
		Short: "End a sign-in with everything that comes from it",
		Long: `End a sign-in: its cookie or token, credentials, roles assumed with them and SSH
certificates stop working at once, and sessions that they opened end within seconds.`,
		Example: `  sallyport sign-ins end si-0123456789abcdef
  sallyport sign-ins end --all
  sallyport sign-ins end --all --user alice`,
		Args: between(0, 1, "want one SIGN-IN, or --all"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) == 1) || user != "" && !all {
				return usagef("want either one SIGN-IN, or --all, with --user for somebody else's")
			}
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			if !all {
				return api.EndSignIn(cmd.Context(), args[0])
			}
			n, err := api.EndSignIns(cmd.Context(), user)
			if err == nil {
				fmt.Fprintf(p.stdout, "ended %d\n", n)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "end all of yours")
	cmd.Flags().StringVar(&user, "user", "", "with --all: those of the user with this `name`")
	return cmd
}

// newAccountsCommand shows and changes which accounts at OpenID providers are which
// users.
func (p *program) newAccountsCommand() *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:   "accounts",
		Short: "Show which accounts at OpenID providers you are, or link some",
		Example: `  sallyport sign-ins accounts --user alice
  sallyport sign-ins accounts link alice corp 248289761001`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			all, err := api.ListAccounts(cmd.Context(), user)
			if err != nil {
				return err
			}
			if p.flags.json {
				return p.writeJSON(all)
			}
			rows := [][]string{{"PROVIDER", "SUBJECT", "NAME", "LINKED", "BY", "ISSUER"}}
			for _, a := range all {
				rows = append(rows, []string{a.Provider, a.Subject, a.Name, a.Linked.Local().Format(time.DateTime), a.By, a.Issuer})
			}
			return p.writeTable(rows)
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "those of the user with this `name`")
	link := &cobra.Command{
		Use: "link USER PROVIDER SUBJECT", Short: "Let an account at a provider be a user who exists here",
		Example: "  sallyport sign-ins accounts link alice corp 248289761001",
		Args:    between(3, 3, "want USER, PROVIDER and SUBJECT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			return api.LinkAccount(cmd.Context(), args[0], args[1], args[2])
		},
	}
	unlink := &cobra.Command{
		Use: "unlink USER PROVIDER SUBJECT", Short: "Let an account be nobody here",
		Example: "  sallyport sign-ins accounts unlink alice corp 248289761001",
		Args:    between(3, 3, "want USER, PROVIDER and SUBJECT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			return api.UnlinkAccount(cmd.Context(), args[0], args[1], args[2])
		},
	}
	cmd.AddCommand(link, unlink)
	return cmd
}
