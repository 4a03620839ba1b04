package cluster

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

const (
	heartbeatEvery = time.Second
	// memberLost is how long a member may be silent before it counts as gone.
	memberLost = 3500 * time.Millisecond

	heartbeatSubject = "sallyport.heartbeat"
	// membersLimit bounds what heartbeats may make this member remember.
	membersLimit = 1000
)

// Member is a server process of the cluster.
type Member struct {
	ID   string
	URL  string    // base URL at which it is reached
	Seen time.Time // when its last heartbeat arrived
}

// heartbeat is what members say of themselves every second.
type heartbeat struct {
	ID    string `json:"id"`
	URL   string `json:"url"`
	Nonce string `json:"nonce"`
	Gone  bool   `json:"gone,omitempty"` // the last word of a member that leaves
}

// peers are the other members.
type peers struct {
	mu   sync.Mutex
	seen map[string]Member
}

// note takes a heartbeat and reports whether its sender was not known before.
func (p *peers) note(h heartbeat, at time.Time) (isNew bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.Gone {
		delete(p.seen, h.ID)
		return false
	}
	known, found := p.seen[h.ID]
	isNew = !found || at.Sub(known.Seen) > memberLost
	if !found && len(p.seen) >= membersLimit {
		return false
	}
	if p.seen == nil {
		p.seen = make(map[string]Member)
	}
	p.seen[h.ID] = Member{ID: h.ID, URL: h.URL, Seen: at}
	return isNew
}

// live returns the members heard of lately and forgets the others.
func (p *peers) live(at time.Time) []Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Member
	for id, m := range p.seen {
		if at.Sub(m.Seen) > memberLost {
			delete(p.seen, id)
			continue
		}
		all = append(all, m)
	}
	return all
}

// Members returns the members heard of in the last seconds, this one included, in
// order of ids. One that dies is gone from it within four seconds, one that leaves
// at once.
func (c *Cluster) Members() []Member {
	now := time.Now()
	all := append(c.peers.live(now), Member{ID: c.cfg.Member, URL: c.cfg.URL, Seen: now})
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

func (c *Cluster) startHeartbeat() error {
	if _, err := c.Listen(heartbeatSubject, c.hearHeartbeat); err != nil {
		return err
	}
	c.beat(false)
	c.owned.Go(func() {
		t := time.NewTicker(heartbeatEvery)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				c.beat(false)
			case <-c.ctx.Done():
				return
			}
		}
	})
	return nil
}

// beat says that this member is alive, or gone. Without a connection nobody hears
// it, which is what a lost member looks like, so that errors tell nothing new.
func (c *Cluster) beat(gone bool) {
	data, err := json.Marshal(heartbeat{ID: c.cfg.Member, URL: c.cfg.URL, Nonce: c.nonce, Gone: gone})
	if err != nil {
		panic("cluster: encoding strings: " + err.Error()) // strings always encode
	}
	c.nats.Publish(heartbeatSubject, data)
}

func (c *Cluster) leave() { c.beat(true) }

func (c *Cluster) hearHeartbeat(data []byte) {
	var h heartbeat
	if err := json.Unmarshal(data, &h); err != nil || !memberID.MatchString(h.ID) {
		c.logger.Warn("heartbeat cannot be read", "bytes", len(data))
		return
	}
	if h.ID == c.cfg.Member {
		if h.Nonce != c.nonce && !h.Gone {
			c.logger.Error("another live member has this member's id")
		}
		return
	}
	if c.peers.note(h, time.Now()) {
		c.beat(false) // so that the newcomer need not wait for the next tick
	}
}
