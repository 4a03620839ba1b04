package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sallyport.dev/agent"
	"sallyport.dev/agent/shell"
	"sallyport.dev/member"
)

const (
	devAccount = "111111111111"
	devRegion  = "us-east-1"
	maxNodes   = 100
	readyAfter = 30 * time.Second // how long the first nodes may take to connect
)

type devOptions struct {
	dir     string
	listen  string
	tls     string
	admin   string
	ssh     string
	anySSH  bool // any port will do where that of ssh is taken
	nodes   int
	with    string
	verbose bool
}

func newDev() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole system on this machine: server, sample world and nodes",
		Long: `Run a whole system on this machine: the server with its state in a folder, a
sample world of users, roles and policies, and nodes whose shells run as you.
It listens on loopback only, unless --tls names another address. Ctrl-C ends it; the
folder is kept and used again.`,
		Example: `  sallyportd dev
  sallyportd dev --dir /tmp/try --nodes 5
  sallyportd dev --tls 127.0.0.1:8443    # let other agents join, AWS's too`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return usageError{err}
			}
			o.anySSH = !cmd.Flags().Changed("ssh")
			return runDev(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "./sallyport-dev", "folder for state, keys and recordings; kept between runs")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8480", "loopback address for plain HTTP")
	f.StringVar(&o.tls, "tls", "", "`HOST:PORT` of a second, TLS listener under the dev CA (DIR/ca.crt), on any address; none by default")
	f.StringVar(&o.admin, "admin", "", "loopback `HOST:PORT` for /metrics, /healthz and /readyz; none by default")
	f.StringVar(&o.ssh, "ssh", "127.0.0.1:2222", "address of the SSH front door; empty for none. Any free port is taken where 2222 is not")
	f.IntVar(&o.nodes, "nodes", len(sampleNodes), "number of nodes to run, 0 to 100")
	f.StringVar(&o.with, "with", "", "HCL `file` with blocks of sallyportd.hcl for the server: sign_in, on_call, slack, webhook, smtp, sessions, recordings, search, audit, aws_logs, tracing")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what the server and the nodes do")
	return cmd
}

func (o devOptions) check() error {
	if o.nodes < 0 || o.nodes > maxNodes {
		return fmt.Errorf("--nodes: %d is not between 0 and %d", o.nodes, maxNodes)
	}
	if o.listen == "" {
		return errors.New("--listen: an address is needed")
	}
	_, err := o.config(o.dir)
	return err
}

// config is the configuration of the dev server; errors name the flag.
func (o devOptions) config(dir string) (member.Config, error) {
	cfg := member.Config{
		Account:     devAccount,
		Region:      devRegion,
		DataDir:     dir,
		Member:      "dev",
		Listen:      o.tls,
		ListenPlain: o.listen,
		ListenAdmin: o.admin,
	}
	if o.ssh != "" {
		cfg.SSH = &member.SSH{Listen: o.ssh, Suffix: devSuffix}
	}
	if o.with != "" {
		if err := cfg.With(o.with); err != nil {
			return cfg, fmt.Errorf("--with: %w", err)
		}
	}
	err := cfg.Check()
	if err == nil {
		return cfg, nil
	}
	for key, flag := range map[string]string{"listen_plain": "--listen", "listen_admin": "--admin", "listen": "--tls", "data_dir": "--dir", "ssh.listen": "--ssh"} {
		if text, ok := strings.CutPrefix(err.Error(), key+": "); ok {
			return cfg, fmt.Errorf("%s: %s", flag, text)
		}
	}
	return cfg, err
}

// runDev runs the dev system until the context ends, then takes it down: nodes
// first, so that their shells end, then the server.
func runDev(ctx context.Context, o devOptions, out, errOut io.Writer) error {
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making --dir: %w", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer unlock()

	logger := devLogger(o.verbose, errOut)
	m, err := startDevMember(ctx, o, dir, logger)
	if err != nil {
		return err
	}
	defer closeMember(m, logger)

	keys, err := seed(ctx, m, filepath.Join(dir, "aws", "credentials"))
	if err != nil {
		return fmt.Errorf("making the sample world: %w", err)
	}
	files := devFiles{dir: dir, url: m.PlainURL(), keys: keys}
	if err := files.write(); err != nil {
		return err
	}
	if err := files.writeSSH(ctx, m); err != nil {
		return fmt.Errorf("making what ssh needs: %w", err)
	}
	nodesCtx, stopNodes := context.WithCancel(ctx)
	nodes, err := startNodes(nodesCtx, m, dir, o.nodes, logger)
	defer func() { stopNodes(); nodes.Wait() }()
	if err != nil {
		return err
	}
	if err := waitConnected(ctx, m, o.nodes); err != nil {
		return err
	}
	printTour(out, o, dir, m)
	fmt.Fprintln(out, "ready")
	select {
	case <-ctx.Done():
		fmt.Fprintln(errOut, "sallyportd: shutting down")
		return nil
	case err := <-m.Failed():
		return err
	}
}

func devLogger(verbose bool, errOut io.Writer) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: level}))
}

func startDevMember(ctx context.Context, o devOptions, dir string, logger *slog.Logger) (*member.Member, error) {
	cfg, err := o.config(dir)
	if err != nil {
		return nil, usageError{err}
	}
	cfg.Logger = logger
	m, err := member.Start(ctx, cfg)
	if errors.Is(err, unix.EADDRINUSE) && o.anySSH {
		cfg.SSH.Listen = "127.0.0.1:0"
		m, err = member.Start(ctx, cfg)
	}
	if errors.Is(err, unix.EADDRINUSE) {
		err = hintedError{err, "another sallyportd dev may be running: end it, or give another address with --listen (or --tls, --ssh)"}
	}
	return m, err
}

func closeMember(m *member.Member, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		logger.Error("shutting down", "error", err)
	}
}

// lockDir makes sure that one server alone uses the folder.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another sallyportd dev; end that one or give another --dir", dir)
	}
	return func() { f.Close() }, nil
}

// startNodes runs the nodes' agents in this process, each with a state folder of
// its own. The group is done when all of them have ended.
func startNodes(ctx context.Context, m *member.Member, dir string, n int, logger *slog.Logger) (*sync.WaitGroup, error) {
	var group sync.WaitGroup
	for i := range n {
		spec := sampleNode(i)
		state := filepath.Join(dir, "nodes", spec.tags["Name"])
		activation, err := activationFor(ctx, m, spec, state)
		if err != nil {
			return &group, fmt.Errorf("node %s: %w", spec.id, err)
		}
		a, err := agent.New(agent.Config{
			Servers:    []string{m.PlainURL()},
			Region:     devRegion,
			StateDir:   state,
			Activation: activation,
			Shell:      shell.Options{RunAsSelf: true},
			Logger:     logger.With("agent", spec.id), // agents tell of their node themselves
		})
		if err != nil {
			return &group, fmt.Errorf("node %s: %w", spec.id, err)
		}
		group.Go(func() {
			if err := a.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				logger.Error("node ended", "node", spec.id, "error", err)
			}
		})
	}
	return &group, nil
}

// waitConnected returns when the sample nodes can take sessions.
func waitConnected(ctx context.Context, m *member.Member, n int) error {
	ctx, cancel := context.WithTimeout(ctx, readyAfter)
	defer cancel()
	for i := range n {
		id := sampleNode(i).id
		for !m.Connected(ctx, id) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("node %s has not connected within %v; run with --verbose to see why", id, readyAfter)
			case err := <-m.Failed():
				return err
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}
