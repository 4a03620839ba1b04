package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

type sessionFlags struct {
	active, history bool
	node, owner     string
	since, until    string
	limit           int
	search          searchFlags
}

func (p *program) newSessionsCommand() *cobra.Command {
	var flags sessionFlags
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List sessions, newest first",
		Example: `  sallyport sessions --active
  sallyport sessions --node frontend-1 --owner user/alice --since 2d
  sallyport sessions --search 'systemctl restart' --since 7d
  sallyport sessions --regex 'rm +-(rf|fr)\b' --user user/alice
  sallyport sessions --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.search.check(cmd.Flags().Changed); err != nil {
				return err
			}
			if flags.search.given() {
				return p.search(cmd.Context(), flags)
			}
			sessions, err := p.sessions(cmd.Context(), flags)
			if err != nil {
				return err
			}
			if len(sessions) == 0 && flags != (sessionFlags{limit: flags.limit, search: flags.search}) {
				p.say("no session that you may see matches")
			}
			return p.printSessions(sessions)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&flags.active, "active", false, "only sessions that go on")
	f.BoolVar(&flags.history, "history", false, "only sessions that have ended")
	p.addWhose(cmd, &flags.node, &flags.owner)
	f.StringVar(&flags.since, "since", "", "only sessions started since this `time`, or so long ago (2h, 3d)")
	f.StringVar(&flags.until, "until", "", "only sessions started before this `time`")
	f.IntVar(&flags.limit, "limit", 50, "at most so many")
	flags.search.add(f)
	cmd.MarkFlagsMutuallyExclusive("active", "history")
	cmd.AddCommand(p.newSessionsShowCommand())
	return cmd
}

func (p *program) sessions(ctx context.Context, flags sessionFlags) ([]client.Session, error) {
	api, in, err := p.sessionFilter(ctx, flags)
	if err != nil {
		return nil, err
	}
	sessions, err := listSessions(ctx, api, in, flags.limit)
	if errors.Is(err, client.ErrNotSallyport) && api.Endpoint() == "" {
		return awsSessions(ctx, api, in, flags.limit)
	}
	return sessions, err
}

// sessionFilter returns what the flags ask for.
func (p *program) sessionFilter(ctx context.Context, flags sessionFlags) (*client.API, client.ListSessionsInput, error) {
	var none client.ListSessionsInput
	since, err := timeFlag(flags.since)
	if err != nil {
		return nil, none, err
	}
	until, err := timeFlag(flags.until)
	if err != nil {
		return nil, none, err
	}
	if flags.limit < 1 {
		return nil, none, usagef("--limit %d: want 1 or more", flags.limit)
	}
	api, err := p.api(ctx)
	if err != nil {
		return nil, none, err
	}
	if flags.node, flags.owner, err = p.whose(ctx, flags.node, flags.owner); err != nil {
		return nil, none, err
	}
	return api, client.ListSessionsInput{State: flags.state(), NodeID: flags.node, Owner: flags.owner,
		Since: since, Until: until, MaxResults: min(flags.limit, 200)}, nil
}

func (f sessionFlags) state() string {
	switch {
	case f.active:
		return "Active"
	case f.history:
		return "History"
	}
	return ""
}

func listSessions(ctx context.Context, api *client.API, in client.ListSessionsInput, limit int) ([]client.Session, error) {
	var sessions []client.Session
	for len(sessions) < limit {
		out, err := api.ListSessions(ctx, in)
		if err != nil {
			return nil, err
		}
		sessions = append(sessions, out.Sessions...)
		if in.NextToken = out.NextToken; in.NextToken == "" {
			break
		}
	}
	return sessions[:min(limit, len(sessions))], nil
}

// awsSessions asks AWS, which lists active and past sessions apart.
func awsSessions(ctx context.Context, api *client.API, in client.ListSessionsInput, limit int) ([]client.Session, error) {
	states := []types.SessionState{types.SessionStateActive, types.SessionStateHistory}
	if in.State != "" {
		states = []types.SessionState{types.SessionState(in.State)}
	}
	var sessions []client.Session
	for _, state := range states {
		pages := ssm.NewDescribeSessionsPaginator(api.SSM, &ssm.DescribeSessionsInput{State: state, Filters: awsSessionFilters(in)})
		for pages.HasMorePages() && len(sessions) < limit {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, err
			}
			for _, s := range page.Sessions {
				sessions = append(sessions, awsSession(s))
			}
		}
	}
	return sessions[:min(limit, len(sessions))], nil
}

func awsSessionFilters(in client.ListSessionsInput) []types.SessionFilter {
	var filters []types.SessionFilter
	add := func(key types.SessionFilterKey, value string) {
		if value != "" {
			filters = append(filters, types.SessionFilter{Key: key, Value: &value})
		}
	}
	add(types.SessionFilterKeyTargetId, in.NodeID)
	add(types.SessionFilterKeyOwner, in.Owner)
	if !in.Since.IsZero() {
		add(types.SessionFilterKeyInvokedAfter, in.Since.UTC().Format(time.RFC3339))
	}
	if !in.Until.IsZero() {
		add(types.SessionFilterKeyInvokedBefore, in.Until.UTC().Format(time.RFC3339))
	}
	return filters
}

func awsSession(s types.Session) client.Session {
	return client.Session{
		SessionID: aws.ToString(s.SessionId),
		NodeID:    aws.ToString(s.Target),
		Document:  aws.ToString(s.DocumentName),
		Owner:     aws.ToString(s.Owner),
		Reason:    aws.ToString(s.Reason),
		State:     string(s.Status),
		Started:   client.Time{Time: aws.ToTime(s.StartDate)},
		Ended:     client.Time{Time: aws.ToTime(s.EndDate)},
	}
}

// jsonSession is the contract of "sessions --json": a list of these.
type jsonSession struct {
	ID         string     `json:"id"`
	Node       string     `json:"node"`
	NodeName   string     `json:"node_name,omitempty"`
	Owner      string     `json:"owner"`
	Document   string     `json:"document,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	SourceIP   string     `json:"source_ip,omitempty"`
	State      string     `json:"state"`
	Started    time.Time  `json:"started"`
	Ended      *time.Time `json:"ended,omitempty"`
	EndReason  string     `json:"end_reason,omitempty"`
	ExitStatus *int       `json:"exit_status,omitempty"`
	Recorded   bool       `json:"recorded"`
	BytesIn    int64      `json:"bytes_in"`
	BytesOut   int64      `json:"bytes_out"`
	Encryption string     `json:"encryption,omitempty"` // recorded or unrecorded
}

