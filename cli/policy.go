package cli

import "github.com/spf13/cobra"

// newPolicyCommand returns "sallyport policy", whose commands need no server.
func newPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Evaluate and check policies without a server",
	}
	cmd.AddCommand(newPolicyEvalCommand(), newPolicyLintCommand())
	return cmd
}

// jsonWanted reports whether --json, a flag of the root, is set.
func jsonWanted(cmd *cobra.Command) bool {
	f := cmd.Flag("json")
	return f != nil && f.Value.String() == "true"
}
