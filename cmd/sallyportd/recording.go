package main

import (
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/member"
)

func newRecording() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "recording [NAME]",
		Short: "Read a recording from the store without a server and a database",
		Long: `Read a recording with nothing but the store and the keys that a configuration names,
when server and database are lost: without NAME it lists the recordings that have ended,
with one it writes the recording as asciicast, as far as it verifies against its manifest.

Nobody is asked whether you may, and nothing is audited: who has store and keys needs
nobody's permission.`,
		Example: `  sallyportd recording --config /etc/sallyport/sallyportd.hcl
  sallyportd recording 2026/11/20/alice-0a1b2c3d4e5f67890 > alice.cast`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := member.LoadConfig(path)
			if err != nil {
				return usageError{err}
			}
			if cfg.Logger, err = serverLogger(cfg, cmd.ErrOrStderr()); err != nil {
				return usageError{err}
			}
			return member.ReadRecording(cmd.Context(), cfg, strings.Join(args, ""), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&path, "config", "/etc/sallyport/sallyportd.hcl", "configuration file")
	return cmd
}
