package flow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.starlark.net/starlark"
)

// MaxRun bounds a run of a flow's code, with all that it fetches.
const MaxRun = 10 * time.Second

// Bounds on what one run may ask of the world.
const (
	maxLookups = 200 // of people, groups and schedules
	maxFetches = 10
	maxMatched = 16 << 10 // bytes of a text that is matched
)

// sdk are the functions that flow code finds, beside Starlark's own.
var sdk = map[string]func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error){
	"people":       sdkPeople,
	"permission":   sdkPermission,
	"notification": sdkNotification,
	"approve":      sdkApprove,
	"deny":         sdkDeny,
	"ignore":       sdkIgnore,
	"forward":      sdkForward,
	"members":      sdkMembers,
	"user":         sdkUser,
	"on_call":      sdkOnCall,
	"now":          sdkNow,
	"weekday":      sdkWeekday,
	"within":       sdkWithin,
	"duration":     sdkDuration,
	"matches":      sdkMatches,
	"http_get":     sdkGet,
	"http_post":    sdkPost,
}

// run is one call of a flow's code.
type run struct {
	ctx              context.Context
	env              Env
	code             *Code
	lookups, fetches int
}

const runLocal = "sallyport.run"

var errTopLevel = errors.New("may only be called within a function")

// running returns the run that a thread belongs to. There is none while a file is read.
func running(t *starlark.Thread) (*run, error) {
	r, ok := t.Local(runLocal).(*run)
	if !ok {
		return nil, errTopLevel
	}
	return r, r.ctx.Err()
}

// lookup counts a question to Env.
func lookup(t *starlark.Thread) (*run, error) {
	r, err := running(t)
	if err != nil {
		return nil, err
	}
	if r.lookups++; r.lookups > maxLookups {
		return nil, fmt.Errorf("the code asks for people too often; at most %d times", maxLookups)
	}
	return r, nil
}

// people(everyone=False, users=[], groups=[], tags={}, on_call=[])
func sdkPeople(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var of People
	var users, groups, tags, duty starlark.Value
	if len(args) > 0 {
		return nil, fmt.Errorf("%s: say which: people(groups = […]), users, tags, on_call or everyone", b.Name())
	}
	if err := starlark.UnpackArgs(b.Name(), nil, kwargs, "everyone?", &of.Everyone, "users?", &users, "groups?", &groups, "tags?", &tags, "on_call?", &duty); err != nil {
		return nil, err
	}
	var errs [4]error
	of.Users, errs[0] = names(users)
	of.Groups, errs[1] = names(groups)
	of.OnCall, errs[2] = names(duty)
	of.Tags, errs[3] = tagLists(tags)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name(), err)
	}
	if of.Empty() {
		return nil, fmt.Errorf("%s: selects nobody", b.Name())
	}
	return word[People]{b.Name(), of}, nil
}

// permission(decide, allow_self=False)
func sdkPermission(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var of starlark.Value
	var p Permissions
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "decide", &of, "allow_self?", &p.AllowSelf); err != nil {
		return nil, err
	}
	who, err := asPeople(of)
	p.Of = who
	return word[Permissions]{b.Name(), p}, err
}

// notification(slack=[], email=[], webhook=[], people=None, timeout="")
func sdkNotification(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var slack, email, webhook, of starlark.Value
	var timeout string
	var n Notification
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "slack?", &slack, "email?", &email, "webhook?", &webhook, "people?", &of, "timeout?", &timeout); err != nil {
		return nil, err
	}
	var errs [5]error
	n.Slack, errs[0] = names(slack)
	n.Email, errs[1] = names(email)
	n.Webhook, errs[2] = names(webhook)
	if of != nil && of != starlark.None {
		n.People, errs[3] = asPeople(of)
	}
	if timeout != "" {
		n.Timeout, errs[4] = ParseDuration(timeout)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name(), err)
	}
	if len(n.Slack)+len(n.Email)+len(n.Webhook) == 0 && n.People.Empty() {
		return nil, fmt.Errorf("%s: tells nobody; want slack, email, webhook or people", b.Name())
	}
	return word[Notification]{b.Name(), n}, nil
}

// approve(message="")
func sdkApprove(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	return transition(Approve, false, b, args, kwargs)
}

// deny(message)
func sdkDeny(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	return transition(Deny, true, b, args, kwargs)
}

// ignore(message)
func sdkIgnore(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	return transition(Ignore, true, b, args, kwargs)
}

func transition(kind TransitionKind, must bool, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var message string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "message?", &message); err != nil {
		return nil, err
	}
	message, err := plainText(message)
	if err != nil {
		return nil, fmt.Errorf("%s: message: %w", b.Name(), err)
	}
	if must && message == "" {
		return nil, fmt.Errorf("%s: want a message that says why", b.Name())
	}
	return word[Transition]{b.Name(), Transition{Kind: kind, Message: message}}, nil
}

