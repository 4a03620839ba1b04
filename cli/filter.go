package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

// addWhose adds the flags that say of which node and of whom sessions, or their recordings,
// are wanted.
func (p *program) addWhose(cmd *cobra.Command, node, owner *string) {
	f := cmd.Flags()
	f.StringVar(node, "node", "", "only those on the node with this `id or name`")
	f.StringVar(owner, "owner", "", "only those of this `principal`: an ARN, as tables show it, or a user's name")
	f.StringVar(owner, "user", "", "the same as --owner")
	cmd.MarkFlagsMutuallyExclusive("owner", "user")
	cmd.RegisterFlagCompletionFunc("node", p.completeNodes)
}

// whose resolves what the flags of addWhose name.
func (p *program) whose(ctx context.Context, node, owner string) (id, arn string, err error) {
	if id, err = p.nodeFilter(ctx, node); err != nil {
		return "", "", err
	}
	arn, err = p.ownerFilter(ctx, owner)
	return id, arn, err
}

// nodeFilter makes the id of what --node names. An id is taken as it is: the node may
// be gone, and what is asked about it not.
func (p *program) nodeFilter(ctx context.Context, node string) (id string, err error) {
	if node == "" {
		return "", nil
	}
	n, err := p.resolve(ctx, []string{node})
	return n.NodeID, err
}

// ownerFilter makes the ARN of what --owner names: an ARN, the part of one that tables
// show (user/alice, assumed-role/NAME/SESSION), or a user's name.
func (p *program) ownerFilter(ctx context.Context, owner string) (arn string, err error) {
	if owner == "" || strings.HasPrefix(owner, "arn:") {
		return owner, nil
	}
	kind, rest, found := strings.Cut(owner, "/")
	if !found {
		kind, rest = "user", owner
	}
	service := map[string]string{"user": "iam", "assumed-role": "sts"}[kind]
	if service == "" || rest == "" {
		return "", usagef("--owner %q: want an ARN, user/NAME, assumed-role/ROLE/SESSION or a user's name", owner)
	}
	if kind == "assumed-role" && !strings.Contains(rest, "/") {
		return "", usagef("--owner %q: want assumed-role/ROLE/SESSION; each session of a role is an owner of its own", owner)
	}
	me, err := p.whoami(ctx)
	if err != nil {
		return "", err
	}
	partition := "aws"
	if parts := strings.SplitN(me.Principal, ":", 3); len(parts) == 3 && parts[0] == "arn" {
		partition = parts[1]
	}
	return "arn:" + partition + ":" + service + "::" + me.Account + ":" + kind + "/" + rest, nil
}

// whoami asks the server, or AWS, who the caller is.
func (p *program) whoami(ctx context.Context) (*client.GetStatusOutput, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	s, err := api.GetStatus(ctx)
	if errors.Is(err, client.ErrNotSallyport) {
		aws, awsErr := awsStatus(ctx, api)
		return aws, fallback(err, awsErr)
	}
	return s, err
}
