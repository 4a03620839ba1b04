package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

// stepCommand is a command that takes one step of a request.
type stepCommand struct {
	use, short, long, example string
	step                      string
	question                  string // asked before, if any
	otherwise                 string // what is left where the answer is no
	optional                  bool   // ID may be left out: the caller's own in one of the states
	states                    []string
}

func (p *program) newStepCommand(s stepCommand, in *client.StepInput, prepare func(*client.AccessRequest) error) *cobra.Command {
	var yes bool
	least := 1
	if s.optional {
		least = 0
	}
	cmd := &cobra.Command{
		Use: s.use, Short: s.short, Long: s.long, Example: s.example,
		Args:              between(least, 1, "want the ID of a request"),
		ValidArgsFunction: p.completeRequests(s.states...),
		RunE: func(cmd *cobra.Command, args []string) error {
			return interrupted(p.step(cmd.Context(), s, args, in, prepare, yes))
		},
	}
	if s.question != "" {
		cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	}
	return cmd
}

func (p *program) step(ctx context.Context, s stepCommand, args []string, in *client.StepInput, prepare func(*client.AccessRequest) error, yes bool) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	var req *client.AccessRequest
	if len(args) == 0 {
		req, err = ownActive(ctx, api, s.states...)
	} else {
		req, err = p.requestNamed(ctx, api, args[0])
	}
	if err != nil {
		return err
	}
	if prepare != nil {
		if err := prepare(req); err != nil {
			return err
		}
	}
	if s.question != "" {
		if !p.flags.json {
			fmt.Fprint(p.stderr, requestText(req))
		}
		if err := p.confirm(yes, s.question, s.otherwise); err != nil {
			return err
		}
	}
	in.RequestID = req.RequestID
	if req, err = api.Step(ctx, s.step, *in); err != nil {
		return err
	}
	return p.printStep(req)
}

func (p *program) newCancelCommand() *cobra.Command {
	return p.newStepCommand(stepCommand{
		use: "cancel [ID]", short: "Take back a request of yours that is not decided",
		example: "  sallyport cancel\n  sallyport cancel oi-0123456789ab --yes",
		step:    client.CancelRequest, question: "Take it back?", otherwise: "nothing was taken back",
		optional: true, states: []string{statePending, stateApproved},
	}, &client.StepInput{}, nil)
}

func (p *program) newActivateCommand() *cobra.Command {
	return p.newStepCommand(stepCommand{
		use: "activate [ID]", short: "Begin the access of an approved request",
		long: `Begin the access of an approved request, whose time runs from now on. The first use of
what it gives begins it, too.`,
		example: "  sallyport activate\n  sallyport activate oi-0123456789ab",
		step:    client.ActivateRequest, optional: true, states: []string{stateApproved},
	}, &client.StepInput{}, nil)
}

func (p *program) newReleaseCommand() *cobra.Command {
	return p.newStepCommand(stepCommand{
		use: "release [ID]", short: "Give access back before its time is up",
		long: `Give access back before its time is up. What depends on it ends with it: sessions,
forwards, credentials.`,
		example: "  sallyport release\n  sallyport release oi-0123456789ab --yes",
		step:    client.ReleaseRequest, question: "Give it back? Sessions that depend on it end.", otherwise: "nothing was given back",
		optional: true, states: []string{stateActive, stateApproved},
	}, &client.StepInput{}, nil)
}

func (p *program) newRevokeCommand() *cobra.Command {
	in := &client.StepInput{}
	cmd := p.newStepCommand(stepCommand{
		use: "revoke ID", short: "Take access away from somebody at once",
		long: `Take access away from somebody at once: what depends on it ends within seconds. Those
may who decide on such requests, and whom a policy lets do sallyport:RevokeRequest.`,
		example: "  sallyport revoke oi-0123456789ab --reason 'the incident is over'",
		step:    client.RevokeRequest, question: "Take it away? Sessions that depend on it end.", otherwise: "nothing was taken away",
		states: []string{statePending, stateActive, stateApproved},
	}, in, func(*client.AccessRequest) error {
		if strings.TrimSpace(in.Reason) == "" {
			return usagef("--reason is missing: say why; it is kept, and told to who had the access")
		}
		return nil
	})
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why (256 characters)")
	return cmd
}

func (p *program) newExtendCommand() *cobra.Command {
	in := &client.StepInput{}
	var duration string
	cmd := p.newStepCommand(stepCommand{
		use: "extend [ID]", short: "Ask for more time before access ends",
		long: `Ask for more time before access ends, as far as its flow has it. Without ID it is your
only one that is active. Where extensions are decided on, too, the access goes on as it
was until they are.`,
		example: "  sallyport extend\n  sallyport extend oi-0123456789ab --duration 30m --reason 'still at it'",
		step:    client.ExtendRequest, optional: true, states: []string{stateActive},
	}, in, func(*client.AccessRequest) error {
		if duration == "" {
			return nil
		}
		d, err := parseLength(duration)
		if err != nil {
			return usagef("--duration %w", err)
		}
		in.Seconds = int64(d / time.Second)
		return nil
	})
	cmd.Flags().StringVar(&duration, "duration", "", "how much `longer`; what the flow has, unless given")
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why (256 characters)")
	return cmd
}

func (p *program) newDelegateCommand() *cobra.Command {
	in := &client.StepInput{}
	cmd := p.newStepCommand(stepCommand{
		use: "delegate ID --to USER", short: "Let somebody else decide in your place",
		long:    "Let somebody else decide on a request in your place, where its flow allows that.",
		example: "  sallyport delegate oi-0123456789ab --to bob",
		step:    client.DelegateRequest, states: []string{statePending},
	}, in, func(*client.AccessRequest) error {
		if in.To == "" {
			return usagef("--to is missing: name the user who is to decide")
		}
		return nil
	})
	cmd.Flags().StringVar(&in.To, "to", "", "`user` who decides in your place")
	return cmd
}

func (p *program) newReviewCommand() *cobra.Command {
	in := &client.StepInput{}
	cmd := p.newStepCommand(stepCommand{
		use: "review ID --outcome OUTCOME", short: "Close the review of a break-glass grant",
		long: `Close the review of access that was taken in an emergency, without asking first.
sallyport requests --review lists those that are open. Nobody reviews their own.`,
		example: "  sallyport review oi-0123456789ab --outcome justified --reason 'the incident is OPS-12'",
		step:    client.ReviewRequest,
	}, in, func(*client.AccessRequest) error {
		if in.Outcome != "justified" && in.Outcome != "unjustified" {
			return usagef("--outcome %q: want justified or unjustified", in.Outcome)
		}
		return nil
	})
	cmd.Flags().StringVar(&in.Outcome, "outcome", "", "`justified` or unjustified")
	cmd.Flags().StringVar(&in.Reason, "reason", "", "what was found")
	return cmd
}
