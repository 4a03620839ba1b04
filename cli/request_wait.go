package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/smithy-go"

	"sallyport.dev/client"
)

// States of requests, as the server has them.
const (
	statePending  = "Pending"
	stateApproved = "Approved"
	stateActive   = "Active"
)

const (
	// pollWait is how long one question about a request waits for news, in seconds, and
	// pollPatience bounds it with the way there and back.
	pollWait     = 20
	pollPatience = 45 * time.Second
	// maxPollFailures bounds the failures in a row after which a request is not watched
	// any more.
	maxPollFailures = 8
)

// await waits until a request is decided and shows meanwhile how it stands. Ctrl-C stops
// the waiting, and leaves the request as it is.
func (p *program) await(ctx context.Context, api *client.API, req *client.AccessRequest) (*client.AccessRequest, error) {
	ctx, stop := untilInterrupted(ctx)
	defer stop()
	view := newWaitView(p, req)
	defer view.clear()
	news := make(chan polled, 1)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	failures := 0
	for req.State == statePending {
		polling, cancel := context.WithTimeout(ctx, pollPatience)
		go func(after int64) { // ends with its context
			next, err := api.GetAccessRequest(polling, client.GetAccessRequestInput{RequestID: req.RequestID, After: after, Wait: pollWait})
			news <- polled{next, err}
		}(req.Revision)
		got := view.until(ticker.C, news)
		cancel()
		switch {
		case ctx.Err() != nil:
			view.clear()
			return req, p.leftPending(req, context.Cause(ctx))
		case got.err == nil:
			req, failures = got.req, 0
			view.update(req)
		case isFinalPoll(got.err) || failures >= maxPollFailures:
			view.clear()
			p.hint("the request stays as it is; sallyport show " + client.CleanLine(req.RequestID) + " tells how it stands")
			return req, fmt.Errorf("waiting for %s: %w", client.CleanLine(req.RequestID), got.err)
		default:
			failures++
			if sleep(ctx, time.Duration(failures)*time.Second/2) != nil {
				continue
			}
		}
	}
	return req, nil
}

// polled is what one question about a request brought.
type polled struct {
	req *client.AccessRequest
	err error
}

// isFinalPoll reports whether asking again about a request is of no use.
func isFinalPoll(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && final(err)
}

// leftPending tells a person who stopped waiting what becomes of the request.
func (p *program) leftPending(req *client.AccessRequest, cause error) error {
	id := client.CleanLine(req.RequestID)
	p.say("%s goes on waiting for a decision, until %s", id, clock(req.PendingUntil.Time))
	p.hint("sallyport show " + id + " tells how it stands; sallyport cancel " + id + " takes it back")
	if errors.Is(cause, errInterrupted) {
		return &statusError{status: statusInterrupted}
	}
	return cause
}

// waitView shows a request that is waited for: on a terminal a line that is drawn anew
// each second, elsewhere a line for each step.
type waitView struct {
	p     *program
	req   *client.AccessRequest
	live  bool
	drawn bool
	told  int // decisions
}

func newWaitView(p *program, req *client.AccessRequest) *waitView {
	v := &waitView{p: p, req: req, live: isTerminal(p.stderr) && !p.flags.json, told: len(req.Decisions)}
	v.draw()
	return v
}

// until shows the time going by until there are news. Whoever polls answers soon after
// its context ends.
func (v *waitView) until(tick <-chan time.Time, news <-chan polled) polled {
	for {
		select {
		case got := <-news:
			return got
		case <-tick:
			v.draw()
		}
	}
}

func (v *waitView) draw() {
	if v.live {
		writeStatus(v.p.stderr, waitLine(v.req, time.Now()))
		v.drawn = true
	}
}

func (v *waitView) clear() {
	if v.drawn {
		writeStatus(v.p.stderr, "")
		fmt.Fprint(v.p.stderr, "\r")
		v.drawn = false
	}
}

// update tells of decisions that came since.
func (v *waitView) update(req *client.AccessRequest) {
	v.req = req
	if v.p.flags.json {
		return
	}
	for _, d := range req.Decisions[min(v.told, len(req.Decisions)):] {
		v.clear()
		v.p.say("%s", decisionText(d))
	}
	v.told = len(req.Decisions)
	if req.State == statePending {
		v.draw()
	}
}

