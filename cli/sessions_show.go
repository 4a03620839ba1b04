package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
	transcripts "sallyport.dev/transcript"
)

func (p *program) newSessionsShowCommand() *cobra.Command {
	var commands bool
	cmd := &cobra.Command{
		Use:   "show SESSION",
		Short: "Show one session, and with --commands what was run in it",
		Long: `Show one session. --commands lists what was run: the command of a session that ran one
(ssh NODE COMMAND) and transferred files as the gateway saw them; the commands of a
shell as far as the shell marks them (fish does, others with their integration scripts).
Those marks are in the node's output, so whoever writes to the terminal can forge them.`,
		Example: `  sallyport sessions show alice-0a1b2c3d4e5f67890
  sallyport sessions show alice-0a1b2c3d4e5f67890 --commands --json`,
		Args:              between(1, 1, "want one SESSION, as sallyport sessions shows them"),
		ValidArgsFunction: p.completeRecordings,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.showSession(cmd.Context(), args[0], commands)
		},
	}
	cmd.Flags().BoolVar(&commands, "commands", false, "list what was run, and the files that were transferred")
	return cmd
}

// shownSession is what is known of one session.
type shownSession struct {
	session   client.Session
	commands  []transcripts.Command
	transfers []client.Transfer
}

func (p *program) showSession(ctx context.Context, id string, commands bool) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	found, err := api.GetSession(ctx, id)
	if err != nil {
		return err
	}
	s := shownSession{session: *found}
	if commands {
		if err := p.addRun(ctx, api, &s); err != nil {
			return err
		}
	}
	if p.flags.json {
		return p.writeJSON(s.json(commands))
	}
	if err := p.printSession(s.session); err != nil || !commands {
		return err
	}
	return p.printCommands(s)
}

func (p *program) addRun(ctx context.Context, api *client.API, s *shownSession) (err error) {
	if s.transfers, err = transfers(ctx, api, s.session.SessionID); err != nil {
		return err
	}
	if !s.session.Recorded {
		return nil
	}
	file, err := p.openRecording(ctx, s.session.SessionID)
	if err != nil {
		return err
	}
	defer file.Close()
	s.commands, err = transcripts.Commands(file)
	return err
}

func transfers(ctx context.Context, api *client.API, id string) ([]client.Transfer, error) {
	var all []client.Transfer
	in := client.ListTransfersInput{SessionID: id}
	for {
		out, err := api.ListTransfers(ctx, in)
		if err != nil {
			return nil, err
		}
		all = append(all, out.Transfers...)
		if in.NextToken = out.NextToken; in.NextToken == "" {
			return all, nil
		}
	}
}

func (p *program) printSession(s client.Session) error {
	rows := [][]string{{"SESSION", s.SessionID}, {"NODE", strings.TrimSpace(s.NodeName + " " + s.NodeID)}, {"OWNER", s.Owner}}
	for _, row := range [][]string{
		{"DOCUMENT", s.Document}, {"REASON", s.Reason}, {"FROM", s.SourceIP}, {"RUN AS", s.RunAs},
	} {
		if row[1] != "" {
			rows = append(rows, row)
		}
	}
	recorded := "no"
	if s.Recorded {
		recorded = "yes"
	}
	rows = append(rows, []string{"STATE", s.State}, []string{"STARTED", clock(s.Started.Time)}, []string{"LASTED", lasted(s)},
		[]string{"END", endText(s)}, []string{"RECORDED", recorded})
	return p.writeTable(rows)
}

func (p *program) printCommands(s shownSession) error {
	if len(s.commands) > 0 {
		rows := [][]string{{"AT", "TOOK", "EXIT", "COMMAND"}}
		for _, c := range s.commands {
			rows = append(rows, []string{jumpText(c.At), tookText(c), exitText(c), c.Text})
		}
		fmt.Fprintln(p.stdout)
		if err := p.writeTable(rows); err != nil {
			return err
		}
	}
	if len(s.transfers) > 0 {
		rows := [][]string{{"AT", "FILES", "BYTES", "PATH"}}
		for _, t := range s.transfers {
			at := max(t.Time.Sub(s.session.Started.Time), 0)
			rows = append(rows, []string{jumpText(at), t.Operation, orDash(t.Details["bytes"]), transferPath(t)})
		}
		fmt.Fprintln(p.stdout)
		if err := p.writeTable(rows); err != nil {
			return err
		}
	}
	p.explainCommands(s)
	return nil
}

// explainCommands says what the list is worth.
func (p *program) explainCommands(s shownSession) {
	marked := false
	for _, c := range s.commands {
		marked = marked || !c.Exact
	}
	switch {
	case !s.session.Recorded:
		p.say("the session was not recorded, so nothing is known of what was run")
	case marked:
		p.say("commands are as the shell marked them in its output: best effort, and not proof")
	case len(s.commands)+len(s.transfers) == 0:
		p.say("the session's shell marked no commands; sallyport play %s shows it", client.CleanLine(s.session.SessionID))
	}
}

func tookText(c transcripts.Command) string {
	if !c.Ended {
		return "-"
	}
	return c.Took.Round(100 * time.Millisecond).String()
}

func exitText(c transcripts.Command) string {
	if c.Exit == nil {
		return "-"
	}
	return strconv.Itoa(*c.Exit)
}

func transferPath(t client.Transfer) string {
	path := t.Details["path"]
	if target := t.Details["target"]; target != "" {
		path += " → " + target
	}
	if failed := t.Details["error"]; failed != "" {
		path += " (" + failed + ")"
	}
	return path
}

// jsonShown is the contract of "sessions show --json". Commands and transfers are there
// with --commands alone.
type jsonShown struct {
	jsonSession
	Commands  []jsonCommand  `json:"commands,omitempty"`
	Transfers []jsonTransfer `json:"transfers,omitempty"`
}

// jsonCommand is a command. Exact is true where the gateway knows it; all others are the
// node's word.
type jsonCommand struct {
	At      float64  `json:"at"` // seconds since the start
	Command string   `json:"command"`
	Exit    *int     `json:"exit_status,omitempty"`
	Took    *float64 `json:"duration,omitempty"` // seconds; absent while it runs
	Exact   bool     `json:"exact"`
}

type jsonTransfer struct {
	Time      time.Time         `json:"time"`
	Operation string            `json:"operation"`
	Details   map[string]string `json:"details"`
}

func (s shownSession) json(commands bool) jsonShown {
	j := jsonShown{jsonSession: sessionJSON(s.session)}
	if !commands {
		return j
	}
	for _, c := range s.commands {
		jc := jsonCommand{At: c.At.Seconds(), Command: c.Text, Exit: c.Exit, Exact: c.Exact}
		if c.Ended {
			took := c.Took.Seconds()
			jc.Took = &took
		}
		j.Commands = append(j.Commands, jc)
	}
	for _, t := range s.transfers {
		j.Transfers = append(j.Transfers, jsonTransfer{Time: t.Time.Time, Operation: t.Operation, Details: t.Details})
	}
	return j
}
