package flow

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/internal/tags"
)

// world is an Env of a few people, at noon on a Friday.
type world struct {
	now    time.Time
	people map[string]Person
	duty   map[string][]string
	answer func(Fetch) (Fetched, error)
	said   []string
}

func newWorld() *world {
	return &world{
		now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
		people: map[string]Person{
			"ann": {ID: "AIDAANN", Name: "ann", Groups: []string{"dev"}, Tags: tags.Tags{"Team": "payments, search"}},
			"ben": {ID: "AIDABEN", Name: "ben", Groups: []string{"dev", "leads"}},
		},
		duty: map[string][]string{"primary": {"ben"}},
	}
}

func (w *world) Now() time.Time { return w.now }

func (w *world) GroupMembers(_ context.Context, group string) ([]Person, error) {
	var out []Person
	for _, name := range []string{"ann", "ben"} {
		if p := w.people[name]; known(p.Groups, group) {
			out = append(out, p)
		}
	}
	return out, nil
}

func (w *world) Person(_ context.Context, name string) (Person, error) {
	if p, ok := w.people[name]; ok {
		return p, nil
	}
	return Person{}, errors.New("no such user")
}

func (w *world) OnCall(_ context.Context, schedule string) ([]string, error) {
	if duty, ok := w.duty[schedule]; ok {
		return duty, nil
	}
	return nil, errors.New("PagerDuty does not answer")
}

func (w *world) Print(text string) { w.said = append(w.said, text) }

// fetching is a world with a net.
type fetching struct{ *world }

func (w fetching) Fetch(_ context.Context, f Fetch) (Fetched, error) { return w.answer(f) }

func codeOf(source string) *Code {
	return &Code{File: "x.star", Source: source, HTTP: &HTTP{AllowHosts: []string{"api.example.com"}}}
}

func happening() Happening {
	w := newWorld()
	return Happening{
		Facts: Facts{
			Flow: "prod", Person: w.people["ann"], Reason: "look", Duration: time.Hour, Channel: "cli",
			Values:  Values{"ticket": {"OPS-1"}},
			Nodes:   []Node{{ID: "i-1", Name: "web-1", Tags: tags.Tags{"Env": "prod"}}},
			Targets: []Target{{Name: "web", Kind: TargetNodes, Nodes: &Nodes{Names: []string{"web-*"}}}},
		},
		Actor: w.people["ann"],
	}
}

func TestHooks(t *testing.T) {
	tests := []struct {
		name, body string
		want       Transition
		err        string
	}{
		{"nothing", "pass", Transition{}, ""},
		{"approve", "return approve()", Transition{Kind: Approve}, ""},
		{"deny", "return deny('no')", Transition{Kind: Deny, Message: "no"}, ""},
		{"deny without why", "return deny()", Transition{}, "x.star:2: deny: want a message that says why"},
		{"ignore", "return ignore(message='later')", Transition{Kind: Ignore, Message: "later"}, ""},
		{"forward", "return forward(people(groups=['leads']))", Transition{Kind: Forward, To: &People{Groups: []string{"leads"}}}, ""},
		{"on call", "return approve() if event.actor.name in on_call('primary') else deny('ask ' + on_call('primary')[0])", Transition{Kind: Deny, Message: "ask ben"}, ""},
		{"on call unknown", "return approve() if on_call('second') else None", Transition{}, `x.star:2: schedule "second": PagerDuty does not answer`},
		{"groups", "return approve() if 'dev' in event.actor.groups and len(members('leads')) == 1 else None", Transition{Kind: Approve}, ""},
		{"tags", "return approve() if 'search' in event.actor.tags['Team'] and event.request.nodes[0].tags['Env'] == ['prod'] else None", Transition{Kind: Approve}, ""},
		{"hours", "return approve() if within('09:00-17:00', days=['fri']) and not within('09:00-12:00') else None", Transition{Kind: Approve}, ""},
		{"zone", "return approve() if within('13:00-14:00', zone='Europe/Berlin') and now('Asia/Tokyo').hour == 21 else None", Transition{Kind: Approve}, ""},
		{"weekday", "return deny(weekday())", Transition{Kind: Deny, Message: "fri"}, ""},
		{"values", "return deny('%s %d' % (event.request.values['ticket'][0], event.request.duration))", Transition{Kind: Deny, Message: "OPS-1 3600"}, ""},
		{"duration", "return approve() if event.request.duration <= duration('1h') else None", Transition{Kind: Approve}, ""},
		{"matches", "return approve() if matches('[A-Z]+-[0-9]+', 'OPS-1') and not matches('O', 'OPS') else None", Transition{Kind: Approve}, ""},
		{"every operator in place", "x = 7\n  x += 5\n  x -= 2\n  x *= 3\n  x //= 2\n  x %= 8\n  x |= 8\n  x &= 13\n  x ^= 3\n  x <<= 3\n  x >>= 1\n  y = 9\n  y /= 2\n  return approve() if (x, y) == (56, 4.5) else None", Transition{Kind: Approve}, ""},
		{"in place", "x = [1]\n  y = x\n  y += (2,)\n  d = {'a': 1}\n  d['a'] += 1\n  d |= {'b': 3}\n  return approve() if x == [1, 2] and d == {'a': 2, 'b': 3} else None", Transition{Kind: Approve}, ""},
		{"text", "s = 'a' * 3 + ','.join(['b', 'c'])\n  s %= ()\n  return deny(s[1:].upper().replace('B', 'x') + '{}{k}'.format(1, k=2))", Transition{Kind: Deny, Message: "AAx,C12"}, ""},
		{"spread", "def f(a, *b, c=0, **d): return a + b[0] + c + d['e']\n  return approve() if f(*[1, 2], **{'c': 3, 'e': 4}) == 10 else None", Transition{Kind: Approve}, ""},
		{"comprehensions", "return approve() if {k: v for k, v in [(1, 2)] if k} == {1: 2} and [x for x in range(3)] == [0, 1, 2] and set([1, 1]) == set([1]) else None", Transition{Kind: Approve}, ""},
		{"code points", "l = list('äb'.codepoints())\n  l += list(b'x'.elems())\n  return deny('-'.join([str(x) for x in l] + [c for c in 'cd'.codepoints()]))", Transition{Kind: Deny, Message: "ä-b-120-c-d"}, ""},
		{"json", "return deny(json.encode(json.decode('{\"a\":[1]}')))", Transition{Kind: Deny, Message: `{"a":[1]}`}, ""},
		{"escape codes", "return deny('\\x1b[2Jok')", Transition{}, "x.star:2: deny: message: holds control characters; want plain text"},
		{"no transition", "return True", Transition{}, "x.star:1: returned a bool, want approve(), deny(message), ignore(message), forward(people) or None"},
		{"mistake", "return event.request.nosuch", Transition{}, "x.star:2: struct has no .nosuch attribute"},
		{"mistake of types", "x = 1\n  return 'a' + x", Transition{}, "x.star:3: unknown binary op: string + int"},
		{"fail", "fail('broken', 1)", Transition{}, "x.star:2: fail: broken 1"},
		{"nobody", "return forward(people())", Transition{}, "x.star:2: people: selects nobody"},
		{"user", "return deny(user('ben').id)", Transition{Kind: Deny, Message: "AIDABEN"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code := codeOf("def on_request(event):\n  " + test.body + "\n")
			got, err := code.On(context.Background(), newWorld(), HookRequest, happening())
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("transition (-want +got):\n%s", diff)
			}
			if said := fmt.Sprint(err); test.err != "" && said != test.err || test.err == "" && err != nil {
				t.Errorf("got error %v, want %q", err, test.err)
			}
		})
	}
}

