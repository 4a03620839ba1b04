package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/session"
)

// keeper decides again about the sessions that this member relays, whenever something
// has changed that they were decided on, however and through whichever member that
// happened: identities and policies, grants, tags of nodes. What is not allowed any more
// ends; what hangs on a grant is told when that will be.
//
// Nothing here is an attempt of anybody's, so that decisions leave no audit records; ends
// do.
type keeper struct {
	server   *Server
	sessions liveSessions
	every    time.Duration
	patience time.Duration // see blindFor
	cancel   context.CancelFunc
	ended    chan struct{}
	wake     chan struct{} // look at once; holds one

	// Of the goroutine that looks.
	seen     revisions
	opened   int64
	kept     map[string]*kept // by session
	commands map[string]*kept // by command
	blind    time.Time        // since when nothing could be read; zero while it can

	mu    sync.Mutex
	asked map[string]string // by session, the request for more time that waits
}

// liveSessions is the part of session.Gateway that a keeper keeps.
type liveSessions interface {
	Live() []session.Session
	Opened() int64
	SetDeadline(id string, d session.Deadline)
	Tell(id, text string)
	Asked(id, request string)
	Terminate(ctx context.Context, id string, cause *session.Cause) error
	Keep(k session.Keeper)
}

// kept is what a keeper knows of a session.
type kept struct {
	node       string
	authority  authority
	unreadable bool      // the authority is not what it was
	principal  string    // who it was, as JSON: the same for sessions of one
	carried    []string  // ids of the grants that it hung on when last decided
	deadline   time.Time // when it loses them; zero for never
	timed      bool      // a policy asks for the time of day
	decided    bool      // since the last change
	at         time.Time // of the last decision
	blind      time.Time // since when it could not be decided
}

// revisions tell whether anything has changed.
type revisions struct{ identities, grants, nodes int64 }

const (
	// keepEvery is how often a member looks for changes: one read of three rows.
	keepEvery = 500 * time.Millisecond
	keepRead  = 10 * time.Second
	// timedEvery is how often those are decided on whose policies ask for the time.
	timedEvery = 4 * time.Second
	// blindFor is how long sessions go on while the store cannot be read, and with it
	// whether they may: as long as databases take to fail over. Whoever revokes something
	// meanwhile does so through a member that can.
	blindFor = 2 * time.Minute
)

func watchSessions(s *Server, sessions liveSessions, every time.Duration) *keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keeper{
		server: s, sessions: sessions, every: every, patience: blindFor, cancel: cancel,
		ended: make(chan struct{}), wake: make(chan struct{}, 1),
		kept: map[string]*kept{}, commands: map[string]*kept{}, asked: map[string]string{},
	}
	sessions.Keep(k)
	go k.run(ctx)
	return k
}

// close stops looking and waits for the end of it.
func (k *keeper) close() {
	if k != nil {
		k.cancel()
		<-k.ended
	}
}

// lookSoon makes the keeper look now.
func (k *keeper) lookSoon() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) run(ctx context.Context) {
	defer close(k.ended)
	tick := time.NewTicker(k.every)
	defer tick.Stop()
	for {
		if err := k.look(ctx); err != nil && ctx.Err() == nil {
			k.server.log.Warn("looking whether sessions are still allowed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-k.wake:
		}
	}
}

// look decides again about what may have changed.
func (k *keeper) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keepRead)
	defer cancel()
	opened := k.sessions.Opened() // before the list, which has them all
	if opened == 0 && !k.runsCommands() {
		return nil
	}
	now, err := k.server.revisions(ctx)
	if err != nil {
		k.blinded(ctx)
		return err
	}
	k.blind = time.Time{}
	if now != k.seen {
		for _, s := range k.kept {
			s.decided = false
		}
	}
	grantsChanged := now.grants != k.seen.grants
	r := newRound(k.server)
	if opened != k.opened || now != k.seen {
		k.refresh()
	}
	err = errors.Join(k.decide(ctx, r), k.decideCommands(ctx, r, now != k.seen))
	if grantsChanged {
		k.tellAsked(ctx)
	}
	k.seen, k.opened = now, opened
	return err
}

