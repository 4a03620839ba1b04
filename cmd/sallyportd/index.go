package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sallyport.dev/member"
)

func newIndex() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "index",
		Short: "Tend the index that sessions are searched by",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newIndexClear())
	return cmd
}

func newIndexClear() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "clear",
		Short: "Delete what the search index holds, while the server is stopped",
		Long: `Delete the text of sessions that the search index holds in the database. Recordings stay
as they are. The configuration must say search { index = false }, and the server must be
stopped; in a cluster, all members. The deletion is in the audit log.`,
		Example: `  sallyportd index clear --config /etc/sallyport/sallyportd.hcl`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := member.LoadConfig(path)
			if err != nil {
				return usageError{err}
			}
			if cfg.Logger, err = serverLogger(cfg, cmd.ErrOrStderr()); err != nil {
				return usageError{err}
			}
			n, err := member.ClearIndex(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "the index held text of %d sessions; it is empty now\n", n)
			return err
		},
	}
	cmd.Flags().StringVar(&path, "config", "/etc/sallyport/sallyportd.hcl", "configuration file")
	return cmd
}
