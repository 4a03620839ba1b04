package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// newRoot builds the whole tree of commands.
func (p *program) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "Reach nodes that have no open port",
		Long: `Sallyport opens recorded sessions on nodes that have no open port, decided by policy.

It finds the server and your credentials as the AWS CLI does: profiles, environment,
credential_process, AWS_ENDPOINT_URL. Without an endpoint it talks to AWS.`,
		Example: `  sallyport nodes
  sallyport connect frontend-1
  sallyport connect Team=payments -- uptime
  sallyport why connect backend-1`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(flagError)
	root.Version = p.version
	root.SetVersionTemplate("sallyport {{.Version}}\n")
	f := root.PersistentFlags()
	f.StringVar(&p.flags.profile, "profile", "", "profile of the AWS configuration files")
	f.StringVar(&p.flags.region, "region", "", "region to sign for")
	f.StringVar(&p.flags.endpoint, "endpoint-url", "", "`URL` of the server")
	f.StringVar(&p.flags.bundle, "ca-bundle", "", "`file` of PEM certificates to trust besides the system's")
	f.BoolVar(&p.flags.json, "json", false, "write JSON")
	f.BoolVar(&p.flags.debug, "debug", false, "tell on standard error what is done")
	p.addCommands(root)
	root.RegisterFlagCompletionFunc("profile", completeProfiles)
	markRun(root)
	return root
}

// addCommands adds the commands in the groups that help shows them in.
func (p *program) addCommands(root *cobra.Command) {
	groups := []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Reach nodes:", []*cobra.Command{
			p.newNodesCommand(), p.newConnectCommand(), p.newMenuCommand(), p.newTunnelCommand(), p.newRunCommand(),
			p.newSSHCommand(), p.newSCPCommand(), p.newSSHConfigCommand(), p.newSSHCertCommand(), p.newProxyCommand(),
		}},
		{"Ask for access, and decide:", []*cobra.Command{
			p.newRequestCommand(), p.newRequestsCommand(), p.newShowCommand(), p.newApproveCommand(), p.newDenyCommand(),
			p.newDelegateCommand(), p.newCancelCommand(), p.newActivateCommand(), p.newExtendCommand(), p.newReleaseCommand(),
			p.newRevokeCommand(), p.newReviewCommand(), p.newChatCommand(),
		}},
		{"Sign in:", []*cobra.Command{
			p.newLoginCommand(), p.newLogoutCommand(), p.newSignInsCommand(), p.newCredentialsCommand(), p.newFactorCommand(),
		}},
		{"See what is and was:", []*cobra.Command{
			p.newWhyCommand(), p.newSessionsCommand(), p.newWatchCommand(), p.newTerminateCommand(), p.newPlayCommand(), p.newRecordingsCommand(),
			p.newAuditCommand(), p.newStatusCommand(), p.newDoctorCommand(),
		}},
		{"Administer:", []*cobra.Command{
			p.newApplyCommand(), p.newFlowCommand(), newPolicyCommand(), p.newAccessCommand(), p.newUserCommand(),
			p.newActivationCommand(), p.newSSHAuthorityCommand(), p.newAuthorizedKeysCommand(),
		}},
	}
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, cmd := range g.commands {
			cmd.GroupID = g.title
			root.AddCommand(cmd)
		}
	}
	root.AddCommand(p.newVersionCommand())
}

// markRun makes errors of the commands themselves known as such (see ran).
func markRun(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := run(cmd, args); err != nil {
				return &ran{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		markRun(sub)
	}
	if cmd.HasSubCommands() && cmd.RunE == nil && cmd.Run == nil && cmd.HasParent() {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
			}
			return cmd.Help()
		}
	}
}

func (p *program) newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  sallyport version",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.flags.json {
				return p.writeJSON(map[string]string{"version": p.version})
			}
			fmt.Fprintln(p.stdout, "sallyport "+p.version)
			return nil
		},
	}
}
