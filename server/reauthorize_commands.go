package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/command"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/session"
)

// Commands that still run are decided on again as sessions are, by the member that
// schedules them, node by node: those that are refused are told to cancel.

// runsCommands is the part of command.Runner that a keeper needs.
type runsCommands interface {
	Driven() []string
	Cancel(ctx context.Context, id string, nodes []string, by string) error
}

const actionSendCommand = "ssm:SendCommand"

// commandAuthority is the question that a command was allowed on. The document is in its
// context, too.
func (c *Call) commandAuthority() authority {
	return authority{
		Principal: c.Principal.Claims(), KeyID: c.Principal.AccessKeyID, Document: c.Document, Context: c.Context,
		SourceIP: c.Origin.SourceIP, UserAgent: c.Origin.UserAgent, TLS: c.Origin.TLS, At: c.Origin.Time,
	}
}

// runner returns what runs commands; nil for nobody.
func (s *Server) runner() runsCommands {
	if s.config.Runner == nil || s.config.Commands == nil {
		return nil
	}
	return s.config.Runner
}

// decideCommands decides about the commands that this member schedules.
func (k *keeper) decideCommands(ctx context.Context, r *round, changed bool) error {
	runner := k.server.runner()
	if runner == nil {
		return nil
	}
	driven := runner.Driven()
	for id, s := range k.commands {
		if changed {
			s.decided = false
		}
		if !slices.Contains(driven, id) {
			delete(k.commands, id)
		}
	}
	var errs []error
	for _, id := range driven {
		if err := k.decideCommand(ctx, r, runner, id); err != nil && len(errs) < 3 {
			errs = append(errs, fmt.Errorf("command %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

func (k *keeper) decideCommand(ctx context.Context, r *round, runner runsCommands, id string) error {
	s := k.commands[id]
	if s == nil {
		c, err := k.server.config.Commands.Command(ctx, id)
		if errors.Is(err, command.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		s = k.server.keep(session.Session{ID: id, Authority: c.Authority})
		if s == nil {
			s = &kept{decided: true}
		}
		k.commands[id] = s
	}
	if due, err := r.due(ctx, s); err != nil || !due {
		return err
	}
	refused, all, cause, err := r.refusedNodes(ctx, id, s)
	if err != nil {
		return err
	}
	s.decided, s.at = true, r.now
	switch {
	case cause == nil:
		return nil
	case all:
		refused = nil // so that it is not sent to others either
	}
	if err := k.recordCancel(ctx, id, refused, cause); err != nil {
		k.server.log.Error("recording that a command is cancelled", "command", id, "error", err)
	}
	return runner.Cancel(ctx, id, refused, cause.Error())
}

// refusedNodes are the nodes on which a command still runs, or is to, and is not allowed
// any more. A cause says why; all says that it is allowed on none.
func (r *round) refusedNodes(ctx context.Context, id string, s *kept) (refused []string, all bool, cause *session.Cause, err error) {
	active, err := r.server.config.Commands.Invocations(ctx, command.InvocationFilter{CommandID: id, Active: true})
	if err != nil {
		return nil, false, nil, err
	}
	open := slices.DeleteFunc(active, func(i command.Invocation) bool { return i.Status == command.Cancelling })
	if len(open) == 0 {
		return nil, false, nil, nil
	}
	if s.unreadable {
		return nil, true, session.AccessEnded("", "what it was allowed on cannot be read any more"), nil
	}
	p, cause, err := r.person(ctx, s)
	if err != nil || cause != nil {
		return nil, true, cause, err
	}
	document, err := (&Call{Server: r.server}).documentResource(ctx, s.authority.Document)
	if err != nil {
		return nil, false, nil, err
	}
	var last *access.DeniedError
	for _, i := range open {
		denied, err := r.refusedOn(ctx, s, p, document, i.NodeID)
		if err != nil {
			return nil, false, nil, err
		}
		if denied != nil {
			refused, last = append(refused, i.NodeID), denied
		}
	}
	if len(refused) == 0 {
		return nil, false, nil, r.carriedBy(ctx, s, p)
	}
	if cause, err = r.ended(ctx, s.carried); cause == nil {
		cause = session.AccessEnded("", "a policy change took it away: "+last.Error())
	}
	return refused, len(refused) == len(open), cause, err
}

// refusedOn asks about one node.
func (r *round) refusedOn(ctx context.Context, s *kept, p identity.Principal, document access.Resource, id string) (*access.DeniedError, error) {
	n, err := r.node(ctx, id)
	if errors.Is(err, node.ErrNotFound) {
		return nil, nil // its commands end by themselves
	}
	if err != nil {
		return nil, err
	}
	j, err := r.judge(ctx, s, p, access.Moment{})
	if err != nil {
		return nil, err
	}
	q := s.authority.query(p, r.now)
	q.Action, q.Resources = actionSendCommand, []access.Resource{document, r.server.nodeResource(n)}
	return access.Denied(q, j.Decide(q)), nil
}

// carriedBy notes which grants a command's person has, and when the next of them ends.
func (r *round) carriedBy(ctx context.Context, s *kept, p identity.Principal) error {
	held, err := r.grants(ctx, s, p)
	if err != nil {
		return err
	}
	s.carried, s.deadline = nil, time.Time{}
	for _, g := range held {
		s.carried = append(s.carried, g.ID)
		if s.deadline.IsZero() || g.EndsAt.Before(s.deadline) {
			s.deadline = g.EndsAt
		}
	}
	j, err := r.judge(ctx, s, p, access.Moment{})
	if err == nil {
		s.timed = looksAtClock(j)
	}
	return err
}

func (k *keeper) recordCancel(ctx context.Context, id string, nodes []string, cause *session.Cause) error {
	_, err := k.server.config.Audit.Append(ctx, audit.Record{
		Time: k.server.config.Now(), Event: audit.EventChange, Action: "ssm:CancelCommand", Reason: cause.Error(),
		Resources: nodes, Details: map[string]string{"command_id": id, "grant": cause.Grant},
	})
	return err
}