func (k *keeper) runsCommands() bool {
	runner := k.server.runner()
	return runner != nil && len(runner.Driven())+len(k.commands) > 0
}

// revisions reads what tells of changes. It is read before what they count: a change in
// between is looked at once more.
func (s *Server) revisions(ctx context.Context) (r revisions, err error) {
	if r.identities, err = s.config.Identities.Revision(ctx); err != nil {
		return r, err
	}
	if nodes, ok := s.config.Nodes.(interface {
		NodeRevision(ctx context.Context) (int64, error)
	}); ok {
		if r.nodes, err = nodes.NodeRevision(ctx); err != nil {
			return r, err
		}
	}
	if s.access != nil {
		r.grants, err = s.access.Revision(ctx)
	}
	return r, err
}

// refresh makes kept those sessions that live.
func (k *keeper) refresh() {
	live := map[string]bool{}
	for _, v := range k.sessions.Live() {
		live[v.ID] = true
		if k.kept[v.ID] == nil {
			k.kept[v.ID] = k.server.keep(v)
		}
	}
	maps.DeleteFunc(k.kept, func(id string, s *kept) bool { return s == nil || !live[id] })
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.asked, func(id, _ string) bool { return !live[id] })
}

// keep reads what a session was allowed on; nil for one that nobody asks about.
func (s *Server) keep(v session.Session) *kept {
	if v.Authority == "" {
		return nil
	}
	a, err := decodeAuthority(v.Authority)
	if err != nil {
		s.log.Error("deciding again", "session", v.ID, "error", err)
	}
	claims, _ := json.Marshal(a.Principal) // strings and times
	return &kept{node: v.NodeID, authority: a, unreadable: err != nil, principal: string(claims), carried: a.Grants}
}

// decide decides about every session for which something may have changed.
func (k *keeper) decide(ctx context.Context, r *round) error {
	var errs []error
	for id, s := range k.kept {
		due, err := r.due(ctx, s)
		if err == nil && due {
			err = k.decideOne(ctx, r, id, s)
		}
		if err != nil && len(errs) < 3 { // one store, one error
			errs = append(errs, fmt.Errorf("session %s: %w", id, err))
		}
		if err != nil {
			k.undecided(ctx, r, id, s)
		}
	}
	return errors.Join(errs...)
}

func (k *keeper) decideOne(ctx context.Context, r *round, id string, s *kept) error {
	v, err := r.verdict(ctx, s)
	if err != nil {
		return err
	}
	s.decided, s.blind, s.timed, s.at = true, time.Time{}, v.timed, r.now
	if v.cause != nil {
		return k.sessions.Terminate(ctx, id, v.cause)
	}
	s.carried = v.carried
	s.deadline = v.deadline.At
	k.sessions.SetDeadline(id, v.deadline)
	return nil
}

// blinded ends all sessions once it has been too long that nobody could tell whether
// they are allowed.
func (k *keeper) blinded(ctx context.Context) {
	now := k.server.config.Now()
	if k.blind.IsZero() {
		k.blind = now
	}
	if now.Sub(k.blind) < k.patience {
		return
	}
	for _, v := range k.sessions.Live() {
		k.endBlind(ctx, v.ID)
	}
}

// undecided ends a session that it has been too long about.
func (k *keeper) undecided(ctx context.Context, r *round, id string, s *kept) {
	s.decided = false
	if s.blind.IsZero() {
		s.blind = r.now
	}
	if r.now.Sub(s.blind) >= k.patience {
		k.endBlind(ctx, id)
	}
}