// forward(to, message="")
func sdkForward(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var of starlark.Value
	var message string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "to", &of, "message?", &message); err != nil {
		return nil, err
	}
	to, err := asPeople(of)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name(), err)
	}
	if message, err = plainText(message); err != nil {
		return nil, fmt.Errorf("%s: message: %w", b.Name(), err)
	}
	return word[Transition]{b.Name(), Transition{Kind: Forward, Message: message, To: &to}}, nil
}

// members(group) is a list of persons.
func sdkMembers(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var group string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "group", &group); err != nil {
		return nil, err
	}
	r, err := lookup(t)
	if err != nil {
		return nil, err
	}
	people, err := r.env.GroupMembers(r.ctx, group)
	if err != nil {
		return nil, fmt.Errorf("members of %q: %w", group, err)
	}
	list := make([]starlark.Value, len(people))
	for i, p := range people {
		list[i] = personValue(p)
	}
	return starlark.NewList(list), charge(t, 10*perEntry*len(list))
}

// user(name) is a person.
func sdkUser(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "name", &name); err != nil {
		return nil, err
	}
	r, err := lookup(t)
	if err != nil {
		return nil, err
	}
	p, err := r.env.Person(r.ctx, name)
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	return personValue(p), charge(t, 10*perEntry)
}

// on_call(schedule) is a list of names.
func sdkOnCall(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var schedule string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "schedule", &schedule); err != nil {
		return nil, err
	}
	r, err := lookup(t)
	if err != nil {
		return nil, err
	}
	duty, err := onCall(r.ctx, r.env, schedule)
	if err != nil {
		return nil, err
	}
	return textList(duty), charge(t, perEntry*len(duty))
}

// now(zone="UTC") says what time it is.
func sdkNow(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	at, err := clock(t, b, args, kwargs)
	if err != nil {
		return nil, err
	}
	return record(starlark.StringDict{
		"year":    starlark.MakeInt(at.Year()),
		"month":   starlark.MakeInt(int(at.Month())),
		"day":     starlark.MakeInt(at.Day()),
		"hour":    starlark.MakeInt(at.Hour()),
		"minute":  starlark.MakeInt(at.Minute()),
		"second":  starlark.MakeInt(at.Second()),
		"weekday": starlark.String(weekdays[at.Weekday()]),
		"date":    starlark.String(at.Format(time.DateOnly)),
		"time":    starlark.String(at.Format("15:04")),
		"unix":    starlark.MakeInt64(at.Unix()),
	}), nil
}

// weekday(zone="UTC") is mon … sun.
func sdkWeekday(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	at, err := clock(t, b, args, kwargs)
	if err != nil {
		return nil, err
	}
	return starlark.String(weekdays[at.Weekday()]), nil
}

// clock is the time in the zone that a call names.
func clock(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (time.Time, error) {
	var name string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "zone?", &name); err != nil {
		return time.Time{}, err
	}
	return inZone(t, b, name)
}

func inZone(t *starlark.Thread, b *starlark.Builtin, name string) (time.Time, error) {
	r, err := lookup(t) // reading a zone is work, too
	if err != nil {
		return time.Time{}, err
	}
	zone, err := Zone(name)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: zone: %w", b.Name(), err)
	}
	return r.env.Now().In(zone), nil
}

// within(hours, zone="UTC", days=[]) reports whether it is that time of day.
func sdkWithin(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var text, zone string
	var list starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "hours", &text, "zone?", &zone, "days?", &list); err != nil {
		return nil, err
	}
	hours, err := ParseHours(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name(), err)
	}
	days, err := names(list)
	if err != nil {
		return nil, fmt.Errorf("%s: days: %w", b.Name(), err)
	}
	for _, d := range days {
		if !IsDay(d) {
			return nil, fmt.Errorf("%s: days: %q is not known; want %s", b.Name(), d, oneOf(weekdays[:]))
		}
	}
	at, err := inZone(t, b, zone)
	if err != nil {
		return nil, err
	}
	return starlark.Bool(hours.Has(at, days)), nil
}

// duration(text) is so many seconds.
func sdkDuration(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var text string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "text", &text); err != nil {
		return nil, err
	}
	d, err := ParseDuration(text)
	if err != nil {
		return nil, fmt.Errorf("%s: got %q, %w", b.Name(), text, err)
	}
	return starlark.MakeInt64(int64(d / time.Second)), nil
}

// matches(pattern, text) reports whether the whole text matches a regular expression.
func sdkMatches(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var pattern, text string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "pattern", &pattern, "text", &text); err != nil {
		return nil, err
	}
	if len(text) > maxMatched {
		return nil, fmt.Errorf("%s: a text of %d bytes; at most %d", b.Name(), len(text), maxMatched)
	}
	if err := charge(t, 4*maxMatched); err != nil { // compiling takes memory, and matching
		return nil, err
	}
	compiled, err := wholePattern(pattern)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name(), err)
	}
	return starlark.Bool(compiled.MatchString(text)), nil
}
