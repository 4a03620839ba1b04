package flow

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Now implements Env.
func (p *play) Now() time.Time { return p.world.now }

// GroupMembers implements Env.
func (p *play) GroupMembers(_ context.Context, group string) ([]Person, error) {
	var out []Person
	for _, one := range p.everybody() {
		if slices.Contains(one.Groups, group) {
			out = append(out, one)
		}
	}
	return out, nil
}

// Person implements Env.
func (p *play) Person(_ context.Context, name string) (Person, error) {
	one, ok := p.world.people[name]
	if !ok {
		return Person{}, fmt.Errorf("there is no user %q", name)
	}
	return one, nil
}

// OnCall implements Env.
func (p *play) OnCall(_ context.Context, schedule string) ([]string, error) {
	duty, ok := p.world.duty[schedule]
	switch {
	case !ok:
		return nil, fmt.Errorf("the case says nothing about who is on call; want on_call %q { … }", schedule)
	case duty.problem != "":
		return nil, fmt.Errorf("%s", duty.problem)
	}
	return duty.users, nil
}

// Fetch implements Fetcher.
func (p *play) Fetch(_ context.Context, f Fetch) (Fetched, error) {
	for _, a := range p.world.net {
		if a.method != "" && a.method != f.Method || !glob(a.url, f.URL) {
			continue
		}
		if a.problem != "" {
			return Fetched{}, fmt.Errorf("%s", a.problem)
		}
		return Fetched{a.status, a.body}, nil
	}
	return Fetched{}, fmt.Errorf("the case answers no %s %s; want http %q { … }", f.Method, f.URL, f.URL)
}

// Print implements Printer.
func (p *play) Print(text string) {
	if len(p.printed) < maxList {
		p.printed = append(p.printed, text)
	}
}

// everybody is the people of the world, by name.
func (p *play) everybody() []Person {
	var out []Person
	for _, one := range p.world.people {
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Person) int { return strings.Compare(a.Name, b.Name) })
	return out
}