func (k *keeper) endBlind(ctx context.Context, id string) {
	clause := fmt.Sprintf("for %v the server could not read whether you still have it", k.patience)
	if err := k.sessions.Terminate(context.WithoutCancel(ctx), id, session.AccessEnded("", clause)); err != nil {
		k.server.log.Error("ending a session that nobody can decide on", "session", id, "error", err)
	}
}

// round is one look at many sessions: what several of them need is read once.
type round struct {
	server     *Server
	now        time.Time
	nodes      map[string]foundNode
	principals map[string]foundPrincipal
	judges     map[judgeKey]*access.Judge
	held       map[string][]grant.Request // by principal
	ties       map[string]string          // why a sign-in or a granted role holds no more
}

type foundNode struct {
	node node.Node
	err  error
}

type foundPrincipal struct {
	principal identity.Principal
	err       error
}

type judgeKey struct {
	principal string
	moment    access.Moment
}

func newRound(s *Server) *round {
	return &round{
		server: s, now: s.config.Now(), nodes: map[string]foundNode{}, principals: map[string]foundPrincipal{},
		judges: map[judgeKey]*access.Judge{}, held: map[string][]grant.Request{}, ties: map[string]string{},
	}
}

// due reports whether a session is to be decided on. Sign-ins end without any revision
// that tells of it.
func (r *round) due(ctx context.Context, s *kept) (bool, error) {
	if !s.decided || s.timed && r.now.Sub(s.at) >= timedEvery || !s.deadline.IsZero() && !r.now.Before(s.deadline) {
		return true, nil
	}
	if s.authority.Principal.SignIn == "" {
		return false, nil
	}
	because, err := r.signIn(ctx, s.authority.Principal)
	return because != "", err
}

// verdict is what has become of a session.
type verdict struct {
	cause    *session.Cause // of its end; nil while it is allowed
	deadline session.Deadline
	carried  []string // ids of the grants that it hangs on
	timed    bool
}

// verdict decides about a session.
func (r *round) verdict(ctx context.Context, s *kept) (verdict, error) {
	if s.unreadable {
		return verdict{cause: session.AccessEnded("", "what it was allowed on cannot be read any more")}, nil
	}
	p, cause, err := r.person(ctx, s)
	if err != nil || cause != nil {
		return verdict{cause: cause}, err
	}
	n, err := r.node(ctx, s.node)
	if errors.Is(err, node.ErrNotFound) {
		return verdict{cause: session.AccessEnded("", "the node was deregistered")}, nil
	}
	if err != nil {
		return verdict{}, err
	}
	c := considered{round: r, kept: s, principal: p, node: n}
	return c.verdict(ctx)
}

// person finds who is behind a session, with what they are now. A cause says why they
// may not be here any more.
func (r *round) person(ctx context.Context, s *kept) (identity.Principal, *session.Cause, error) {
	a := s.authority
	p, err := r.restore(ctx, s)
	if refused := (*identity.AuthError)(nil); errors.As(err, &refused) {
		clause, err := r.server.goneClause(ctx, a)
		return p, session.AccessEnded("", clause), err
	}
	if err != nil {
		return p, nil, err
	}
	because, err := r.signIn(ctx, a.Principal)
	if err != nil || because != "" {
		return p, session.AccessEnded("", shown(because)), err
	}
	for _, g := range a.Principal.Granted {
		because, err := r.granted(ctx, p, g)
		if err != nil {
			return p, nil, err
		}
		if because != "" {
			// Another grant may have kept the role since it was assumed.
			cause, err := r.ended(ctx, append(slices.Clone(s.carried), g.Grants...))
			if cause == nil {
				cause = session.AccessEnded("", shown(because))
			}
			return p, cause, err
		}
	}
	return p, nil, nil
}

