package recording

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A step of a session: "< text" is typed, "> text" is shown.
func guarded(t *testing.T, steps ...string) []string {
	t.Helper()
	next := &noted{}
	g := NewEchoGuard(next)
	for i, s := range steps {
		p := []byte(s[2:])
		var err error
		if s[0] == '<' {
			err = g.Input(at(0), p)
		} else {
			err = g.Output(at(0), p)
		}
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	if _, err := g.Close(end(0)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range next.events {
		if e[0] != 'o' && e != "close" {
			got = append(got, e)
		}
	}
	return got
}

// typing is a line typed key by key, each followed by its echo.
func typing(line, enter string) []string {
	var steps []string
	for _, r := range line {
		steps = append(steps, "< "+string(r), "> "+string(r))
	}
	return append(steps, "< \r", "> "+enter)
}

// hiding is a line typed key by key that nothing echoes.
func hiding(line string) []string {
	var steps []string
	for _, r := range line {
		steps = append(steps, "< "+string(r))
	}
	return append(steps, "< \r")
}

func join(parts ...any) []string {
	var all []string
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			all = append(all, p)
		case []string:
			all = append(all, p...)
		}
	}
	return all
}

const hidden = "m " + HiddenInput

func TestEchoedInput(t *testing.T) {
	tests := map[string]struct {
		steps []string
		want  []string
	}{
		"a line":                            {join("> $ ", typing("ls -l", "\r\n"), "> total 0\r\n$ "), []string{"i ls -l\r"}},
		"two lines":                         {join("> $ ", typing("ls", "\r\n"), "> x\r\n$ ", typing("pwd", "\r\n")), []string{"i ls\r", "i pwd\r"}},
		"slow link":                         {[]string{"> $ ", "< l", "< s", "> l", "< \r", "> s", "> \r\n"}, []string{"i ls\r"}},
		"all at once":                       {[]string{"> $ ", "< ls\r", "> ls\r\ntotal 0\r\n"}, []string{"i ls\r"}},
		"characters":                        {join("> $ ", typing("żółw 🐢", "\r\n")), []string{"i żółw 🐢\r"}},
		"half characters":                   {[]string{"> $ ", "< \xc5", "< \xbc\r", "> \xc5", "> \xbc\r\n"}, []string{"i ż\r"}},
		"Enter alone":                       {[]string{"> $ ", "< \r", "> \r\n$ "}, []string{"i \r"}},
		"an interrupt":                      {[]string{"> $ ", "< a", "> a", "< \x03", "> ^C\r\n$ "}, []string{"i a\x03"}},
		"a correction":                      {[]string{"> $ ", "< a", "> a", "< b", "> b", "< \x7f", "> \b \b", "< c", "> c", "< \r", "> \r\n"}, []string{"i ab\x7fc\r"}},
		"a correction that erases":          {[]string{"> $ ", "< ab", "> ab", "< \x7f", "> \b\x1b[K", "< b", "> b", "< \r", "> \r\n"}, []string{"i ab\x7fb\r"}},
		"an insertion":                      {[]string{"> $ ", "< ac", "> ac", "< \x1b[D", "> \b", "< b", "> bc\b", "< \r", "> \r\n"}, []string{"i ac\x1b[Db\r"}},
		"an insertion that makes room":      {[]string{"> $ ", "< ac", "> ac", "< \x1b[D", "> \b", "< b", "> \x1b[1@b", "< \r", "> \r\n"}, []string{"i ac\x1b[Db\r"}},
		"a completion":                      {[]string{"> $ ", "< ca", "> ca", "< \t", "> t fi", "< l", "> l", "< \r", "> \r\n"}, []string{"i ca\tl\r"}},
		"history":                           {[]string{"> $ ", "< \x1b[A", "> ls -l", "< \x1b[A", "> \b\b\b\b\b\x1b[Kpwd", "< ;", "> ;", "< \r", "> \r\n"}, []string{"i \x1b[A\x1b[A;\r"}},
		"pasted":                            {[]string{"> $ ", "< \x1b[200~ls -l\x1b[201~", "> \x1b[7mls -l\x1b[27m", "< \r", "> \x1b[6D\r$ ls -l\r\n"}, []string{"i \x1b[200~ls -l\x1b[201~\r"}},
		"coloured as typed":                 {[]string{"> % ", "< l", "> l", "< s", "> \b\x1b[32ml\x1b[32ms\x1b[39m", "< \r", "> \r\r\n"}, []string{"i ls\r"}},
		"suggested as typed":                {[]string{"> % ", "< l", "> l\x1b[90ms -la\x1b[39m\x1b[5D", "< s", "> s\x1b[90m -la\x1b[39m\b\b\b\b", "< \r", "> \x1b[K\r\r\n"}, []string{"i ls\r"}},
		"wrapped by readline":               {[]string{"> $ ", "< a", "> a", "< b", "> b \r", "< c", "> c", "< \r", "> \r\n"}, []string{"i abc\r"}},
		"lines for a program":               {[]string{"< one\rtwo\r", "> one\r\ntwo\r\n"}, []string{"i one\r", "i two\r"}},
		"typed ahead of a prompt":           {[]string{"> working\r\n", "< ls\r", "> ls\r\n", "> $ ls\r\nx\r\n"}, []string{"i ls\r"}},
		"echoed at the end":                 {[]string{"> $ ", "< ls", "> ls"}, []string{"i ls"}},
		"a title within":                    {[]string{"> $ ", "< l", "> \x1b]0;l\al", "< \r", "> \r\n"}, []string{"i l\r"}},
		"keys of a terminal that tells all": {[]string{"> $ ", "< \x1b[57399;5u\x1b[<35;120;45M\x1b[1;5C", "< ls\r", "> ls\r\n"}, []string{"i \x1b[57399;5u\x1b[<35;120;45M\x1b[1;5Cls\r"}},
		"an answer of the terminal":         {[]string{"> \x1b[6n", "< \x1b[12;40R", "> $ ", "< ls\r", "> ls\r\n"}, []string{"i \x1b[12;40Rls\r"}},
		"after a hidden line":               {join("> Name: ", hiding("hunter2"), "> \r\n$ ", typing("ls", "\r\n")), []string{hidden, "i ls\r"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, guarded(t, tt.steps...)); diff != "" {
				t.Errorf("input (-want +got):\n%s", diff)
			}
		})
	}
}

