package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

func (p *program) newActivationCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "activation",
		Short: "Let machines register as nodes",
		Example: `  sallyport activation create --name web --tag Team=payments --limit 10 --output-file web.activation
  sallyport activation list`,
	}
	cmd.AddCommand(p.newActivationCreateCommand(), p.newActivationListCommand(), p.newActivationDeleteCommand())
	return cmd
}

type activationFlags struct {
	name, description, role string
	limit                   int32
	expires                 time.Duration
	tags, nodeIDs           []string
	outputFile              string
}

func (p *program) newActivationCreateCommand() *cobra.Command {
	var flags activationFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make an activation; its code is shown this once",
		Long: `Make an activation and show its id and code. The code is shown this once: whoever has
it can register a node. --output-file writes both to a new file that only you can read,
in the form that "sallyport-agent register --activation-file" takes.`,
		Example: `  sallyport activation create --name web --tag Team=payments --limit 10 --expires 2h
  sallyport activation create --node-id i-060ee0879f3ec4eb7 --output-file node.activation`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.createActivation(cmd.Context(), flags)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.name, "name", "", "default `name` of the nodes")
	f.StringVar(&flags.description, "description", "", "what it is for")
	f.StringVar(&flags.role, "iam-role", "SallyportNode", "`role` of the nodes (AWS needs one that exists)")
	f.Int32Var(&flags.limit, "limit", 1, "so many machines may register (1 to 1000)")
	f.DurationVar(&flags.expires, "expires", 24*time.Hour, "valid for so long (at most 720h)")
	f.StringArrayVar(&flags.tags, "tag", nil, "`KEY=VALUE` that the nodes get; repeat it for each tag")
	f.StringArrayVar(&flags.nodeIDs, "node-id", nil, "`id` that a node gets (Sallyport only); may be repeated")
	f.StringVar(&flags.outputFile, "output-file", "", "write id and code to this new `file`, mode 0600")
	return cmd
}

// nodeIDKey is the registration metadata that fixes the ids of an activation's nodes.
const nodeIDKey = "NodeIds"

func (f activationFlags) input(now time.Time) (*ssm.CreateActivationInput, error) {
	if f.limit < 1 || f.limit > 1000 {
		return nil, usagef("--limit %d: want 1 to 1000", f.limit)
	}
	if f.expires <= 0 || f.expires > 30*24*time.Hour {
		return nil, usagef("--expires %s: want more than nothing and at most 720h", f.expires)
	}
	in := &ssm.CreateActivationInput{
		IamRole:           &f.role,
		RegistrationLimit: &f.limit,
		ExpirationDate:    aws.Time(now.Add(f.expires)),
	}
	if f.name != "" {
		in.DefaultInstanceName = &f.name
	}
	if f.description != "" {
		in.Description = &f.description
	}
	for _, t := range f.tags {
		k, v, err := tagFlag(t)
		if err != nil {
			return nil, err
		}
		in.Tags = append(in.Tags, types.Tag{Key: &k, Value: &v})
	}
	for _, id := range f.nodeIDs {
		if !nodeID.MatchString(id) {
			return nil, usagef("--node-id %q: want i- or mi- and 17 hexadecimal digits", id)
		}
		in.RegistrationMetadata = append(in.RegistrationMetadata, types.RegistrationMetadataItem{Key: aws.String(nodeIDKey), Value: &id})
	}
	return in, nil
}

// severalTags finds a second KEY= behind a comma, which a tag's value may not hold by
// itself: a tag of several values (search,payments) has none.
var severalTags = regexp.MustCompile(`,\s*([^\s,=]+)=`)

// tagFlag reads KEY=VALUE.
func tagFlag(t string) (key, value string, err error) {
	key, value, ok := strings.Cut(t, "=")
	if !ok || key == "" {
		return "", "", usagef("--tag %q: want KEY=VALUE", t)
	}
	if second := severalTags.FindStringSubmatch(value); second != nil {
		return "", "", usagef("--tag %q holds a second tag, %s: repeat --tag for each one", t, second[1])
	}
	return key, value, nil
}

