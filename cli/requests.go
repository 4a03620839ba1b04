package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

type requestsFlags struct {
	mine, toDecide, all, review bool
	states                      []string
	person, flow                string
	limit                       int
}

// requestStates are the states of requests.
var requestStates = []string{statePending, stateApproved, stateActive, "Denied", "Cancelled", "Expired", "Lapsed", "Released", "Revoked", "Ended"}

func (p *program) newRequestsCommand() *cobra.Command {
	var flags requestsFlags
	cmd := &cobra.Command{
		Use:   "requests",
		Short: "List requests for access, newest first",
		Long: `List requests for access: your own and those that you may decide on, as long as they
are open. --all lists those that have ended, too, and those of others whom you may see.`,
		Example: `  sallyport requests
  sallyport requests --to-decide
  sallyport requests --all --person carol --limit 20
  sallyport requests --state Revoked --state Denied --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.requests(cmd.Context(), flags)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&flags.mine, "mine", false, "only your own")
	f.BoolVar(&flags.toDecide, "to-decide", false, "only those that wait for you")
	f.BoolVarP(&flags.all, "all", "a", false, "those that have ended, too")
	f.BoolVar(&flags.review, "review", false, "only those whose use is still to be reviewed (break-glass)")
	f.StringArrayVar(&flags.states, "state", nil, "only those in this `state`: "+strings.Join(requestStates, ", "))
	f.StringVar(&flags.person, "person", "", "only those of this `user`")
	f.StringVar(&flags.flow, "flow", "", "only those of this `flow`")
	f.IntVar(&flags.limit, "limit", 50, "at most so many")
	cmd.MarkFlagsMutuallyExclusive("mine", "to-decide")
	cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(requestStates, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("flow", p.completeFlows)
	return cmd
}

func (p *program) requests(ctx context.Context, flags requestsFlags) error {
	in, err := flags.input()
	if err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	found, err := listRequests(ctx, api, in, flags.limit)
	if err != nil {
		return err
	}
	return p.printRequests(found)
}

// input is what the flags select.
func (f requestsFlags) input() (client.ListAccessRequestsInput, error) {
	in := client.ListAccessRequestsInput{Mine: f.mine, ToDecide: f.toDecide, Person: f.person, Flow: f.flow, Review: f.review}
	if f.limit < 1 {
		return in, usagef("--limit %d: want 1 or more", f.limit)
	}
	for _, s := range f.states {
		i := slices.IndexFunc(requestStates, func(known string) bool { return strings.EqualFold(known, s) })
		if i < 0 {
			return in, usagef("--state %q: want %s", s, strings.Join(requestStates, ", "))
		}
		in.States = append(in.States, requestStates[i])
	}
	if len(in.States) == 0 && !f.all && !f.review {
		in.States = []string{statePending, stateApproved, stateActive}
	}
	return in, nil
}

func listRequests(ctx context.Context, api *client.API, in client.ListAccessRequestsInput, limit int) ([]client.AccessRequest, error) {
	in.Limit = min(limit, 100)
	var found []client.AccessRequest
	for range maxPages {
		out, err := api.ListAccessRequests(ctx, in)
		if err != nil {
			return nil, err
		}
		found = append(found, out.Requests...)
		if in.NextToken = out.NextToken; in.NextToken == "" || len(found) >= limit {
			break
		}
	}
	return found[:min(limit, len(found))], nil
}

func (p *program) printRequests(found []client.AccessRequest) error {
	if p.flags.json {
		all := make([]jsonRequest, len(found))
		for i := range found {
			all[i] = requestJSON(&found[i])
		}
		return p.writeJSON(all)
	}
	rows := [][]string{{"ID", "STATE", "WHO", "FLOW", "GIVES", "FOR", "ASKED", "UNTIL", "REASON"}}
	for i := range found {
		rows = append(rows, requestRow(&found[i]))
	}
	if err := p.writeTable(rows); err != nil {
		return err
	}
	if slices.ContainsFunc(found, func(r client.AccessRequest) bool { return r.MayDecide }) {
		p.hint("sallyport approve ID and sallyport deny ID decide those in the state Pending (decide)")
	}
	return nil
}

func requestRow(r *client.AccessRequest) []string {
	state := r.State
	if r.MayDecide {
		state += " (decide)"
	}
	return []string{r.RequestID, state, r.Person, r.Flow, orDash(gives(r)), lengthText(time.Duration(r.Seconds) * time.Second),
		clock(r.Created.Time), clock(until(r)), cut(client.CleanLine(r.Reason), 40)}
}

func gives(r *client.AccessRequest) string {
	if of := r.Values[valueExtends]; len(of) > 0 {
		return "more time for " + of[0]
	}
	words := givesText(r.Targets)
	if names := nodeNames(r.Nodes); len(names) > 0 {
		words += " on " + shortList(names, 2)
	}
	return words
}

// valueExtends is where a request for more time says for which one.
const valueExtends = "extends"

// until is when something ends by itself: the waiting, or the grant.
func until(r *client.AccessRequest) time.Time {
	switch r.State {
	case statePending:
		return r.PendingUntil.Time
	case stateApproved:
		return r.ActivateBy.Time
	case stateActive:
		return r.EndsAt.Time
	}
	return r.EndedAt.Time
}

// requestID is how ids of requests look, and requestPart what may stand for one: a
// beginning, with or without oi-.
var (
	requestID   = regexp.MustCompile(`^oi-[0-9a-f]{12}$`)
	requestPart = regexp.MustCompile(`^(?:oi-)?[0-9a-f]{0,12}$`)
)

// requestNamed finds the one request that an id, or a unique beginning of one, names.
func (p *program) requestNamed(ctx context.Context, api *client.API, name string) (*client.AccessRequest, error) {
	id := strings.ToLower(strings.TrimSpace(name))
	if id == "" || !requestPart.MatchString(id) {
		return nil, usagef("%q: want a request's id, such as oi-0123456789ab, or a unique beginning of one", name)
	}
	if !strings.HasPrefix(id, "oi-") {
		id = "oi-" + id
	}
	if !requestID.MatchString(id) {
		var err error
		if id, err = wholeID(ctx, api, id); err != nil {
			return nil, err
		}
	}
	return api.GetAccessRequest(ctx, client.GetAccessRequestInput{RequestID: id})
}

// maxLookedThrough bounds the requests among which the beginning of an id is looked for.
const maxLookedThrough = 1000

func wholeID(ctx context.Context, api *client.API, beginning string) (string, error) {
	all, err := listRequests(ctx, api, client.ListAccessRequestsInput{}, maxLookedThrough)
	if err != nil {
		return "", err
	}
	var fits []string
	for _, r := range all {
		if strings.HasPrefix(r.RequestID, beginning) && requestID.MatchString(r.RequestID) {
			fits = append(fits, r.RequestID)
		}
	}
	switch len(fits) {
	case 1:
		return fits[0], nil
	case 0:
		return "", &statusError{status: statusRefused, err: fmt.Errorf("no request that you may see begins with %s", beginning)}
	}
	return "", usagef("%s fits several requests: %s", beginning, shortList(fits, 8))
}

// completeRequests offers open requests.
func (p *program) completeRequests(states ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completePatience)
		defer cancel()
		api, err := p.api(ctx)
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, err := listRequests(ctx, api, client.ListAccessRequestsInput{States: states}, 100)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var ids []string
		for _, r := range found {
			ids = append(ids, cobra.CompletionWithDesc(client.CleanLine(r.RequestID), client.CleanLine(r.Person+": "+r.Flow)))
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}

// ownActive finds the caller's own request that is active, where there is one only.
func ownActive(ctx context.Context, api *client.API, states ...string) (*client.AccessRequest, error) {
	found, err := listRequests(ctx, api, client.ListAccessRequestsInput{Mine: true, States: states}, 50)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 1:
		return &found[0], nil
	case len(found) == 0:
		return nil, &statusError{status: statusRefused, err: errors.New("you hold no access that was asked for")}
	}
	return nil, usagef("name a request: %s", shortList(idsOf(found), 8))
}

// idsOf names requests.
func idsOf(found []client.AccessRequest) []string {
	ids := make([]string, len(found))
	for i, r := range found {
		ids[i] = r.RequestID + " (" + r.Person + ", " + r.Flow + ")"
	}
	return ids
}