// Nothing of a line that is not evidently echoed is recorded, whatever is shown meanwhile.
func TestHiddenInput(t *testing.T) {
	tests := map[string][]string{
		"a prompt":                                join("> Name: ", hiding("hunter2"), "> \r\n$ "),
		"no output at all":                        hiding("hunter2"),
		"no newline after it":                     join("> $ ", hiding("hunter2"), "> $ "),
		"not ended":                               {"> Name: ", "< hun"},
		"pasted":                                  {"> Name: ", "< hunter2\r", "> \r\n"},
		"pasted in brackets":                      {"> Name: ", "< \x1b[200~hunter2\x1b[201~", "< \r", "> \r\n"},
		"stars":                                   {"> Name: ", "< h", "> *", "< u", "> *", "< \r", "> \r\n"},
		"stars erased":                            {"> Name: ", "< h", "> *", "< \x7f", "> \b \b", "< u", "> *", "< \r", "> \r\n"},
		"one space for each":                      {"> Name: ", "< h", ">  ", "< u", ">  ", "< \r", "> \r\n"},
		"first character echoed":                  {"> $ ", "< h", "> h", "> \r\nName: ", "< unter2\r", "> \r\n"},
		"first characters echoed, no prompt":      {"> $ ", "< hu", "> hu", "< nter2\r", "> \r\n"},
		"typed before the prompt":                 {"< hunter2", "> Name: ", "< \r", "> \r\n"},
		"erased in between":                       {"> Name: ", "< hx", "< \x7f", "< unter2\r", "> \r\n"},
		"a prompt that asks, though echoed":       join("> Password: ", typing("hunter2", "\r\n")),
		"… for a passphrase, in colours":          join("> \x1b[1mEnter passphrase for key 'x':\x1b[0m ", typing("hunter2", "\r\n")),
		"… after an arrow key":                    join("> Password: ", "< \x1b[A", typing("hunter2", "\r\n")),
		"ended by an interrupt":                   {"> Name: ", "< hunter2\x03", "> \r\n$ "},
		"ended by end of file":                    {"> Name: ", "< hunter2\x04", "> \r\n$ ", "< \r"},
		"background line with a beginning of it":  {"> Name: ", "< h", "> hello\r\n", "< unter2\r", "> \r\n"},
		"background line with all of it":          {"> Name: ", "< h", "> that is hunter2\r\n", "< unter2\r", "> \r\n"},
		"its characters, line by line":            {"> Name: ", "< 1", "> 1\r\n", "< 2", "> 2\r\n", "< 3", "> 3\r\n", "< \r", "> \r\n"},
		"its characters, among others":            {"> Name: ", "< 1", "> 12%", "< 2", "> 23%", "< \r", "> \r\n"},
		"its characters, from a bar":              {"> Name: ", "< 1", "> \r1", "< 2", "> \r2", "< \r", "> \r\n"},
		"its characters, from a wheel":            {"> Name: ", "< |", "> \b|", "< /", "> \b/", "< \r", "> \r\n"},
		"its characters, all over the screen":     {"> Name: ", "< 1", "> \x1b[5;5H1", "< 2", "> \x1b[6;6H2", "< \r", "> \r\n"},
		"its characters, after a Tab":             {"> Name: ", "< \t", "< 1", "> 1\r\n", "< 2", "> 2\r\n", "< \r", "> \r\n"},
		"its characters, after a Tab, from a bar": {"> Name: ", "< \t", "< 1", "> \r1", "< 2", "> \r2", "< \r", "> \r\n"},
		"its characters in a title":               {"> Name: ", "< h", "> \x1b]0;h\a", "< \r", "> \r\n"},
		"its characters, shown before":            {"> Name: hunter2\b\b\b\b\b\b\b", "< h", "< u", "> \x1b[C", "< \r", "> \r\n"},
		"a longer text":                           {"> Name: ", "< hunter2\r", "> hunter22\r\n"},
		"escaped characters":                      {"> Name: ", "< \x1bh", "< \x1bu", "< \r", "> \r\n"},
		"digits behind ESC [":                     {"> Name: ", "< \x1b[12345678x\r", "> \r\n"},
		"digits and more behind ESC [, in parts":  {"> Name: ", "< \x1b", "< [1234", "< ;5678", "< x\r", "> \r\n"},
		"signs behind ESC [":                      {"> Name: ", "< \x1b[!#$%x\r", "> \r\n"},
		"characters behind ESC ]":                 {"> Name: ", "< \x1b]hunter2\a\r", "> \r\n"},
		"characters behind ESC P":                 {"> Name: ", "< \x1bPhunter2\x1b\\\r", "> \r\n"},
		"bytes of no character":                   {"> Name: ", "< \xff\xfe\r", "> \xff\xfe\r\n"},
		"a full-screen program":                   {"> \x1b[?1049h\x1b[2J", "< d", "< d", "> \x1b[1;1Hline", "< :q\r", "> \x1b[24;1H:q\x1b[?1049l"},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			got := guarded(t, steps...)
			if diff := cmp.Diff([]string{hidden}, got); diff != "" {
				t.Errorf("input (-want +got):\n%s", diff)
			}
		})
	}
}