// restore makes the principal of a session, whose second factor is as old as it was when
// the session began: that it ages ends nothing, as the end of credentials does not.
func (r *round) restore(ctx context.Context, s *kept) (identity.Principal, error) {
	found, ok := r.principals[s.principal]
	if !ok {
		found.principal, found.err = r.server.resolver.Restore(ctx, s.authority.Principal)
		r.principals[s.principal] = found
	}
	p := found.principal
	p.AccessKeyID = s.authority.KeyID
	if !p.MFAAt.IsZero() {
		p.MFAAt = r.now.Add(p.MFAAt.Sub(s.authority.At))
	}
	return p, found.err
}

func (r *round) node(ctx context.Context, id string) (node.Node, error) {
	found, ok := r.nodes[id]
	if !ok {
		found.node, found.err = r.server.config.Nodes.Node(ctx, id)
		r.nodes[id] = found
	}
	return found.node, found.err
}

// signIn says why the sign-in holds no more that credentials come from. One that has
// expired ends nothing that has begun, as credentials do not.
func (r *round) signIn(ctx context.Context, c identity.Claims) (because string, err error) {
	if c.SignIn == "" {
		return "", nil
	}
	person := c.Root
	if person == "" {
		person = c.ID
	}
	return r.tie("sign-in "+c.SignIn+" "+person, func() (string, error) {
		if t, ok := r.server.ties().(endedSignIns); ok {
			return t.SignInEnded(ctx, c.SignIn, person)
		}
		return r.server.ties().SignIn(ctx, c.SignIn, person)
	})
}

// endedSignIns are ties that tell sign-ins that were ended from those whose time was up.
type endedSignIns interface {
	// SignInEnded says why a sign-in of a user was ended; empty where it was not.
	SignInEnded(ctx context.Context, id, user string) (because string, err error)
}

// granted says why a role that was assumed thanks to grants is not given any more.
func (r *round) granted(ctx context.Context, p identity.Principal, g identity.GrantedRole) (string, error) {
	return r.tie(fmt.Sprint("role ", g.Role, g.Grants, p.RootID()), func() (string, error) {
		return r.server.ties().Granted(ctx, p.RootID(), g)
	})
}

func (r *round) tie(key string, ask func() (string, error)) (because string, err error) {
	because, ok := r.ties[key]
	if !ok {
		if because, err = ask(); err == nil {
			r.ties[key] = because
		}
	}
	return because, err
}

// ties tell what temporary credentials come from.
func (s *Server) ties() identity.Ties {
	if s.config.Ties == nil {
		return identity.NoTies{}
	}
	return s.config.Ties
}

func (r *round) judge(ctx context.Context, s *kept, p identity.Principal, m access.Moment) (*access.Judge, error) {
	key := judgeKey{s.principal, m}
	if j := r.judges[key]; j != nil {
		return j, nil
	}
	j, err := r.server.checker.Judge(ctx, p, m)
	if err == nil {
		r.judges[key] = j
	}
	return j, err
}

// grants are the active grants of a session's person.
func (r *round) grants(ctx context.Context, s *kept, p identity.Principal) (held []grant.Request, err error) {
	if r.server.access == nil {
		return nil, nil
	}
	held, ok := r.held[s.principal]
	if !ok {
		if held, err = r.server.access.Held(ctx, p); err == nil {
			r.held[s.principal] = held
		}
	}
	return held, err
}

