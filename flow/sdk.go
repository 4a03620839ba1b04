package flow

import (
	"context"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

const maxSteps = 1_000_000

func guard(*syntax.File) error { return nil }

func newThread(name string) *starlark.Thread {
	t := &starlark.Thread{Name: name}
	t.SetMaxExecutionSteps(maxSteps)
	return t
}

func predeclared() starlark.StringDict { return nil }

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
