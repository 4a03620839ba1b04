package flow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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

// Code is a flow's Starlark program. It holds all that running it takes, so that one
// which comes from JSON runs as the one that was read did.
type Code struct {
	File    string
	Source  string
	Modules map[string]string `json:",omitempty"` // sources of the files that it loads, by name
	HTTP    *HTTP             `json:",omitempty"` // nil: it may not reach out

	ready *program // of Parse; others are compiled when they run
}

// HTTP says where code may reach.
type HTTP struct {
	AllowHosts []string      // names, a port after a colon if it is not 443; *.example.com for those below
	Timeout    time.Duration // of one request
}

// Equal reports whether two codes are the same text with the same rights.
func (c *Code) Equal(o *Code) bool {
	if c == nil || o == nil {
		return c == o
	}
	web := func(h *HTTP) HTTP {
		if h == nil {
			return HTTP{}
		}
		return *h
	}
	a, b := web(c.HTTP), web(o.HTTP)
	return c.File == o.File && c.Source == o.Source && maps.Equal(c.Modules, o.Modules) &&
		slices.Equal(a.AllowHosts, b.AllowHosts) && a.Timeout == b.Timeout
}

// Defines reports whether the code has a function of a name.
func (c *Code) Defines(function string) bool { return slices.Contains(c.Functions(), function) }

// Functions are the names of the code's functions, in order; none where it does not
// compile.
func (c *Code) Functions() []string {
	p, err := c.compile()
	if err != nil {
		return nil
	}
	return p.functions()
}

// CodeError is a mistake of flow code, or what it failed with.
type CodeError struct {
	File     string
	Line     int    // 0 where it is of no line
	Function string // that was called; empty while compiling
	Text     string
	Cause    error // of Env or the net, if it was not the code's own
}

// Error implements error: file:line: text.
func (e *CodeError) Error() string {
	at := e.File
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d", at, e.Line)
	}
	return at + ": " + e.Text
}

// Unwrap returns the cause.
func (e *CodeError) Unwrap() error { return e.Cause }

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

// Names of the functions that are not hooks.
const (
	FunctionPermissions   = "get_permissions"
	FunctionNotifications = "get_request_notifications"
)

// ErrNoFunction is returned where the code does not define what is asked for.
var ErrNoFunction = errors.New("the flow's code does not define it")
