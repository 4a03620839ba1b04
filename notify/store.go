package notify

import (
	"context"
	"errors"
	"time"
)

// Errors of the store.
var (
	// ErrLease is returned to a member that no longer is the one that delivers.
	ErrLease    = errors.New("another member delivers")
	ErrNotFound = errors.New("no such link")
	// ErrLinked is returned for a chat account, or a person's place in a team, that is
	// taken.
	ErrLinked = errors.New("linked already")
)

// Store keeps what is to be delivered, what was sent, and who is who in chats. The
// methods that take a holder fail with ErrLease unless it holds the lease.
type Store interface {
	// HoldLease takes or renews the lease until a time, unless another has it now. It
	// returns how far events have been read.
	HoldLease(ctx context.Context, holder string, now, until time.Time) (held bool, position int64, err error)
	DropLease(ctx context.Context, holder string) error
	// Queue adds deliveries, those whose ids are known excepted, and moves the position
	// forward, both or neither. A position of 0 leaves it where it is.
	Queue(ctx context.Context, holder string, position int64, ds []Delivery) error
	// Due returns deliveries of a lane that wait and whose time has come, the earliest
	// event first.
	Due(ctx context.Context, lane string, now time.Time, limit int) ([]Delivery, error)
	// Begin counts a try of a delivery and puts it off until next, for as long as it
	// waits and has been tried so often.
	Begin(ctx context.Context, holder, id string, tries int, next time.Time) error
	// Finish notes what became of a try: DeliveryWaiting for another at next.
	Finish(ctx context.Context, id string, state DeliveryState, next time.Time, problem string) error
	// Deliveries returns those of a request, in order of events.
	Deliveries(ctx context.Context, request string) ([]Delivery, error)
	// Forget deletes deliveries and references that were made before a time. Deliveries
	// that still wait then are of lanes that are no longer configured.
	Forget(ctx context.Context, before time.Time) error

	PutReference(ctx context.Context, r Reference) error
	References(ctx context.Context, request string) ([]Reference, error)

	// PutLinkCode keeps the one code of a chat account.
	PutLinkCode(ctx context.Context, c LinkCode) error
	// LinkCode finds a code that has not expired; ErrNotFound.
	LinkCode(ctx context.Context, hash string, now time.Time) (LinkCode, error)
	// Link spends a code and links its account to a person, both or neither. ErrNotFound
	// for the code, ErrLinked.
	Link(ctx context.Context, hash, person string, now time.Time) (Link, error)
	LinkOf(ctx context.Context, a Account) (Link, error)                 // ErrNotFound
	LinksOf(ctx context.Context, person string) ([]Link, error)          // of a user's unique id
	Links(ctx context.Context, after Account, limit int) ([]Link, error) // in order of accounts
	Unlink(ctx context.Context, a Account) error                         // ErrNotFound

	// UseToken notes that something single-use was used, and reports whether it was the
	// first time on any member.
	UseToken(ctx context.Context, id string, expires time.Time) (first bool, err error)
}

// DeliveryState is how far a delivery has come.
type DeliveryState string

// States of deliveries.
const (
	DeliveryWaiting DeliveryState = "waiting"
	DeliverySent    DeliveryState = "sent"
	DeliveryFailed  DeliveryState = "failed"  // for good
	DeliveryDropped DeliveryState = "dropped" // there was nothing to say any more
)

// Delivery is one message that is to reach one place.
type Delivery struct {
	ID      string // made of the event and the place, so that it is made once
	Seq     int64  // of the event
	Request string
	Kind    string // of the event
	Lane    string // who delivers: slack, mail, webhook:NAME, or step
	What    string // see the Tell constants
	To      string // channel, address, or the unique id of a person
	Step    int    // of the flow code's notifications; 0 for none
	Stage   int    // of the request
	Tries   int
	Next    time.Time // of the next try
	State   DeliveryState
	Problem string // of the last try
	Made    time.Time
}

// Reference is a message that was sent and is kept up to date.
type Reference struct {
	Request  string
	Service  string // slack
	To       string // as in the Delivery
	Channel  string // where it is
	Message  string // its id there: Slack's ts
	Revision int64  // of the request that it shows
	Shown    string // hash of what it shows
	Made     time.Time
}

// Account is somebody in a chat service.
type Account struct {
	Service string // slack
	Team    string // id
	User    string // id
}

// Link says which person an account is.
type Link struct {
	Account
	Name   string // of the account when it was linked, for people to read
	Person string // unique id of the user
	Made   time.Time
}

// LinkCode is a code by which a person says that an account is theirs.
type LinkCode struct {
	Account
	Hash    string // hex SHA-256 of the code
	Name    string // of the account, for people to read
	In      string // name of the team
	Expires time.Time
}
