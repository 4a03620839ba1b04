package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/agent"
	"sallyport.dev/internal/build"
)

// program is the command with the world around it, which tests replace.
type program struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
}

// run runs the command line and returns the exit status.
func (p program) run(ctx context.Context, args []string) int {
	root := p.command()
	root.SetArgs(args)
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(p.err, "sallyport-agent: %v\n", err)
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(p.err, "hint: %s\n", hint)
	}
	return 1
}

func hintFor(err error) string {
	switch {
	case errors.Is(err, agent.ErrKeyRefused):
		return "the registration is kept and needs no new activation: put region (--region) or this machine's clock right and start the agent"
	case errors.Is(err, agent.ErrOtherMachine):
		return "this disk was probably copied from another node: give an activation (see sallyport-agent register --help)"
	case errors.Is(err, agent.ErrNotRegistered):
		return "make an activation with 'sallyport activation create' and run 'sallyport-agent register'"
	}
	return ""
}

func (p program) command() *cobra.Command {
	var f flags
	var version bool
	root := &cobra.Command{
		Use:   "sallyport-agent",
		Short: "Join this machine to a Sallyport deployment",
		Long: `sallyport-agent joins this machine to a Sallyport deployment as a node. It dials out
to the server, keeps one connection open, and runs the sessions that the server allows.
The machine needs no open port.

Without a command it runs the agent. HTTPS_PROXY and NO_PROXY are followed.`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return p.version()
			}
			return p.serve(cmd.Context(), f)
		},
	}
	// cobra's own --version would take a template, and with it every method of every
	// type into the program: 1.5 MB of an idle agent.
	root.Flags().BoolVarP(&version, "version", "v", false, "print the version")
	f.register(root)
	root.AddCommand(p.runCommand(&f), p.registerCommand(&f), p.statusCommand(&f), p.versionCommand())
	return root
}

func (p program) runCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the agent (the default)",
		Long: `Run the agent until it is told to stop. A machine that is not registered yet is
registered first, if an activation is configured (see sallyport-agent register --help).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.serve(cmd.Context(), *f) },
	}
}

func (p program) registerCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "register",
		Short: "Register this machine with an activation",
		Long: `Register this machine with an activation, in place of any earlier registration, which
stays in force if this fails, and check that the server lets the new node in. The
machine makes its own key and keeps it in the state directory with mode 0600.

The activation's id and code are read, in this order, from
  --activation-file FILE   JSON with ActivationId and ActivationCode, as
                           'aws ssm create-activation' prints it, or two lines, id and
                           code; - is standard input
  SALLYPORT_ACTIVATION_ID and SALLYPORT_ACTIVATION_CODE in the environment
  activation_file in the configuration file

There is no flag for the code: every user of the machine can read the command lines of
others.`,
		Example: `  sallyport-agent register --server https://sallyport.example.com:8443 --activation-file node.activation
  ssh node sudo sallyport-agent register --activation-file - <node.activation`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.register(cmd.Context(), *f) },
	}
}

func (p program) statusCommand(f *flags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this machine's registration",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return p.status(*f, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return p.version() },
	}
}

func (p program) version() error {
	_, err := fmt.Fprintf(p.out, "sallyport-agent %s (protocol %s)\n", build.Version(), agent.ProtocolVersion)
	return err
}

func (p program) serve(ctx context.Context, f flags) error {
	s, err := f.load()
	if err != nil {
		return err
	}
	cfg, err := p.config(s)
	if err != nil {
		return err
	}
	var once sync.Once
	var released sync.WaitGroup
	defer released.Wait()
	cfg.Connected = func() {
		once.Do(func() {
			if err := notify(p.env("NOTIFY_SOCKET"), "READY=1"); err != nil {
				cfg.Logger.Warn("telling systemd that the agent is ready", "error", err)
			}
			released.Go(func() { releaseMemory(ctx) })
		})
	}
	a, err := agent.New(cfg)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// releaseMemory gives back what starting took: key making, the parsing of the
// configuration, and the parts of the program that do that.
func releaseMemory(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
		debug.FreeOSMemory()
		releaseProgram()
	}
}

func (p program) register(ctx context.Context, f flags) error {
	s, err := f.load()
	if err != nil {
		return err
	}
	cfg, err := p.config(s)
	if err != nil {
		return err
	}
	if s.ActivationFile == "" && cfg.Activation == (agent.Activation{}) {
		return errors.New("no activation is given: use --activation-file, the environment or the configuration file")
	}
	a, err := agent.New(cfg)
	if err != nil {
		return err
	}
	id, err := a.Register(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, id)
	return err
}

func (p program) status(f flags, asJSON bool) error {
	s, err := f.load()
	if err != nil {
		return err
	}
	st, err := agent.ReadStatus(s.StateDir)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(p.out).Encode(st)
	}
	running := "no"
	if st.Running {
		running = "yes"
	}
	_, err = fmt.Fprintf(p.out, "node        %s\nregion      %s\nregistered  %s\nrunning     %s\n",
		st.InstanceID, st.Region, st.Registered.Format(time.RFC3339), running)
	if err == nil && !st.SameMachine {
		return agent.ErrOtherMachine
	}
	return err
}

// logger returns the logger of a level and format.
func (p program) logger(level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log_level: %q is not debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(p.err, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(p.err, o)), nil
	}
	return nil, fmt.Errorf("log_format: %q is not text or json", format)
}
