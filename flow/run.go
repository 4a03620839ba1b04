package flow

import (
	"context"
	"errors"
	"fmt"

	"go.starlark.net/starlark"
)

// Printer may be implemented by an Env: it gets what code prints, which is lost otherwise.
type Printer interface{ Print(text string) }

const maxNotifications = 20

// Permissions runs get_permissions. Where it returns None, ErrNoFunction is returned: the
// stages' people decide.
func (c *Code) Permissions(ctx context.Context, env Env, h Happening) (Permissions, error) {
	v, err := c.run(ctx, env, FunctionPermissions, eventValue(h))
	if err != nil {
		return Permissions{}, err
	}
	switch v := v.(type) {
	case starlark.NoneType:
		return Permissions{}, ErrNoFunction
	case word[Permissions]:
		return v.held, nil
	case word[People]:
		return Permissions{Of: v.held}, nil
	}
	return Permissions{}, c.wrong(FunctionPermissions, v, "permission(…), people(…) or None")
}

// Notifications runs get_request_notifications.
func (c *Code) Notifications(ctx context.Context, env Env, h Happening) ([]Notification, error) {
	v, err := c.run(ctx, env, FunctionNotifications, eventValue(h))
	if err != nil {
		return nil, err
	}
	const want = "a list of notification(…)"
	list, ok := v.(starlark.Sequence)
	if !ok {
		return nil, c.wrong(FunctionNotifications, v, want)
	}
	var out []Notification
	for e := range starlark.Elements(list) {
		n, ok := e.(word[Notification])
		if !ok || len(out) == maxNotifications {
			return nil, c.wrong(FunctionNotifications, e, fmt.Sprintf("%s, at most %d", want, maxNotifications))
		}
		out = append(out, n.held)
	}
	return out, nil
}

// On runs the hook on_NAME.
func (c *Code) On(ctx context.Context, env Env, name string, h Happening) (Transition, error) {
	function := "on_" + name
	v, err := c.run(ctx, env, function, eventValue(h))
	if err != nil {
		return Transition{}, err
	}
	switch v := v.(type) {
	case starlark.NoneType:
		return Transition{}, nil
	case word[Transition]:
		return v.held, nil
	}
	return Transition{}, c.wrong(function, v, "approve(), deny(message), ignore(message), forward(people) or None")
}

// After runs the hook after_NAME. What it returns means nothing.
func (c *Code) After(ctx context.Context, env Env, name string, h Happening) error {
	_, err := c.run(ctx, env, "after_"+name, eventValue(h))
	return err
}

// Options runs the function that gives a field's allowed values for a person.
func (c *Code) Options(ctx context.Context, env Env, function string, p Person) ([]string, error) {
	v, err := c.run(ctx, env, function, personValue(p))
	if err != nil {
		return nil, err
	}
	const want = "a list of texts"
	list, ok := v.(starlark.Sequence)
	if !ok || list.Len() > maxList {
		return nil, c.wrong(function, v, fmt.Sprintf("%s, at most %d", want, maxList))
	}
	out := make([]string, 0, list.Len())
	for e := range starlark.Elements(list) {
		switch e := e.(type) {
		case starlark.String:
			out = append(out, string(e))
		case starlark.Int:
			out = append(out, e.String())
		default:
			return nil, c.wrong(function, e, want)
		}
	}
	return out, nil
}

// wrong is what is said about a function that returned something else.
func (c *Code) wrong(function string, got starlark.Value, want string) error {
	e := &CodeError{File: c.File, Function: function, Text: fmt.Sprintf("returned a %s, want %s", got.Type(), want)}
	if p, err := c.compile(); err == nil {
		if f, ok := p.globals[function].(*starlark.Function); ok {
			e.File, e.Line = f.Position().Filename(), int(f.Position().Line)
		}
	}
	return e
}

// run calls a function of the code, within its bounds. Errors are ErrNoFunction or
// *CodeError; a panic of the interpreter is an error, too.
func (c *Code) run(ctx context.Context, env Env, function string, arg starlark.Value) (result starlark.Value, err error) {
	if c == nil {
		return nil, ErrNoFunction
	}
	defer func() {
		if p := recover(); p != nil {
			result, err = nil, &CodeError{File: c.File, Function: function, Text: fmt.Sprintf("the interpreter gave up: %v", p)}
		}
	}()
	program, err := c.compile()
	if err != nil {
		return nil, err
	}
	f, ok := program.globals[function].(*starlark.Function)
	if !ok {
		return nil, ErrNoFunction
	}
	ctx, cancel := context.WithTimeout(ctx, MaxRun)
	defer cancel()
	thread := newThread(function)
	thread.SetLocal(runLocal, &run{ctx: ctx, env: env, code: c})
	if p, ok := env.(Printer); ok {
		thread.Print = func(_ *starlark.Thread, text string) { p.Print(text) }
	}
	defer context.AfterFunc(ctx, func() { thread.Cancel("out of time") })()
	result, err = starlark.Call(thread, f, starlark.Tuple{arg}, nil)
	if err != nil {
		return nil, c.failed(ctx, thread, function, err)
	}
	return result, nil
}

// failed words why a call went wrong.
func (c *Code) failed(ctx context.Context, t *starlark.Thread, function string, err error) error {
	e := codeError(c.File, function, err)
	switch {
	case t.ExecutionSteps() >= maxSteps:
		e.Text = fmt.Sprintf("took more than %d steps", maxSteps)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		e.Text, e.Cause = "took too long", ctx.Err()
	case ctx.Err() != nil:
		e.Text, e.Cause = "was interrupted", ctx.Err()
	}
	if text, err := plainText(e.Text); err == nil {
		e.Text = text
	} else {
		e.Text = fmt.Sprintf("%.200q", e.Text)
	}
	return e
}
