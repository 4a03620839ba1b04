package cli

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

type decideFlags struct {
	comment, code, hash string
	yes                 bool
}

func (p *program) newApproveCommand() *cobra.Command {
	var flags decideFlags
	cmd := &cobra.Command{
		Use:   "approve [ID]",
		Short: "Approve a request for access",
		Long: `Show a request for access, and approve it as far as you may. Without ID it is the only
one that waits for you.

What is approved is what was shown: the decision names the request's hash, and counts for
nothing else. --yes approves without asking; with --hash it does so only if the request is
the one that has this hash, which show --json tells.

Some stages want a second factor: --code gives the code of your authenticator.

Exit status: 0 if it was approved, 1 if refused or not confirmed, 2 for wrong usage.`,
		Example: `  sallyport approve oi-0123456789ab
  sallyport approve 0123 --comment 'until the build is green'
  sallyport approve oi-0123456789ab --yes --hash 3b1f…
  sallyport approve oi-0123456789ab --code 123456`,
		Args:              between(0, 1, "want the ID of a request"),
		ValidArgsFunction: p.completeRequests(statePending),
		RunE: func(cmd *cobra.Command, args []string) error {
			return interrupted(p.decide(cmd.Context(), args, true, flags))
		},
	}
	f := cmd.Flags()
	addDecideFlags(cmd, &flags)
	f.StringVar(&flags.code, "code", "", "`code` of your authenticator, where a second factor is needed")
	return cmd
}

func (p *program) newDenyCommand() *cobra.Command {
	var flags decideFlags
	cmd := &cobra.Command{
		Use:   "deny [ID]",
		Short: "Deny a request for access, which ends it",
		Long: `Show a request for access, and deny it: one word of anybody who may decide ends it.

Exit status: 0 if it was denied, 1 if refused or not confirmed, 2 for wrong usage.`,
		Example:           `  sallyport deny oi-0123456789ab --comment 'not on a Friday'`,
		Args:              between(0, 1, "want the ID of a request"),
		ValidArgsFunction: p.completeRequests(statePending),
		RunE: func(cmd *cobra.Command, args []string) error {
			return interrupted(p.decide(cmd.Context(), args, false, flags))
		},
	}
	addDecideFlags(cmd, &flags)
	cmd.Flags().StringVar(&flags.code, "code", "", "`code` of your authenticator, where a second factor is needed")
	return cmd
}

func addDecideFlags(cmd *cobra.Command, flags *decideFlags) {
	f := cmd.Flags()
	f.StringVar(&flags.comment, "comment", "", "a word on the decision, which the requester reads")
	f.StringVar(&flags.hash, "hash", "", "decide only if the request has this `hash`")
	f.BoolVarP(&flags.yes, "yes", "y", false, "do not ask")
}

func (p *program) decide(ctx context.Context, args []string, approve bool, flags decideFlags) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	req, err := p.toDecide(ctx, api, args, flags)
	if err != nil {
		return err
	}
	if err := sameHash(req, flags.hash); err != nil {
		return err
	}
	if !p.flags.json {
		fmt.Fprint(p.stderr, requestText(req))
	}
	if req.State != statePending {
		return &statusError{status: statusRefused, err: fmt.Errorf("there is nothing to decide: %s", outcome(req))}
	}
	if flags.comment, err = p.decisionComment(ctx, req, approve, flags); err != nil {
		return err
	}
	if err := p.confirm(flags.yes, map[bool]string{true: "Approve it?", false: "Deny it?"}[approve], "nothing was decided"); err != nil {
		return err
	}
	if api, err = withCode(ctx, api, flags.code); err != nil {
		return err
	}
	in := client.DecideInput{RequestID: req.RequestID, Hash: req.Hash, Comment: flags.comment}
	call := map[bool]func(context.Context, client.DecideInput) (*client.AccessRequest, error){true: api.ApproveRequest, false: api.DenyRequest}[approve]
	if req, err = call(ctx, in); err != nil {
		return err
	}
	return p.printStep(req)
}

// toDecide is the request that is named, or the only one that waits for the caller. That
// one is never decided on unseen.
func (p *program) toDecide(ctx context.Context, api *client.API, args []string, flags decideFlags) (*client.AccessRequest, error) {
	if len(args) > 0 {
		return p.requestNamed(ctx, api, args[0])
	}
	if flags.yes && flags.hash == "" {
		return nil, usagef("--yes: name the request, or give its --hash")
	}
	found, err := listRequests(ctx, api, client.ListAccessRequestsInput{ToDecide: true}, 50)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, &statusError{status: statusRefused, err: errors.New("no request waits for you")}
	case len(found) > 1:
		return nil, usagef("name a request: %s", shortList(idsOf(found), 8))
	}
	return api.GetAccessRequest(ctx, client.GetAccessRequestInput{RequestID: found[0].RequestID})
}

// sameHash refuses a request that is not the one which a script has read.
func sameHash(req *client.AccessRequest, hash string) error {
	if hash == "" || subtle.ConstantTimeCompare([]byte(strings.ToLower(hash)), []byte(req.Hash)) == 1 {
		return nil
	}
	return &statusError{status: statusRefused,
		err: fmt.Errorf("%s has the hash %s, which is not the one given; nothing was decided", client.CleanLine(req.RequestID), client.CleanLine(req.Hash))}
}

// decisionComment asks for a comment where one is needed and somebody can be asked.
func (p *program) decisionComment(ctx context.Context, req *client.AccessRequest, approve bool, flags decideFlags) (string, error) {
	if flags.comment != "" || flags.yes || !p.mayAsk() || req.Stage < 0 || req.Stage >= len(req.Stages) {
		return flags.comment, nil
	}
	when := req.Stages[req.Stage].Comment
	if when == "" || when == "on_deny" && approve {
		return "", nil
	}
	for {
		text, err := p.line(ctx, "Comment:")
		if err != nil {
			return "", err
		}
		if text != "" && typedText(text) == nil {
			return text, nil
		}
	}
}

// printStep tells how a request stands after a step.
func (p *program) printStep(req *client.AccessRequest) error {
	if p.flags.json {
		return p.writeJSON(requestJSON(req))
	}
	p.say("%s", outcome(req))
	if n := len(req.Extensions); n > 0 && req.Extensions[n-1].Until.IsZero() && req.Extensions[n-1].RequestID != "" && !req.Over() {
		p.say("more time is asked for by %s, which waits for a decision", client.CleanLine(req.Extensions[n-1].RequestID))
	}
	return nil
}
