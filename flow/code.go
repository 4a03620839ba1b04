package flow

import (
	"context"
	"errors"
	"time"
)

// Env is what a flow's code may ask for. Its methods are called while the code runs and
// keep to the context.
type Env interface {
	Now() time.Time
	GroupMembers(ctx context.Context, group string) ([]Person, error)
	Person(ctx context.Context, name string) (Person, error)
	// OnCall returns the names of those on duty by a schedule.
	OnCall(ctx context.Context, schedule string) ([]string, error)
}

// Code is a flow's Starlark program, compiled.
type Code struct {
	File   string
	Source string
}

// Happening is what a hook or a reducer is asked about.
type Happening struct {
	Facts   Facts
	Actor   Person // who acts; the requester when asking
	Channel string
	Comment string
}

// Permissions are what get_permissions answers: who decides instead of the stages' people.
type Permissions struct {
	Of        People
	AllowSelf bool
}

// Notification is one step of get_request_notifications: whom to tell, and how long to
// wait for a decision before the next.
type Notification struct {
	Slack, Email, Webhook []string
	People                People        // told directly
	Timeout               time.Duration // 0 waits for ever
}

// Transition is what a hook answers. The zero Transition lets things take their course.
type Transition struct {
	Kind    TransitionKind
	Message string
	To      *People // of Forward
}

// TransitionKind says what a hook wants.
type TransitionKind string

// What hooks may want.
const (
	Continue TransitionKind = ""
	Approve  TransitionKind = "approve"
	Deny     TransitionKind = "deny"    // ends the request, or refuses it
	Ignore   TransitionKind = "ignore"  // refuses this one action and leaves the request as it was
	Forward  TransitionKind = "forward" // others are to decide
)

// Hooks: on_X runs before X and may answer with a transition, after_X afterwards.
const (
	HookRequest  = "request"
	HookApprove  = "approve"
	HookDeny     = "deny"
	HookActivate = "activate"
	HookExpire   = "expire"
	HookRevoke   = "revoke"
)

// ErrNoFunction is returned where the code does not define what is asked for.
var ErrNoFunction = errors.New("the flow's code does not define it")

// Permissions runs get_permissions.
func (c *Code) Permissions(ctx context.Context, env Env, h Happening) (Permissions, error) {
	return Permissions{}, ErrNoFunction
}

// Notifications runs get_request_notifications.
func (c *Code) Notifications(ctx context.Context, env Env, h Happening) ([]Notification, error) {
	return nil, ErrNoFunction
}

// On runs the hook on_NAME.
func (c *Code) On(ctx context.Context, env Env, name string, h Happening) (Transition, error) {
	return Transition{}, ErrNoFunction
}

// After runs the hook after_NAME.
func (c *Code) After(ctx context.Context, env Env, name string, h Happening) error {
	return ErrNoFunction
}

// Options runs the function that gives a field's allowed values for a person.
func (c *Code) Options(ctx context.Context, env Env, function string, p Person) ([]string, error) {
	return nil, ErrNoFunction
}
