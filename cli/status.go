package cli

import (
	"context"
	"errors"
	"fmt"

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
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.status(cmd.Context()) },
	}
}

func (p *program) status(ctx context.Context) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	s, err := api.GetStatus(ctx)
	if errors.Is(err, client.ErrNotSallyport) && api.Endpoint() == "" {
		s, err = awsStatus(ctx, api)
	}
	if err != nil {
		return err
	}
	if p.flags.json {
		return p.writeJSON(s)
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
	if s.Member != "" {
		rows = append(rows,
			[]string{"server", s.Version + ", since " + clock(s.Started.Time)},
			[]string{"member", fmt.Sprintf("%s (of %d)", s.Member, max(len(s.Members), 1))},
			[]string{"nodes", fmt.Sprintf("%d, %d connected", s.Nodes, s.NodesConnected)},
			[]string{"sessions", fmt.Sprintf("%d active", s.ActiveSessions)})
	}
	return p.writeTable(rows)
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

// newUserCommand returns the emergency switch; everything else about users goes
// through the IAM API.
func (p *program) newUserCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Disable a user at once, or enable one again",
		Long: `Disable a user: every key is refused and every session ends within seconds; or enable
one again. Everything else about users is done with aws iam.`,
		Example: "  sallyport user disable alice",
	}
	var yes bool
	disable := &cobra.Command{
		Use:     "disable NAME",
		Short:   "Refuse a user's keys and end the user's sessions",
		Example: "  sallyport user disable alice",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.disableUser(cmd.Context(), args[0], yes)
		},
	}
	disable.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	enable := &cobra.Command{
		Use:     "enable NAME",
		Short:   "Let a disabled user in again",
		Example: "  sallyport user enable alice",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			return api.EnableUser(cmd.Context(), args[0])
		},
	}
	cmd.AddCommand(disable, enable)
	return cmd
}

func (p *program) disableUser(ctx context.Context, name string, yes bool) error {
	if !yes {
		agreed, err := p.confirm("Disable user " + name + " and end the user's sessions?")
		if err != nil {
			return err
		}
		if !agreed {
			return &statusError{status: statusRefused, err: errors.New("nothing was changed")}
		}
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	return api.DisableUser(ctx, name)
}