// What is typed as the password again, visibly, is recorded then, and only once.
func TestHiddenThenShown(t *testing.T) {
	got := guarded(t, join("> Name: ", hiding("ls"), "> \r\n$ ", typing("ls", "\r\n"))...)
	if diff := cmp.Diff([]string{hidden, "i ls\r"}, got); diff != "" {
		t.Errorf("input (-want +got):\n%s", diff)
	}
}

// What is held is bounded, whatever is typed.
func TestTypedBounds(t *testing.T) {
	next := &noted{}
	g := NewEchoGuard(next)
	ok := must(t)
	ok(g.Output(at(0), []byte("> ")))
	for range 100 {
		ok(g.Input(at(0), []byte(strings.Repeat("x", 1000))))
	}
	if n := len(g.lines[0].raw) + len(g.lines[0].want); n > 5*maxTyped {
		t.Errorf("%d are held of one line", n)
	}
	for range 1000 {
		ok(g.Input(at(0), []byte("x\r")))
	}
	if n := len(g.lines); n > maxLines+1 {
		t.Errorf("%d lines are held", n)
	}
	ok(g.Input(at(0), []byte("\x1b]"+strings.Repeat("y", 1000))))
	if n := len(g.keys.raw); n > maxKey+1 {
		t.Errorf("%d bytes are held of a key", n)
	}
}