func (p *program) printSessions(sessions []client.Session) error {
	if p.flags.json {
		list := make([]jsonSession, 0, len(sessions))
		for _, s := range sessions {
			list = append(list, sessionJSON(s))
		}
		return p.writeJSON(list)
	}
	rows := [][]string{{"SESSION", "NODE", "OWNER", "STATE", "STARTED", "LASTED", "END"}}
	for _, s := range sessions {
		node := s.NodeName
		if node == "" {
			node = s.NodeID
		}
		rows = append(rows, []string{s.SessionID, node, shortARN(s.Owner), s.State, clock(s.Started.Time), lasted(s), endText(s)})
	}
	return p.writeTable(rows)
}

func sessionJSON(s client.Session) jsonSession {
	j := jsonSession{ID: s.SessionID, Node: s.NodeID, NodeName: s.NodeName, Owner: s.Owner, Document: s.Document,
		Reason: s.Reason, SourceIP: s.SourceIP, State: s.State, Started: s.Started.Time, EndReason: s.EndReason,
		ExitStatus: s.ExitStatus, Recorded: s.Recorded, BytesIn: s.BytesIn, BytesOut: s.BytesOut,
		Encryption: s.Encryption}
	if !s.Ended.IsZero() {
		j.Ended = &s.Ended.Time
	}
	return j
}

func lasted(s client.Session) string {
	end := s.Ended.Time
	if end.IsZero() {
		end = time.Now()
	}
	if s.Started.IsZero() {
		return "-"
	}
	return max(end.Sub(s.Started.Time), 0).Round(time.Second).String()
}

func endText(s client.Session) string {
	if s.ExitStatus != nil {
		if s.EndReason == "" || s.EndReason == "exit" {
			return "exit " + strconv.Itoa(*s.ExitStatus)
		}
		return fmt.Sprintf("%s (exit %d)", s.EndReason, *s.ExitStatus)
	}
	return orDash(s.EndReason)
}

// shortARN leaves out what every ARN of the account has in common.
func shortARN(arn string) string {
	n := 0
	for i := range arn {
		if arn[i] == ':' {
			if n++; n == 5 {
				return arn[i+1:]
			}
		}
	}
	return arn
}

func (p *program) newTerminateCommand() *cobra.Command {
	var yes bool
	var reason string
	cmd := &cobra.Command{
		Use:   "terminate SESSION...",
		Short: "End sessions, for both sides at once",
		Example: `  sallyport terminate alice-0a1b2c3d4e5f67890
  sallyport terminate --yes $(sallyport sessions --active --json | jq -r '.[].id')`,
		Args:              atLeast(1, "want SESSION..., as sallyport sessions --active shows them"),
		ValidArgsFunction: p.completeSessions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.terminate(cmd.Context(), args, reason, yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().StringVar(&reason, "reason", "", "`text` that the person and the log are told")
	return cmd
}

func (p *program) terminate(ctx context.Context, ids []string, reason string, yes bool) error {
	question := "End session " + ids[0] + "?"
	if len(ids) > 1 {
		question = fmt.Sprintf("End %d sessions?", len(ids))
	}
	if err := p.confirm(yes, question, "nothing was ended"); err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	failed := false
	for _, id := range ids {
		did, err := terminateSession(ctx, api, id, reason)
		if err != nil {
			failed = true
			p.report(err)
			continue
		}
		p.say("%s %s", did, client.CleanLine(id))
	}
	if failed {
		return &statusError{status: statusRefused}
	}
	return nil
}

// terminateSession ends a session and says what was done. The operation itself, as
// AWS has it, accepts any id, so the session is looked up first; who may not do that,
// or asks AWS, is told no more than that the request was accepted.
func terminateSession(ctx context.Context, api *client.API, id, reason string) (did string, err error) {
	did = "ended session"
	session, err := api.GetSession(ctx, id)
	switch {
	case isDenied(err), errors.Is(err, client.ErrNotSallyport):
		did = "the request was accepted to end session"
	case err != nil:
		return "", err
	case !session.Ended.IsZero():
		return "already over: session", nil
	}
	if reason != "" {
		return did, api.TerminateSessionFor(ctx, id, reason)
	}
	return did, api.TerminateSession(ctx, id)
}