// jsonActivation is the file that agents read, as "aws ssm create-activation" prints it.
type jsonActivation struct {
	ID   string `json:"ActivationId"`
	Code string `json:"ActivationCode"`
}

func (p *program) createActivation(ctx context.Context, flags activationFlags) error {
	in, err := flags.input(time.Now())
	if err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	var file *os.File
	if flags.outputFile != "" { // before the code exists: it could not be shown again
		file, err = os.OpenFile(flags.outputFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("creating the activation file: %w", err)
		}
		defer file.Close()
	}
	out, err := api.SSM.CreateActivation(ctx, in)
	if err != nil {
		if file != nil {
			os.Remove(flags.outputFile)
		}
		return err
	}
	a := jsonActivation{ID: aws.ToString(out.ActivationId), Code: aws.ToString(out.ActivationCode)}
	switch {
	case file != nil:
		return writeActivation(file, a)
	case p.flags.json:
		return p.writeJSON(struct {
			ID   string `json:"id"`
			Code string `json:"code"`
		}{a.ID, a.Code})
	}
	_, err = fmt.Fprintf(p.stdout, "id    %s\ncode  %s\n", client.CleanLine(a.ID), client.CleanLine(a.Code))
	p.say("the code is not shown again")
	return err
}

func writeActivation(file *os.File, a jsonActivation) error {
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	if _, err := file.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("writing the activation file: %w", err)
	}
	return file.Close()
}

func (p *program) newActivationListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List activations",
		Example: "  sallyport activation list --json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := p.activations(cmd.Context())
			if err != nil {
				return err
			}
			return p.printActivations(list)
		},
	}
}

func (p *program) activations(ctx context.Context) ([]types.Activation, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	var list []types.Activation
	pages := ssm.NewDescribeActivationsPaginator(api.SSM, &ssm.DescribeActivationsInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, page.ActivationList...)
	}
	return list, nil
}

func (p *program) printActivations(list []types.Activation) error {
	type row struct {
		ID          string            `json:"id"`
		Name        string            `json:"name,omitempty"`
		Description string            `json:"description,omitempty"`
		Limit       int32             `json:"limit"`
		Count       int32             `json:"count"`
		Expires     time.Time         `json:"expires"`
		Expired     bool              `json:"expired"`
		Tags        map[string]string `json:"tags"`
	}
	rows := make([]row, 0, len(list))
	table := [][]string{{"ID", "NAME", "USED", "EXPIRES", "TAGS", "DESCRIPTION"}}
	for _, a := range list {
		tags := map[string]string{}
		for _, t := range a.Tags {
			tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
		}
		r := row{aws.ToString(a.ActivationId), aws.ToString(a.DefaultInstanceName), aws.ToString(a.Description),
			aws.ToInt32(a.RegistrationLimit), aws.ToInt32(a.RegistrationsCount), aws.ToTime(a.ExpirationDate), a.Expired, tags}
		rows = append(rows, r)
		expires := clock(r.Expires)
		if r.Expired {
			expires = "expired"
		}
		table = append(table, []string{r.ID, orDash(r.Name), fmt.Sprintf("%d/%d", r.Count, r.Limit), expires, orDash(tagText(tags)), r.Description})
	}
	if p.flags.json {
		return p.writeJSON(rows)
	}
	return p.writeTable(table)
}

func (p *program) newActivationDeleteCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "delete ID",
		Short:   "Delete an activation; its nodes stay",
		Example: "  sallyport activation delete 0a1b2c3d-4e5f-6789-abcd-ef0123456789",
		Args:    between(1, 1, "want the ID of an activation"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.confirm(yes, "Delete activation "+args[0]+"?", "nothing was deleted"); err != nil {
				return err
			}
			api, err := p.api(cmd.Context())
			if err != nil {
				return err
			}
			_, err = api.SSM.DeleteActivation(cmd.Context(), &ssm.DeleteActivationInput{ActivationId: &args[0]})
			return err
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