// waitLine is how a pending request stands, in a line.
func waitLine(req *client.AccessRequest, now time.Time) string {
	line := "waiting for " + decidersText(req)
	if left := req.PendingUntil.Sub(now); !req.PendingUntil.IsZero() && left > 0 {
		line += "; " + lengthText(left.Truncate(time.Second)) + " left"
	}
	return line + "; Ctrl-C stops waiting"
}

// decidersText says who decides now.
func decidersText(req *client.AccessRequest) string {
	if req.Stage < 0 || req.Stage >= len(req.Stages) {
		return "a decision"
	}
	stage := req.Stages[req.Stage]
	words := client.CleanLine(stage.Deciders)
	if len(stage.People) > 0 {
		words += " (" + shortList(stage.People, 5) + ")"
	}
	if stage.Approvals > 1 {
		words = fmt.Sprintf("%d of %s, %d so far", stage.Approvals, words, approvalsOf(req, req.Stage))
	}
	if len(req.Stages) > 1 {
		words = fmt.Sprintf("stage %d of %d: %s", req.Stage+1, len(req.Stages), words)
	}
	return words
}

func approvalsOf(req *client.AccessRequest, stage int) int {
	n := 0
	for _, d := range req.Decisions {
		if d.Stage == stage && d.Approve && d.Struck == "" {
			n++
		}
	}
	return n
}

// shortList names the first of many.
func shortList(names []string, most int) string {
	if len(names) <= most {
		return list(names)
	}
	return list(names[:most]) + fmt.Sprintf(" and %d more", len(names)-most)
}

// waitingWords say what is waited for.
func waitingWords(req *client.AccessRequest) string {
	return client.CleanLine(req.RequestID) + " asks for " + askedFor(req) + "; " + decidersText(req) + " may decide"
}

// askedFor is what a request asks for: role FrontEndSSHAccess for 30m.
func askedFor(req *client.AccessRequest) string {
	if of := req.Values[valueExtends]; len(of) > 0 {
		return lengthText(time.Duration(req.Seconds)*time.Second) + " more for " + client.CleanLine(of[0])
	}
	words := client.CleanLine(givesText(req.Targets))
	if words == "" {
		words = "flow " + client.CleanLine(req.Flow)
	}
	if names := nodeNames(req.Nodes); len(names) > 0 {
		words += " on " + shortList(names, 5)
	}
	return words + " for " + lengthText(time.Duration(req.Seconds)*time.Second)
}

func nodeNames(nodes []client.AccessNode) []string {
	var names []string
	for _, n := range nodes {
		if n.Name != "" {
			names = append(names, n.Name)
		} else {
			names = append(names, n.NodeID)
		}
	}
	return names
}

// outcome says how a request stands, in a sentence.
func outcome(req *client.AccessRequest) string {
	words := client.CleanLine(req.RequestID)
	switch req.State {
	case statePending:
		return words + " waits for " + decidersText(req)
	case stateApproved:
		words += " is approved" + by(req, true) + "; it begins with its first use"
		if !req.ActivateBy.IsZero() {
			words += ", until " + clock(req.ActivateBy.Time)
		}
		return words
	case stateActive:
		return words + " is approved" + by(req, true) + " and holds until " + clock(req.EndsAt.Time)
	case "Denied":
		words += " was denied" + by(req, false)
	default:
		words += " has ended: " + strings.ToLower(client.CleanLine(req.State))
	}
	if req.Because != "" {
		words += ": " + client.CleanLine(req.Because)
	}
	return words
}

// by names who approved or denied.
func by(req *client.AccessRequest, approve bool) string {
	var names []string
	for _, d := range req.Decisions {
		if d.Approve == approve && d.Struck == "" {
			names = append(names, d.By)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " by " + list(names)
}

func decisionText(d client.AccessDecision) string {
	verb := map[bool]string{true: "approved", false: "denied"}[d.Approve]
	text := client.CleanLine(d.By) + " " + verb
	if d.Comment != "" {
		text += ": " + client.CleanLine(d.Comment)
	}
	if d.Struck != "" {
		text += " (does not count: " + client.CleanLine(d.Struck) + ")"
	}
	return text
}