// Whatever code does, it ends, and takes no more than its share.
func TestCodeIsBounded(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{"loop", "for i in range(100000):\n    for j in range(100000):\n      pass", "took more than 1000000 steps"},
		{"while", "while True:\n    pass", "does not support while loops"},
		{"recursion", "f(1)\ndef f(x): return f(x)", "called recursively"},
		{"mutual recursion", "f()\ndef f(): return g()\ndef g(): return f()", "called recursively"},
		{"range", "return sorted(range(1000000000000))", "at most 100000"},
		{"range in max", "return max(range(1000000000000))", "at most 100000"},
		{"repeated text", "return 'a' * (1 << 29)", "too much memory"},
		{"repeated text, the other way", "return (1 << 29) * 'a'", "too much memory"},
		{"repeated list", "return [0] * (1 << 26)", "too much memory"},
		{"doubled text", "s = 'a'\n  for i in range(60):\n    s = s + s", "too long"},
		{"doubled in place", "s = 'a'\n  for i in range(60):\n    s += s", "too long"},
		{"doubled list", "l = [0]\n  for i in range(60):\n    l = l + l", "too much memory"},
		{"doubled list in place", "l = [0]\n  for i in range(60):\n    l += l", "too much memory"},
		{"extended list", "l = [0]\n  for i in range(60):\n    l.extend(l)", "too"},
		{"extended by a method in a variable", "l = [0]\n  f = l.extend\n  for i in range(60):\n    f(l)", "too"},
		{"extended by getattr", "l = [0]\n  for i in range(60):\n    getattr(l, 'extend')(l)", "too"},
		{"multiplied list in place", "d = {'a': [0]}\n  for i in range(60):\n    d['a'] *= 1000", "too much memory"},
		{"squared number", "n = 3\n  for i in range(60):\n    n = n * n", "too large"},
		{"shifted number", "n = 1\n  for i in range(60):\n    n = n << 500", "too large"},
		{"read number", "return int('9' * 100000)", "at most"},
		{"join", "return ('a' * 100000).join(['b'] * 100000)", "too"},
		{"replace", "return ('a' * 100000).replace('a', 'b' * 100000)", "too"},
		{"format", "return ('{0}' * 10000).format('a' * 100000)", "too"},
		{"percent", "return ('%s' * 10000) % tuple(['a' * 100000] * 10000)", "too"},
		{"percent by name", "return ('%(a)s' * 10000) % {'a': 'a' * 100000}", "too"},
		{"bomb printed", "x = ['a']\n  for i in range(30):\n    x = [x] * 10\n  return str(x)", "too large or nested"},
		{"bomb compared", "x = [0]\n  y = [0]\n  for i in range(9):\n    x = [x] * 1000\n    y = [y] * 1000\n  return x == y", "too large or nested"},
		{"bomb sought", "x = [0]\n  for i in range(9):\n    x = [x] * 1000\n  return x in [x[:]]", "too large or nested"},
		{"bomb as key", "x = (0,)\n  for i in range(9):\n    x = (x,) * 1000\n  return {x: 1}", "too large or nested"},
		{"bomb as index", "x = (0,)\n  for i in range(9):\n    x = (x,) * 1000\n  d = {}\n  d[x] = 1", "too large or nested"},
		{"bomb in a set", "x = (0,)\n  for i in range(9):\n    x = (x,) * 1000\n  return set([x])", "too large or nested"},
		{"bomb sorted", "x = [0]\n  for i in range(9):\n    x = [x] * 1000\n  return sorted([x, x])", "too large or nested"},
		{"bomb as JSON", "x = [0]\n  for i in range(9):\n    x = [x] * 1000\n  return json.encode(x)", "too large or nested"},
		{"deep", "x = []\n  for i in range(100000):\n    x = [x]\n  return str(x)", "too large or nested"},
		{"spread", "l = []\n  x = [0] * 100000\n  for i in range(1000):\n    l.append((lambda *a: a)(*x))", "too much memory"},
		{"slices", "l = []\n  x = [0] * 100000\n  for i in range(1000):\n    l.append(x[1:])", "too much memory"},
		{"split", "l = []\n  x = 'a' * 100000\n  for i in range(1000):\n    l.append(list(x.elems()))", "too much memory"},
		{"join of code points", "return ('a' * 100000).join(('b' * 100000).codepoints())", "string.codepoints does not know its length; write list(…)"},
		{"join of bytes", "return ('a' * 100000).join(b'bbb'.elems())", "bytes.elems does not know its length; write list(…)"},
		{"join of code points in a variable", "x = 'bbb'.codepoints()\n  return getattr('a', 'join')(x)", "write list(…)"},
		{"code points added in place", "l = []\n  for i in range(1000):\n    l += ('a' * 100000).codepoints()", "write list(…)"},
		{"bytes added in place", "l = []\n  for i in range(1000):\n    l += (b'a' * 100000).elems()", "write list(…)"},
		{"code points by a method", "l = []\n  l.extend(('a' * 1000).codepoint_ords())", "write list(…)"},
		{"bytes by a method", "d = {}\n  d.update(b'ab'.elems())", "write list(…)"},
		{"code points in a dictionary", "d = {}\n  d |= 'ab'.codepoints()", "unknown binary op"},
		{"code points in a set", "s = set()\n  return s.union('ab'.codepoints())", "write list(…)"},
		{"spread code points", "return (lambda *a: a)(*('a' * 100000).codepoints())", "write list(…)"},
		{"spread bytes", "return (lambda *a: a)(*(b'a' * 100000).elems())", "write list(…)"},
		{"code points printed", "return str([('a' * 1000000).codepoints()] * 60000)", "too large or nested"},
		{"bytes printed", "return '%s' % ([(b'a' * 1000000).elems()] * 60000)", "too large or nested"},
		{"zipped code points", "return zip(*[('a' * 100000).codepoints()] * 1000)", "too large or nested"},
		{"zipped bytes", "return zip(*[(b'a' * 100000).elems()] * 1000)", "too large or nested"},
		{"empty dictionaries", "l = []\n  for i in range(100000):\n    l.append([{}, {}, {}, {}, {}, {}, {}, {}])", "too much memory"},
		{"empty sets", "l = [set() for i in range(100000) for j in range(3)]", "took more than"},
		{"comprehensions", "l = []\n  for i in range(100):\n    l.append([x for x in range(1000)])\n    l.append({x: x for x in range(1000)})", "took more than"},
		{"lookups", "for i in range(1000):\n    members('dev')", "at most 200 times"},
		{"fetches", "for i in range(100):\n    http_get('https://api.example.com/')", "more than 10 requests"},
		{"endless pattern", "return matches('(' * 2000, 'a')", "at most 1000"},
		{"many patterns", "for i in range(100000):\n    matches('(a{30}){30}', 'a' * 10000)", "too much memory"},
		{"huge pattern", "return matches('((abcdefghijklmnopqrst){10}){100}', 'a')", "repeats too much"},
		{"huge text", "return matches('a*', 'a' * 20000)", "at most 16384"},
		{"sums while loading", "pass\n\nx = [i for i in range(100000)]", "too many steps"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			start := time.Now()
			w := newWorld()
			w.answer = func(Fetch) (Fetched, error) { return Fetched{Status: 200}, nil }
			body, rest, _ := strings.Cut(test.body, "\ndef ")
			if rest != "" {
				rest = "\ndef " + rest
			}
			_, err := codeOf("def on_request(event):\n  "+body+rest+"\n").On(context.Background(), fetching{w}, HookRequest, happening())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}
