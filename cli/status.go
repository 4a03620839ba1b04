package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

func (p *program) newStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the server, and who you are to it",
		Example: "  sallyport status --profile alice",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.status(cmd.Context()) },
	}
}

func (p *program) status(ctx context.Context) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	s, err := p.whoami(ctx)
	if err != nil {
		return err
	}
	if p.flags.json {
		return p.writeJSON(statusJSON(api.Endpoint(), s))
	}
	endpoint := api.Endpoint()
	if endpoint == "" {
		endpoint = "AWS"
	}
	rows := [][]string{
		{"endpoint", endpoint},
		{"account", s.Account},
		{"region", s.Region},
		{"you are", s.Principal},
		{"user id", s.UserID},
	}
	if s.Version != "" {
		rows = append(rows, []string{"server", s.Version + sinceText(s)})
	}
	if !s.Started.IsZero() { // who may not see the deployment is told no numbers
		rows = append(rows,
			[]string{"members", membersText(s)},
			[]string{"nodes", fmt.Sprintf("%d, %d connected", s.Nodes, s.NodesConnected)},
			[]string{"sessions", fmt.Sprintf("%d active", s.ActiveSessions)})
	}
	return p.writeTable(rows)
}

func sinceText(s *client.GetStatusOutput) string {
	if s.Started.IsZero() {
		return ""
	}
	return ", since " + clock(s.Started.Time)
}

func membersText(s *client.GetStatusOutput) string {
	if s.Member == "" {
		return "1"
	}
	return fmt.Sprintf("%d, this is %s", max(len(s.Members), 1), s.Member)
}

// jsonStatus is the contract of "status --json". What is about the deployment is left
// out for who may not see it.
type jsonStatus struct {
	Endpoint       string       `json:"endpoint,omitempty"` // none for AWS
	Account        string       `json:"account"`
	Region         string       `json:"region"`
	Principal      string       `json:"principal"`
	UserID         string       `json:"user_id"`
	Version        string       `json:"version,omitempty"`
	Started        *time.Time   `json:"started,omitempty"`
	Member         string       `json:"member,omitempty"`
	Members        []jsonMember `json:"members,omitempty"`
	Nodes          *int         `json:"nodes,omitempty"`
	NodesConnected *int         `json:"nodes_connected,omitempty"`
	ActiveSessions *int         `json:"active_sessions,omitempty"`
}

type jsonMember struct {
	ID   string     `json:"id"`
	URL  string     `json:"url,omitempty"`
	Seen *time.Time `json:"seen,omitempty"`
}

func statusJSON(endpoint string, s *client.GetStatusOutput) jsonStatus {
	j := jsonStatus{Endpoint: endpoint, Account: s.Account, Region: s.Region, Principal: s.Principal, UserID: s.UserID,
		Version: s.Version, Started: moment(s.Started), Member: s.Member}
	for _, m := range s.Members {
		j.Members = append(j.Members, jsonMember{m.ID, m.URL, moment(m.Seen)})
	}
	if !s.Started.IsZero() {
		j.Nodes, j.NodesConnected, j.ActiveSessions = &s.Nodes, &s.NodesConnected, &s.ActiveSessions
	}
	return j
}

// moment is a time as JSON shows it: RFC 3339 in UTC, nil for none.
func moment(t client.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	u := t.UTC()
	return &u
}

func awsStatus(ctx context.Context, api *client.API) (*client.GetStatusOutput, error) {
	out, err := api.STS.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return nil, err
	}
	return &client.GetStatusOutput{
		Account:   aws.ToString(out.Account),
		Region:    api.Region(),
		Principal: aws.ToString(out.Arn),
		UserID:    aws.ToString(out.UserId),
	}, nil
}

// newUserCommand returns the emergency switch and passwords; everything else about users
// goes through the IAM API.
func (p *program) newUserCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Disable a user at once, or enable one again; passwords",
		Long: `Disable a user: every key is refused and every session ends within seconds; or enable
one again; or set passwords. Everything else about users is done with aws iam.`,
		Example: "  sallyport user disable alice",
	}
	var yes bool
	disable := &cobra.Command{
		Use:     "disable NAME",
		Short:   "Refuse a user's keys and end the user's sessions",
		Example: "  sallyport user disable alice",
		Args:    between(1, 1, "want the NAME of a user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.disableUser(cmd.Context(), args[0], yes)
		},
	}
	disable.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	enable := &cobra.Command{
		Use:     "enable NAME",
		Short:   "Let a disabled user in again",
		Example: "  sallyport user enable alice",
		Args:    between(1, 1, "want the NAME of a user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			return api.EnableUser(cmd.Context(), args[0])
		},
	}
	enable.Flags().BoolP("yes", "y", false, "accepted as for disable; enabling never asks")
	cmd.AddCommand(disable, enable, p.newPasswordCommand())
	return cmd
}

func (p *program) disableUser(ctx context.Context, name string, yes bool) error {
	if err := p.confirm(yes, "Disable user "+name+" and end the user's sessions?", "nothing was changed"); err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	return api.DisableUser(ctx, name)
}
