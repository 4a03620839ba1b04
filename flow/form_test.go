package flow

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/internal/tags"
)

func formFlow() *Flow {
	return &Flow{
		Name:   "x",
		Clocks: Clocks{Default: time.Hour, Longest: 4 * time.Hour},
		Code:   codeOf("def teams(person): return person.tags.get('Team', [])\ndef broken(person): return 1 + ''\ndef wrong(person): return {1: 2}.values()[0]"),
		Fields: []Field{
			{Name: "ticket", Type: FieldString, Pattern: "[A-Z]+-[0-9]+", Message: "a ticket such as OPS-1"},
			{Name: "size", Type: FieldInt, Default: []string{"1"}, Allowed: []string{"1", "2"}},
			{Name: "ports", Type: FieldIntList},
			{Name: "sure", Type: FieldBool},
			{Name: "every", Type: FieldDuration},
			{Name: "for", Type: FieldPerson},
			{Name: "with", Type: FieldPersonList},
			{Name: "team", Type: FieldString, Options: "teams"},
			{Name: "broken", Type: FieldString, Options: "broken"},
			{Name: "wrong", Type: FieldString, Options: "wrong"},
		},
	}
}

func TestFill(t *testing.T) {
	base := func(more Values) Values {
		out := Values{"reason": {"look"}}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	tests := []struct {
		name  string
		given Values
		want  Values // beside reason, duration and size
		err   string
	}{
		{"nothing", Values{}, nil, "reason: is required"},
		{"blank", Values{"reason": {" \n"}}, nil, "reason: is required"},
		{"reason", base(nil), nil, ""},
		{"unknown field", base(Values{"tikcet": {"x"}}), nil, "tikcet: the form has no such field; it has ticket, size"},
		{"two reasons", Values{"reason": {"a", "b"}}, nil, "reason: want one value"},
		{"pattern", base(Values{"ticket": {"OPS-12"}}), Values{"ticket": {"OPS-12"}}, ""},
		{"pattern in part", base(Values{"ticket": {"OPS-12; rm"}}), nil, `ticket: "OPS-12; rm" is not allowed: a ticket such as OPS-1`},
		{"pattern on a line", base(Values{"ticket": {"OPS-12\nx"}}), nil, `ticket: "OPS-12 x" is not allowed`},
		{"number", base(Values{"size": {" +002 "}}), Values{"size": {"2"}}, ""},
		{"number not allowed", base(Values{"size": {"3"}}), nil, `size: "3" is not allowed; want 1 or 2`},
		{"no number", base(Values{"size": {"two"}}), nil, "size: want a whole number"},
		{"numbers", base(Values{"ports": {"80", "443", "080"}}), Values{"ports": {"80", "443"}}, ""},
		{"numbers in one", base(Values{"ports": {"80,443"}}), nil, "ports: want a whole number"},
		{"truth", base(Values{"sure": {"true"}}), Values{"sure": {"true"}}, ""},
		{"no truth", base(Values{"sure": {"yes"}}), nil, "sure: want true or false"},
		{"duration field", base(Values{"every": {"90m"}}), Values{"every": {"1h30m"}}, ""},
		{"zero duration", base(Values{"every": {"0s"}}), nil, "every: want a duration"},
		{"person", base(Values{"for": {"ben"}}), Values{"for": {"ben"}}, ""},
		{"nobody", base(Values{"for": {"zoe"}}), nil, `for: there is no user "zoe"`},
		{"persons", base(Values{"with": {"ann", "ben"}}), Values{"with": {"ann", "ben"}}, ""},
		{"computed", base(Values{"team": {"search"}}), Values{"team": {"search"}}, ""},
		{"computed, not allowed", base(Values{"team": {"billing"}}), nil, `team: "billing" is not allowed; want payments or search`},
		{"code that fails", base(Values{"broken": {"x"}}), nil, "field broken: x.star:2: unknown binary op: int + string"},
		{"code that returns no list", base(Values{"wrong": {"x"}}), nil, "field wrong: x.star:3: returned a int, want a list of texts"},
		{"longest", base(Values{"duration": {"4h"}}), Values{"duration": {"4h"}}, ""},
		{"too long", base(Values{"duration": {"4h1s"}}), nil, "duration: want from 1s to 4h"},
		{"negative", base(Values{"duration": {"-1h"}}), nil, "duration: want a duration"},
		{"escape codes", base(Values{"ticket": {"\x1b[2J"}}), nil, "ticket: holds control characters; want plain text"},
		{"escape codes in the reason", Values{"reason": {"ok\x1b]0;approved\x07"}}, nil, "reason: holds control characters"},
		{"C1 codes", Values{"reason": {"ok\u009b2J"}}, nil, "reason: holds control characters"},
		{"text that runs backwards", Values{"reason": {"\u202etnemyap"}}, nil, "reason: holds control characters"},
		{"no UTF-8", Values{"reason": {"\xff"}}, nil, "reason: is not UTF-8"},
		{"long", Values{"reason": {strings.Repeat("ä", maxText+1)}}, nil, "reason: has 1001 characters; at most 1000"},
		{"many", base(Values{"ports": make([]string, maxValues+1)}), nil, "ports: at most 100 values"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld()
			got, _, _, err := formFlow().Fill(context.Background(), w, w.people["ann"], test.given)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want %q", err, test.err)
				}
				return
			}
			want := Values{"reason": {"look"}, "duration": {"1h"}, "size": {"1"}}
			for k, v := range test.want {
				want[k] = v
			}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("got %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// A reason stays one line: it cannot forge others where it is shown.
func TestReasonIsOneLine(t *testing.T) {
	w := newWorld()
	_, reason, for_, err := formFlow().Fill(context.Background(), w, w.people["ann"], Values{"reason": {"look\r\nApproved by ben\u2028now"}, "duration": {"90m"}})
	if err != nil || reason != "look Approved by ben now" || for_ != 90*time.Minute {
		t.Errorf("got %q, %v, %v", reason, for_, err)
	}
}

// Who fills in a form is told at once of all that is wrong.
func TestAllFieldErrors(t *testing.T) {
	_, _, _, err := formFlow().Fill(context.Background(), newWorld(), Person{Name: "ann"},
		Values{"colour": {"red"}, "size": {"9"}, "duration": {"5h"}})
	var all FieldErrors
	if !errors.As(err, &all) {
		t.Fatalf("got %v, want FieldErrors", err)
	}
	var names []string
	for _, one := range all {
		names = append(names, one.Field)
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"colour", "duration", "reason", "size"}, names); diff != "" {
		t.Errorf("-want +got:\n%s\n%v", diff, err)
	}
}

func TestFieldErrorsAreTyped(t *testing.T) {
	_, _, _, err := formFlow().Fill(context.Background(), newWorld(), Person{Name: "ann"}, Values{"reason": {"x"}, "size": {"9"}})
	var f *FieldError
	if !errors.As(err, &f) || f.Field != "size" {
		t.Errorf("got %v, want a *FieldError of size", err)
	}
}

func TestPeople(t *testing.T) {
	w := newWorld()
	tests := []struct {
		name string
		of   People
		who  string
		want bool
		err  bool
	}{
		{"nobody", People{}, "ann", false, false},
		{"everyone", People{Everyone: true}, "ann", true, false},
		{"by name", People{Users: []string{"ann"}}, "ann", true, false},
		{"by another name", People{Users: []string{"Ann", "an*"}}, "ann", false, false},
		{"group", People{Groups: []string{"leads"}}, "ben", true, false},
		{"not in the group", People{Groups: []string{"leads"}}, "ann", false, false},
		{"one value of a tag", People{Tags: map[string][]string{"Team": {"search"}}}, "ann", true, false},
		{"the whole tag", People{Tags: map[string][]string{"Team": {"payments, search"}}}, "ann", false, false},
		{"every key", People{Tags: map[string][]string{"Team": {"search"}, "Site": {"berlin"}}}, "ann", false, false},
		{"no such tag", People{Tags: map[string][]string{"Team": {""}}}, "ben", false, false},
		{"any of the ways", People{Users: []string{"zoe"}, Groups: []string{"dev"}}, "ann", true, false},
		{"on call", People{OnCall: []string{"primary"}}, "ben", true, false},
		{"not on call", People{OnCall: []string{"primary"}}, "ann", false, false},
		{"source that fails", People{OnCall: []string{"second"}}, "ben", false, true},
		{"source that fails, and one that does not", People{OnCall: []string{"second", "primary"}}, "ben", true, true},
		{"named, whatever the source says", People{Users: []string{"ben"}, OnCall: []string{"second"}}, "ben", true, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.of.Has(context.Background(), w, w.people[test.who])
			if got != test.want || (err != nil) != test.err {
				t.Errorf("got %v, %v, want %v, an error: %v", got, err, test.want, test.err)
			}
		})
	}
	if has, err := (People{Everyone: true, Users: []string{""}}).Has(context.Background(), w, Person{}); has || err != nil {
		t.Errorf("somebody without a name: got %v, %v, want false", has, err)
	}
	if has, err := (People{OnCall: []string{"primary"}}).Has(context.Background(), nil, w.people["ben"]); has || err == nil {
		t.Errorf("without anybody to ask: got %v, %v, want an error", has, err)
	}
}

func TestNodes(t *testing.T) {
	web := Node{ID: "i-1", Name: "web-1", Tags: tags.Tags{"Team": "payments, search", "Env": "prod"}}
	tests := []struct {
		name  string
		nodes *Nodes
		node  Node
		want  bool
	}{
		{"nothing selects nothing", &Nodes{}, web, false},
		{"nil", nil, web, false},
		{"id", &Nodes{IDs: []string{"i-1"}}, web, true},
		{"another id", &Nodes{IDs: []string{"i-*"}}, web, false},
		{"name", &Nodes{Names: []string{"web-?"}}, web, true},
		{"all names", &Nodes{Names: []string{"*"}}, web, true},
		{"letters' case", &Nodes{Names: []string{"WEB-*"}}, web, false},
		{"no name", &Nodes{Names: []string{"*"}}, Node{ID: "i-2"}, false},
		{"id or name", &Nodes{IDs: []string{"i-9"}, Names: []string{"web-1"}}, web, true},
		{"tag", &Nodes{Tags: map[string][]string{"Team": {"search"}}}, web, true},
		{"tag and name", &Nodes{Names: []string{"db-*"}, Tags: map[string][]string{"Team": {"search"}}}, web, false},
		{"one of the values", &Nodes{Tags: map[string][]string{"Env": {"staging", "prod"}}}, web, true},
		{"every key", &Nodes{Tags: map[string][]string{"Env": {"prod"}, "Team": {"billing"}}}, web, false},
		{"wildcards are for names", &Nodes{Tags: map[string][]string{"Env": {"*"}}}, web, false},
	}
	for _, test := range tests {
		if got := test.nodes.Has(test.node); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"*", "", true}, {"?", "", false}, {"a*c", "abbc", true}, {"a*c", "abcd", false}, {"*a*b*", "xaybz", true},
		{"a?c", "aöc", true}, {"**", "x", true}, {"a", "ab", false}, {"[a]", "a", false}, {strings.Repeat("*a", 50), strings.Repeat("a", 200) + "b", false},
	} {
		if got := glob(test.pattern, test.s); got != test.want {
			t.Errorf("%q, %q: got %v, want %v", test.pattern, test.s, got, test.want)
		}
	}
}

