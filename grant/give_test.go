package grant_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
)

// slowAWS gives only once it is let go, and takes at once.
type slowAWS struct {
	outside
	began chan struct{} // closed when giving begins
	goOn  chan error    // what giving ends with, once it has
}

func newSlowAWS() *slowAWS {
	return &slowAWS{began: make(chan struct{}), goOn: make(chan error)}
}

// Give implements grant.Giver. AWS may have done what it answered to with an error.
func (s *slowAWS) Give(ctx context.Context, t flow.Target, handle string) error {
	close(s.began)
	err := <-s.goOn
	return errors.Join(s.outside.Give(ctx, t, handle), err)
}

// While AWS is still giving, the grant ends: whenever that is, and whatever AWS answers, what
// it gave is taken back.
func TestEndsWhileItIsGiven(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(*world)
		answer    error
	}{
		"at once":                     {func(w *world) { w.tick() }, nil},
		"with a problem":              {func(w *world) { w.tick() }, errors.New("timeout")},
		"past the lease":              {pastTheLease, nil},
		"past the lease, problem too": {pastTheLease, errors.New("timeout")},
	} {
		t.Run(name, func(t *testing.T) {
			aws := newSlowAWS()
			w := newWorld(t, func(config *grant.Config) { config.Giver = aws })
			w.put(strings.NewReplacer("activate_by = \"1h\"", "", "approvals = 2", "").Replace(crashFlow))
			r := w.approve(w.ask("crash"), w.as("alice"))
			giving := grant.New(w.set)
			w.must(giving.Start(t.Context()))
			<-aws.began
			_, err := w.Release(t.Context(), w.as("carol"), r.ID)
			w.must(err)
			c.meanwhile(w)
			aws.goOn <- c.answer
			giving.Close()
			w.tick()
			w.advance(time.Hour)
			w.tick()
			if p := w.read(r.ID).Provisions[0]; len(aws.has) != 0 || p.State != "taken" {
				t.Errorf("AWS has %v, which is noted as %+v", aws.has, p)
			}
		})
	}
}

// pastTheLease lets another member take back what this one is still giving.
func pastTheLease(w *world) {
	w.advance(61 * time.Second)
	w.tick()
}

// reading counts the requests that are read at a time.
type reading struct {
	grant.Store
	most int
}

// Requests implements grant.Store.
func (s *reading) Requests(ctx context.Context, f grant.Filter) ([]grant.Request, error) {
	all, err := s.Store.Requests(ctx, f)
	s.most = max(s.most, len(all))
	return all, err
}

// Whether another grant gives the same is asked of those that may, not of all that somebody
// ever asked for.
func TestGivesWithoutHistory(t *testing.T) {
	aws, counted := &outside{}, &reading{}
	w := newWorld(t, func(config *grant.Config) {
		counted.Store, config.Store, config.Giver = config.Store, counted, aws
	})
	w.put(strings.NewReplacer("activate_by = \"1h\"", "", "approvals = 2", "").Replace(crashFlow) + flows)
	for range 10 {
		r := w.ask("role")
		_, err := w.Cancel(t.Context(), w.as("carol"), r.ID)
		w.must(err)
	}
	w.approve(w.ask("crash"), w.as("alice"))
	r := w.approve(w.ask("crash"), w.as("alice"))
	counted.most = 0
	w.tick()
	_, err := w.Release(t.Context(), w.as("carol"), r.ID)
	w.must(err)
	w.tick()
	if counted.most > 2 || len(aws.has) != 1 {
		t.Errorf("%d requests were read at a time, and AWS has %v", counted.most, aws.has)
	}
}
