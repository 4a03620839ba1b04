package server

import (
	"context"
	"errors"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/session"
)

// deciderNames is how many of those who may decide a person is told.
const deciderNames = 5

// MoreTime implements session.Keeper: it asks for more time for the grant that a session
// hangs on, as "sallyport extend" does, in the name of the session's person.
func (k *keeper) MoreTime(ctx context.Context, v session.Session, d session.Deadline) (text string, again bool) {
	s := k.server
	if s.access == nil || d.Grant == "" {
		return "There is no grant to ask more time for.", false
	}
	a, err := k.actor(ctx, v)
	if err != nil {
		s.log.Error("asking for more time", "session", v.ID, "error", err)
		return "It cannot be asked for more time just now. Press Ctrl-] to try again.", true
	}
	req, err := s.access.Extend(ctx, a, d.Grant, 0, "asked in session "+v.ID)
	if err != nil {
		return k.notAsked(v, d, err)
	}
	pending, err := s.pendingOf(ctx, d.Grant, req)
	if err != nil {
		s.log.Error("reading a request for more time", "session", v.ID, "error", err)
		return "More time was asked for.", false
	}
	k.lookSoon()
	if pending == nil {
		return "", false // the new deadline tells
	}
	k.mu.Lock()
	k.asked[v.ID] = pending.ID
	k.sessions.Asked(v.ID, pending.ID)
	k.mu.Unlock()
	return s.askedText(ctx, *pending), false
}

// actor is who asks: the person of a session, as they are now.
func (k *keeper) actor(ctx context.Context, v session.Session) (grant.Actor, error) {
	kept := k.server.keep(v)
	if kept == nil || kept.unreadable {
		return grant.Actor{}, errors.New("what the session was allowed on cannot be read")
	}
	p, err := newRound(k.server).restore(ctx, kept)
	channel := "cli"
	if kept.authority.UserAgent == "" || strings.HasPrefix(kept.authority.UserAgent, "SSH-") {
		channel = "ssh"
	}
	return grant.Actor{Principal: p, Channel: channel, SourceIP: kept.authority.SourceIP, UserAgent: kept.authority.UserAgent}, err
}

// notAsked says why more time could not be asked for.
func (k *keeper) notAsked(v session.Session, d session.Deadline, err error) (text string, again bool) {
	var refused *grant.RefusedError
	var field *flow.FieldError
	var denied *access.DeniedError
	switch {
	case errors.As(err, &refused), errors.As(err, &field), errors.Is(err, grant.ErrState), errors.As(err, &denied):
		why := strings.TrimSuffix(shown(err.Error()), ".")
		if !strings.HasPrefix(why, "because ") {
			why = "because " + why
		}
		return "More time for grant " + d.Grant + " was refused " + why + ".", false
	}
	k.server.log.Error("asking for more time", "session", v.ID, "error", err)
	return "It cannot be asked for more time just now. Press Ctrl-] to try again.", true
}

// pendingOf is the request that decides on an extension which Extend has answered; nil
// where nobody has to.
func (s *Server) pendingOf(ctx context.Context, id string, answered grant.Request) (*grant.Request, error) {
	if answered.ID != id {
		if answered.State != grant.Pending {
			return nil, nil
		}
		return &answered, nil
	}
	if n := len(answered.Extensions); n > 0 {
		if last := answered.Extensions[n-1]; last.Until.IsZero() && last.Request != "" {
			pending, err := s.access.Request(ctx, last.Request)
			return &pending, err
		}
	}
	return nil, nil
}

// askedText says who was asked.
func (s *Server) askedText(ctx context.Context, r grant.Request) string {
	people, err := s.access.Deciders(ctx, r, deciderNames)
	if err != nil {
		s.log.Warn("listing who may decide", "request", r.ID, "error", err)
	}
	names := make([]string, len(people))
	for i, p := range people {
		names[i] = shown(p.Name)
	}
	if len(names) == 0 {
		return "More time was asked for: " + r.ID + "."
	}
	return "Asked " + strings.Join(names, ", ") + " for more time: " + r.ID + "."
}

// tellAsked tells people that their request for more time was not granted. That it was,
// their new deadline tells.
func (k *keeper) tellAsked(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for session, id := range k.asked {
		r, err := k.server.access.Request(ctx, id)
		if err != nil || r.State == grant.Pending {
			continue
		}
		delete(k.asked, session)
		k.sessions.Asked(session, "")
		if text := refusedText(r); text != "" {
			k.sessions.Tell(session, text)
		}
	}
}

// refusedText says what became of a request for more time that nobody granted.
func refusedText(r grant.Request) string {
	switch r.State {
	case grant.Denied:
		by, comment := nameOf(r.EndedBy), shown(r.Because)
		if n := len(r.Decisions); n > 0 && !r.Decisions[n-1].Approve {
			last := r.Decisions[n-1]
			by, comment = shown(last.By.Name+last.Rule), shown(last.Comment)
		}
		if comment != "" {
			by += ": " + strings.TrimSuffix(comment, ".")
		}
		return "More time was denied by " + by + " (" + r.ID + ")."
	case grant.Expired:
		return "Nobody decided on more time (" + r.ID + ")."
	case grant.Cancelled, grant.Revoked:
		return "The request for more time was taken back (" + r.ID + ")."
	}
	return ""
}