// Attack: a program makes room in the line that is being typed, again and again. A few bytes
// of each such sequence must not hold thousands.
func TestShownBounds(t *testing.T) {
	g := NewEchoGuard(&noted{})
	ok := must(t)
	ok(g.Output(at(0), []byte("$ ")))
	ok(g.Input(at(0), []byte("a")))
	for range 100 {
		ok(g.Output(at(0), []byte("\x1b[9999@")))
	}
	if n := cap(g.echo.shown); n > 8*maxTyped {
		t.Errorf("%d characters are held of what is shown", n)
	}
}

// Programs without a terminal echo nothing.
func TestNoInput(t *testing.T) {
	next := &noted{}
	n := &NoInput{Stage: next}
	ok := must(t)
	ok(n.Output(at(0), []byte("[sudo] password: ")))
	ok(n.Input(at(0), []byte("hunter2")))
	ok(n.Input(at(0), []byte("\n")))
	if diff := cmp.Diff([]string{"o [sudo] password: ", hidden}, next.events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// Whatever is typed and shown: input that is recorded was shown, character by character,
// after it was typed; and nothing of the output changes.
func FuzzEchoGuard(f *testing.F) {
	f.Add("<ls\r>ls\r\n<x>y")
	f.Add("<h>h\r\n<u\r>\r\n")
	f.Add("<a\x1b[D>a\b<b>ba\b<\r>\r\n")
	f.Fuzz(func(t *testing.T, script string) {
		next := &noted{}
		g := NewEchoGuard(next)
		var shown strings.Builder
		for len(script) > 0 {
			typed := script[0] == '<'
			n := strings.IndexAny(script[1:], "<>") + 1
			if n == 0 {
				n = len(script)
			}
			p := []byte(script[1:n])
			script = script[n:]
			if typed {
				must(t)(g.Input(at(0), p))
				continue
			}
			shown.Write(p)
			must(t)(g.Output(at(0), p))
		}
		g.Close(end(0))
		if got := next.output.String(); got != shown.String() {
			t.Errorf("got output %q, want %q", got, shown.String())
		}
		text := func(s string) string {
			return strings.Map(func(r rune) rune {
				if r > ' ' && r != 0x7f && r < 0x80 {
					return r
				}
				return -1
			}, s)
		}
		if got := text(stripKeys(next.input.String())); !isWithin(got, text(shown.String())) {
			t.Errorf("input %q was not shown in %q", got, shown.String())
		}
	})
}

// stripKeys leaves the characters of what was typed.
func stripKeys(s string) string {
	var reader keyReader
	var out strings.Builder
	for p := []byte(s); len(p) > 0; {
		k, rest := reader.next(p)
		p = rest
		if k.kind == keyText {
			out.Write(k.raw)
		}
	}
	return out.String()
}
