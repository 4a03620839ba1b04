package cli

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/client"
)

func fleet() []client.Node {
	node := func(id, name string, tags ...string) client.Node {
		n := client.Node{NodeID: id, Name: name, State: client.StateConnected, Tags: map[string]string{}}
		for _, t := range tags {
			k, v, _ := strings.Cut(t, "=")
			n.Tags[k] = v
		}
		return n
	}
	return []client.Node{
		node("i-0aaaaaaaaaaaaaaa1", "shop-1", "Platform=shop", "Environment=Production"),
		node("i-0aaaaaaaaaaaaaaa2", "shop-2", "Platform=shop", "Environment=Staging"),
		node("i-0aaaaaaaaaaaaaaa3", "both", "Platform=shop, mail", "Environment=Production"),
		node("i-0aaaaaaaaaaaaaaa4", "mail-1", "Platform=mail"),
		node("i-0aaaaaaaaaaaaaaa5", "stray"),
		node("i-0aaaaaaaaaaaaaaa6", "evil\x1b[2J", "Platform=\x1b]0;x\x07"),
	}
}

// chooser chooses what a person would: the line that begins so, < to go back, or ^C.
type chooser struct {
	t     *testing.T
	types []string
	saw   []string
}

func (p *chooser) pick(l *picker) (int, error) {
	for _, line := range append([]string{l.title}, l.lines...) {
		if strings.ContainsAny(line, "\x1b\x07\u009b\n") {
			p.t.Errorf("the list shows %q", line)
		}
	}
	shown := l.lines
	if l.always > 0 {
		shown = l.lines[:l.always]
	}
	p.saw = append(p.saw, l.title+" "+strings.Join(firstWords(shown), "|"))
	next := p.types[0]
	p.types = p.types[1:]
	switch next {
	case "<":
		if !l.steps {
			p.t.Error("there is no going back here")
		}
		return 0, errBack
	case "^C":
		return 0, errNothingChosen
	case "":
		return l.cursor, nil
	}
	i := slices.IndexFunc(l.lines, func(line string) bool { return strings.Contains(line, next) })
	if i < 0 {
		p.t.Fatalf("%q is not in the list: %q", next, l.lines)
	}
	return i, nil
}

func firstWords(lines []string) []string {
	var words []string
	for _, l := range lines {
		word, _, _ := strings.Cut(l, "  ")
		words = append(words, word)
	}
	return words
}

func TestMenu(t *testing.T) {
	environments := dimension{Key: "Environment", Missing: "not sorted", Order: []string{"Staging"}}
	for name, test := range map[string]struct {
		types []string
		last  choice
		want  string // the node's name, or the error
		path  []string
		saw   []string
	}{
		"down": {
			types: []string{"shop ", "Production", "shop-1"}, want: "shop-1", path: []string{"shop", "Production"},
			saw: []string{"Platform? ␛]0;x␇|mail|shop|no Platform", "shop / Environment? Staging|Production", "shop / Production / Which node? i-0aaaaaaaaaaaaaaa1|i-0aaaaaaaaaaaaaaa3"},
		},
		"incomplete tags": {types: []string{"no Platform", "not sorted", "stray"}, want: "stray", path: []string{"no Platform", "not sorted"}},
		"several values":  {types: []string{"mail ", "Production", "both"}, want: "both", path: []string{"mail", "Production"}},
		"found by typing": {types: []string{"mail-1"}, want: "mail-1"},
		"back":            {types: []string{"shop ", "Staging", "<", "<", "mail ", "not sorted", "mail-1"}, want: "mail-1", path: []string{"mail", "not sorted"}},
		"last time":       {types: []string{"", "", ""}, last: choice{NodeID: "i-0aaaaaaaaaaaaaaa3", Path: []string{"shop", "Production"}}, want: "both", path: []string{"shop", "Production"}},
		"left":            {types: []string{"shop ", "^C"}, want: errNothingChosen.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			p := &chooser{t: t, types: test.types}
			m := &menu{dimensions: []dimension{{Key: "Platform"}, environments}, nodes: fleet(), last: test.last, pick: p.pick}
			n, path, err := m.run()
			got := n.Name
			if err != nil {
				got, path = err.Error(), nil
			}
			if got != test.want || err == nil && !slices.Equal(path, test.path) {
				t.Errorf("got %q in %q, want %q in %q", got, path, test.want, test.path)
			}
			if diff := cmp.Diff(test.saw, p.saw); test.saw != nil && diff != "" {
				t.Errorf("lists (-want +got)\n%s", diff)
			}
		})
	}
}

// A dimension that divides nothing is no step.
func TestMenuLeavesOutWhatNoNodeBears(t *testing.T) {
	got := borne([]dimension{{Key: "Platform"}, {Key: "Planet"}}, fleet())
	if len(got) != 1 || got[0].Key != "Platform" {
		t.Errorf("got %+v, want Platform alone", got)
	}
	p := &chooser{t: t, types: []string{"stray"}}
	if n, _, err := (&menu{nodes: fleet(), pick: p.pick}).run(); err != nil || n.Name != "stray" {
		t.Errorf("without dimensions: got %q, %v, want stray", n.Name, err)
	}
}

func TestPickerGoesBack(t *testing.T) {
	l := &picker{lines: []string{"a", "b", "hidden"}, always: 2, steps: true, width: 80}
	l.narrow("")
	if got := l.draw(); strings.Contains(got, "hidden") || !strings.Contains(got, "2 of 2") {
		t.Errorf("got %q, want the two lines that are always shown", got)
	}
	l.key("hid")
	if len(l.matches) != 1 || l.matches[0] != 2 {
		t.Errorf("got %v, want the line that is found by typing", l.matches)
	}
	l.key("\x7f")
	l.key("\x7f")
	if l.key("\x7f"); l.back {
		t.Error("Backspace went back while there was something to take away")
	}
	if done := l.key("\x7f"); !done || !l.back {
		t.Error("Backspace where nothing is typed does not go back")
	}
	first := &picker{lines: []string{"a"}, width: 80}
	first.narrow("")
	if done := first.key("\x1b[D"); done || first.back || errors.Is(errBack, errNothingChosen) {
		t.Error("the left arrow went back from the first step")
	}
}

// Over a slow line several keys arrive at once.
func TestPickerTakesKeysTogether(t *testing.T) {
	for typed, want := range map[string]string{
		"bax\x7f\x7f": "b", "\x1b[B\x1b[B\x1b[Ab": "b", "b\r": "b", "b\x1b[15~c": "bc", "é\x7fb": "b", "\x01\x02b": "b",
	} {
		l := &picker{lines: []string{"a", "b", "bc", "é"}, width: 80}
		l.narrow("")
		l.keys(typed)
		if l.filter != want {
			t.Errorf("%q: got filter %q, want %q", typed, l.filter, want)
		}
	}
	l := &picker{lines: []string{"a", "b"}, width: 80}
	l.narrow("")
	if done := l.keys("b\rxyz"); !done || len(l.matches) != 1 || l.matches[0] != 1 {
		t.Errorf("got done %v, matches %v, want b chosen and the rest let go", done, l.matches)
	}
}

func TestListedByTagKey(t *testing.T) {
	nodes := fleet()
	for terms, want := range map[string]string{
		"Environment": "shop-1 shop-2 both", "Platform=mail": "both mail-1", "stray": "stray", "shop- Environment=Staging": "shop-2",
	} {
		var got []string
		for _, n := range nodes {
			if listed(n, strings.Fields(terms)) {
				got = append(got, n.Name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, want %q", terms, got, want)
		}
	}
}