// ended is the cause of a session that hung on grants, the end of the one that held
// longest; nil where none of them has ended.
func (r *round) ended(ctx context.Context, ids []string) (cause *session.Cause, err error) {
	if r.server.access == nil {
		return nil, nil
	}
	var last time.Time
	for _, id := range ids {
		req, err := r.server.access.Request(ctx, id)
		if errors.Is(err, grant.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c := endedBy(req, r.now); c != nil && (cause == nil || last.Before(endOf(req))) {
			cause, last = c, endOf(req)
		}
	}
	return cause, nil
}

// endOf is when a grant ended, or is to end.
func endOf(r grant.Request) time.Time {
	if !r.EndedAt.IsZero() {
		return r.EndedAt
	}
	return r.EndsAt
}

// considered is a session that is being decided on.
type considered struct {
	*round
	kept      *kept
	principal identity.Principal
	node      node.Node
}

func (c considered) verdict(ctx context.Context) (verdict, error) {
	d, denied, err := c.refused(ctx, access.Moment{})
	if err != nil {
		return verdict{}, err
	}
	if denied != nil {
		cause, err := c.ended(ctx, c.kept.carried)
		if cause == nil {
			cause = session.AccessEnded("", "a policy change took it away: "+denied.Error())
		}
		return verdict{cause: cause}, err
	}
	v := verdict{}
	if v.timed, err = c.timed(ctx); err != nil {
		return v, err
	}
	held, err := c.grants(ctx, c.kept, c.principal)
	if err != nil || len(held) == 0 {
		return v, err
	}
	_, denied, err = c.refused(ctx, access.Moment{WithoutGrants: true})
	if err != nil || denied == nil && len(c.principal.Granted) == 0 {
		return v, err
	}
	err = c.hangs(ctx, d, held, &v)
	return v, err
}

// refused asks the session's question about a moment.
func (c considered) refused(ctx context.Context, m access.Moment) (access.Decision, *access.DeniedError, error) {
	j, err := c.judge(ctx, c.kept, c.principal, m)
	if err != nil {
		return access.Decision{}, nil, err
	}
	at := c.now
	if !m.At.IsZero() {
		at = m.At
	}
	d, denied := c.kept.authority.refused(c.server, j, c.principal, c.node, at)
	return d, denied, nil
}

// timed reports whether policies look at the clock.
func (c considered) timed(ctx context.Context) (bool, error) {
	j, err := c.judge(ctx, c.kept, c.principal, access.Moment{})
	return err == nil && looksAtClock(j), err
}

func looksAtClock(j *access.Judge) bool { return j.Uses("aws:CurrentTime") || j.Uses("aws:EpochTime") }

// hangs finds on which grants a session hangs that is not allowed without, and when it
// will have lost them.
func (c considered) hangs(ctx context.Context, d access.Decision, held []grant.Request, v *verdict) (err error) {
	v.carried = grantsOf(d)
	for _, g := range c.principal.Granted {
		v.carried = append(v.carried, g.Grants...)
	}
	held = slices.Clone(held)
	slices.SortStableFunc(held, func(a, b grant.Request) int { return a.EndsAt.Compare(b.EndsAt) })
	for _, req := range held {
		if !slices.Contains(v.carried, req.ID) {
			v.carried = append(v.carried, req.ID)
		}
	}
	v.deadline, err = c.deadline(ctx, held)
	return err
}

// deadline is the first end of a grant after which the session is not allowed any more.
// held is in the order of their ends.
func (c considered) deadline(ctx context.Context, held []grant.Request) (session.Deadline, error) {
	for i, req := range held {
		if i+1 < len(held) && held[i+1].EndsAt.Equal(req.EndsAt) {
			continue // both end then
		}
		lost := slices.ContainsFunc(c.principal.Granted, func(g identity.GrantedRole) bool { return !gives(held[i+1:], g) })
		if !lost {
			_, denied, err := c.refused(ctx, access.Moment{At: req.EndsAt})
			if err != nil {
				return session.Deadline{}, err
			}
			lost = denied != nil
		}
		if lost {
			return session.Deadline{At: req.EndsAt, Whole: req.EndsAt.Sub(req.ActivatedAt), Grant: req.ID}, nil
		}
	}
	return session.Deadline{}, nil
}

// gives reports whether one of the requests gives a role that was assumed.
func gives(held []grant.Request, g identity.GrantedRole) bool {
	return slices.ContainsFunc(held, func(r grant.Request) bool {
		return slices.Contains(g.Grants, r.ID) || givesRole(r, g.Role)
	})
}
