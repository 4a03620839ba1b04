package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/member"
)

// shutdownGrace bounds how long a stop may take: sessions are told, recordings and
// audit are written out.
const shutdownGrace = 20 * time.Second

func newServer() *cobra.Command {
	var path string
	var check bool
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the server",
		Long: `Run one member of a Sallyport deployment: TLS for API, channels and health, and a
loopback listener for /metrics, /healthz and /readyz. SIGTERM and Ctrl-C end it
cleanly: people are told, recordings and audit are written out.`,
		Example: `  sallyportd server --config /etc/sallyport/sallyportd.hcl
  sallyportd server --config sallyportd.hcl --check    # read it and the files of recordings, start nothing`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runServer(cmd.Context(), path, check, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&path, "config", "/etc/sallyport/sallyportd.hcl", "configuration file")
	cmd.Flags().BoolVar(&check, "check", false, "check the configuration and exit")
	return cmd
}

func runServer(ctx context.Context, path string, check bool, out, errOut io.Writer) error {
	cfg, err := member.LoadConfig(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = hintedError{err, "'sallyportd init' makes one; --config names it"}
	}
	if err != nil {
		return usageError{err}
	}
	if check {
		if err := cfg.CheckFiles(ctx); err != nil {
			return usageError{fmt.Errorf("%s: %w", path, err)}
		}
		fmt.Fprintf(out, "%s is good: member %s, account %s, region %s\n", path, cfg.Member, cfg.Account, cfg.Region)
		return nil
	}
	logger, err := serverLogger(cfg, errOut)
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", path, err)}
	}
	cfg.Logger = logger
	m, err := member.Start(ctx, cfg)
	if err != nil {
		return err
	}
	logger.Info("ready", "member", cfg.Member, "listen", m.TLSURL(), "admin", m.AdminURL())
	notifySystemd("READY=1")
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-m.Failed():
	}
	notifySystemd("STOPPING=1")
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := m.Close(stop); err != nil && failed == nil {
		failed = err
	}
	return failed
}

func serverLogger(cfg member.Config, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return nil, fmt.Errorf("log_level: %q is not debug, info, warn or error", cfg.LogLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch cfg.LogFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("log_format: %q is not text or json", cfg.LogFormat)
}

// notifySystemd tells the service manager how far we are (sd_notify(3)); without
// one it does nothing.
func notifySystemd(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, state)
}
