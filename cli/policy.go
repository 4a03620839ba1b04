package cli

import "github.com/spf13/cobra"

// newPolicyCommand returns "sallyport policy", whose commands need no server.
func newPolicyCommand() *cobra.Command {
	return &cobra.Command{Use: "policy", Short: "Evaluate and check policies without a server"}
}