func TestHours(t *testing.T) {
	at := func(text string) time.Time {
		got, err := time.Parse("2006-01-02T15:04", text) // 2026-11-20 is a Friday
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	tests := []struct {
		hours string
		days  []string
		at    string
		want  bool
	}{
		{"09:00-17:00", nil, "2026-11-20T09:00", true},
		{"09:00-17:00", nil, "2026-11-20T17:00", false},
		{"09:00-24:00", nil, "2026-11-20T23:59", true},
		{"22:00-06:00", nil, "2026-11-20T23:00", true},
		{"22:00-06:00", nil, "2026-11-20T06:00", false},
		{"09:00-17:00", []string{"mon"}, "2026-11-20T10:00", false},
		{"22:00-06:00", []string{"fri"}, "2026-11-21T05:00", true},
		{"22:00-06:00", []string{"fri"}, "2026-11-20T05:00", false},
	}
	for _, test := range tests {
		h, err := ParseHours(test.hours)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Has(at(test.at), test.days); got != test.want {
			t.Errorf("%s %v at %s: got %v, want %v", test.hours, test.days, test.at, got, test.want)
		}
	}
	for _, text := range []string{"", "9:00-17:00", "09:00", "09:00-09:00", "24:00-01:00", "09:00-25:00", "0900-1700", "09:00 - 17:00"} {
		if h, err := ParseHours(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, h)
		}
	}
}
