package oncall

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/identity"
)

// Sources of schedules, as flows name them.
const (
	PagerDuty = "pagerduty"
	Opsgenie  = "opsgenie"
	Calendar  = "ical"
	Rota      = "rota"
)

// Directory finds users.
type Directory interface {
	Users(ctx context.Context, p identity.Page) ([]identity.User, error)
}

// Config says how sources are asked.
type Config struct {
	Directory Directory
	PagerDuty *Service    // nil for none
	Opsgenie  *Service    // nil for none
	Calendars *Calendars  // nil for calendars at public https URLs only
	People    People      // how people there are matched with users
	TLS       *tls.Config // nil for the system's roots
	Now       func() time.Time
	Timeout   time.Duration // of one question; 0 is 5 s
}

// Service is an account with an on-call service.
type Service struct {
	URL       string // of the API; the service's own unless given
	TokenFile string // holds the API token; it is read each time
	People    People // beside those of Config
}

// Calendars says where calendars may be.
type Calendars struct {
	Dir    string   // holds files that schedules may name; empty for none
	Hosts  []string // of URLs that may be private addresses, HOST or HOST:PORT
	People People
}

// People matches people of other systems with users: by Names (an e-mail address, a name
// there, to a user here), by the tag that holds users' e-mail addresses, or where the
// user's name is the address. Letters' case does not count.
type People struct {
	EmailTag string // key of the tag; Email unless given
	Names    map[string]string
}

// How long answers and failures are kept, and how many.
const (
	life        = time.Minute
	failureLife = 10 * time.Second
	maxKept     = 1000
	maxUsers    = 20000
	timeout     = 5 * time.Second
)

// Sources answers who is on duty. It is safe for concurrent use.
type Sources struct {
	config Config

	mu   sync.Mutex
	kept map[string]*entry
}

// entry is a kept answer. Its mutex is held while the source is asked, so that many who
// want to know at once ask once.
type entry struct {
	mu    sync.Mutex
	until time.Time
	names []string
	err   error
}

// New returns Sources.
func New(c Config) *Sources {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Timeout == 0 {
		c.Timeout = timeout
	}
	return &Sources{config: c, kept: map[string]*entry{}}
}

// OnCall returns the names of the users on duty by a schedule at a time, in order; none
// where nobody is. It is an error when the source cannot be asked, and when nobody of
// those who are on duty is known here.
func (s *Sources) OnCall(ctx context.Context, sched *flow.Schedule, at time.Time) ([]string, error) {
	if sched == nil {
		return nil, errors.New("no schedule")
	}
	if sched.Source == Rota {
		return onRota(sched.Rota, at)
	}
	if err := s.Check(sched); err != nil {
		return nil, err
	}
	now := s.config.Now()
	if d := at.Sub(now); d > life || d < -life {
		return s.ask(ctx, sched, at) // a question about another time is not asked often
	}
	e := s.entry(key(sched))
	e.mu.Lock()
	defer e.mu.Unlock()
	if now.Before(e.until) {
		return slices.Clone(e.names), e.err
	}
	names, err := s.ask(ctx, sched, at)
	if ctx.Err() != nil {
		return nil, err // the caller gave up: that says nothing about the source
	}
	e.names, e.err, e.until = names, err, now.Add(life)
	if err != nil {
		e.until = now.Add(failureLife)
	}
	return slices.Clone(names), err
}

func (s *Sources) entry(key string) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.kept[key]
	if e == nil {
		if len(s.kept) >= maxKept {
			clear(s.kept)
		}
		e = &entry{}
		s.kept[key] = e
	}
	return e
}

// key tells schedules apart by what they ask.
func key(sched *flow.Schedule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q", sched.Source)
	for _, k := range slices.Sorted(maps.Keys(sched.Settings)) {
		fmt.Fprintf(&b, " %q=%q", k, sched.Settings[k])
	}
	return b.String()
}

// ask asks the source now.
func (s *Sources) ask(ctx context.Context, sched *flow.Schedule, at time.Time) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	var found []someone
	var people People
	var err error
	switch sched.Source {
	case PagerDuty:
		people = s.config.PagerDuty.People
		found, err = s.pagerDuty(ctx, sched, at)
	case Opsgenie:
		people = s.config.Opsgenie.People
		found, err = s.opsgenie(ctx, sched, at)
	case Calendar:
		if s.config.Calendars != nil {
			people = s.config.Calendars.People
		}
		found, err = s.calendar(ctx, sched, at)
	}
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", sched.Source, err)
	}
	return s.users(ctx, found, s.config.People.with(people))
}

// settings of each source: those that must be there, and those that may.
var settings = map[string]struct{ needed, optional []string }{
	PagerDuty: {needed: []string{"schedule"}},
	Opsgenie:  {needed: []string{"schedule"}, optional: []string{"by"}},
	Calendar:  {optional: []string{"url", "file", "person", "pattern", "zone"}},
}

// Check tells what is wrong with a schedule, without asking its source.
func (s *Sources) Check(sched *flow.Schedule) error {
	if sched.Source == Rota {
		_, err := onRota(sched.Rota, time.Unix(0, 0))
		return err
	}
	known, ok := settings[sched.Source]
	if !ok {
		return fmt.Errorf("source %q is not known: want %s, %s, %s or %s", sched.Source, PagerDuty, Opsgenie, Calendar, Rota)
	}
	for _, name := range known.needed {
		if sched.Settings[name] == "" {
			return fmt.Errorf("%s: setting %s is missing", sched.Source, name)
		}
	}
	for name := range sched.Settings {
		if !slices.Contains(known.needed, name) && !slices.Contains(known.optional, name) {
			return fmt.Errorf("%s: setting %s is not known; known are %s", sched.Source, name, strings.Join(slices.Concat(known.needed, known.optional), ", "))
		}
	}
	if sched.Source == PagerDuty && s.config.PagerDuty == nil || sched.Source == Opsgenie && s.config.Opsgenie == nil {
		return fmt.Errorf("this server has no account with %s: its configuration lacks the block on_call %q", sched.Source, sched.Source)
	}
	if sched.Source == Calendar {
		return s.checkCalendar(sched)
	}
	return nil
}
