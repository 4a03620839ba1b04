package recording

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/internal/escape"
)

func redaction(t testing.TB, patterns ...Pattern) *Redaction {
	t.Helper()
	r, err := NewRedaction(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// noted is a Stage that keeps what it is given.
type noted struct {
	output, input strings.Builder
	events        []string
	flushes       int
}

func (n *noted) Output(_ time.Time, p []byte) error {
	n.output.Write(p)
	n.events = append(n.events, "o "+string(p))
	return nil
}

func (n *noted) Input(_ time.Time, p []byte) error {
	n.input.Write(p)
	n.events = append(n.events, "i "+string(p))
	return nil
}

func (n *noted) Resize(_ time.Time, cols, rows int) error {
	n.events = append(n.events, fmt.Sprintf("r %dx%d", cols, rows))
	return nil
}

func (n *noted) Marker(_ time.Time, label string) error {
	n.events = append(n.events, "m "+label)
	return nil
}

func (n *noted) Err() error  { return nil }
func (n *noted) Holds() bool { return false }

func (n *noted) Flush() error {
	n.flushes++
	return nil
}

func (n *noted) Close(End) (Summary, error) {
	n.events = append(n.events, "close")
	return Summary{}, nil
}

var password = Pattern{Expr: `(?i)password=\S+`}

// Whatever lies between the parts of a secret as it is shown, the secret is found, and what
// controls the terminal is kept.
func TestRedaction(t *testing.T) {
	awsKey := Pattern{Name: "key id", Expr: `AKIA[0-9A-Z]{16}`}
	tests := map[string]struct {
		patterns []Pattern
		cols     int
		in, want string
	}{
		"nothing":                                            {[]Pattern{password}, 80, "ls -l pass\r\n", "ls -l pass\r\n"},
		"a secret":                                           {[]Pattern{password}, 80, "a Password=x1 b\r\n", "a [redacted] b\r\n"},
		"two secrets":                                        {[]Pattern{password}, 80, "password=a password=b", "[redacted] [redacted]"},
		"several patterns":                                   {[]Pattern{password, awsKey}, 80, "AKIA0123456789ABCDEF password=b", "[redacted key id] [redacted]"},
		"overlapping":                                        {[]Pattern{password, awsKey}, 80, "password=AKIA0123456789ABCDEF+more", "[redacted]"},
		"own replacement":                                    {[]Pattern{{Expr: `secret \d+`, Replace: "***"}}, 80, "a secret 12, a secret x", "a ***, a secret x"},
		"colours within":                                     {[]Pattern{password}, 80, "\x1b[1mpass\x1b[31mword\x1b[0m=\x1b[32mx1\x1b[0m b", "\x1b[1m[redacted]\x1b[31m\x1b[0m\x1b[32m\x1b[0m b"},
		"wrapped by the terminal":                            {[]Pattern{password}, 10, "$ password=secret x", "$ [redacted] x"},
		"wrapped by readline":                                {[]Pattern{password}, 10, "$ password \r=secret x", "$ [redacted] x"},
		"wrapped by a pager":                                 {[]Pattern{password}, 10, "$ password\r\n=secret x", "$ [redacted] x"},
		"a line that is no wrap":                             {[]Pattern{password}, 80, "password\r\n=secret x", "password\r\n=secret x"},
		"a secret at the end of a line":                      {[]Pattern{password}, 80, "password=x\r\nls", "[redacted]\r\nls"},
		"two lines of a full screen":                         {[]Pattern{{Expr: `\bAKIA[0-9A-Z]{16}`}}, 80, "foo\x1b[5;1HAKIA0123456789ABCDEF", "foo\x1b[5;1H[redacted]"},
		"corrected while typed":                              {[]Pattern{password}, 80, "$ password=hunx\b \bter\r\n", "$ [redacted]\r\n"},
		"corrected before it is one":                         {[]Pattern{password}, 80, "$ passx\b \bword=hunter2 x\r\n", "$ passx\b \b[redacted] x\r\n"},
		"corrected in its first character":                   {[]Pattern{password}, 80, "$ x\b\x1b[Kpassword=hunter2\r\n", "$ x\b\x1b[K[redacted]\r\n"},
		"corrected twice":                                    {[]Pattern{password}, 80, "$ pasx\b \bswo0\b\x1b[Krd=hunter2\r\n", "$ pasx\b \bswo0\b\x1b[K[redacted]\r\n"},
		"corrected in the middle":                            {[]Pattern{password}, 80, "$ passwrd=\b\b\bord=\b\b\b\x1b[3Chunter2\r\n", "$ passwrd=\b\b\bord=\b\b\b\x1b[3C[redacted]\r\n"},
		"corrected with cursor movements":                    {[]Pattern{password}, 80, "$ passxxword\x1b[6D\x1b[2P\x1b[4C=hunter2\r\n", "$ passxxword\x1b[6D\x1b[2P\x1b[4C[redacted]\r\n"},
		"corrected into something else":                      {[]Pattern{password}, 80, "$ pass\b\b\b\b\x1b[Kword=hunter2\r\n$ word=x", "$ [redacted]\x1b[K\r\n$ word=x"},
		"corrected with erasing":                             {[]Pattern{password}, 80, "$ password=hunx\b\x1b[Kter\r\n", "$ [redacted]\x1b[K\r\n"},
		"a title":                                            {[]Pattern{password}, 80, "\x1b]0;password=x\a$ ", "\x1b]0;[redacted]\a$ "},
		"a title, ended by ST":                               {[]Pattern{password}, 80, "\x1b]2;password=x\x1b\\$ ", "\x1b]2;[redacted]\x1b\\$ "},
		"a command that the shell tells of (fish, kitty)":    {[]Pattern{password}, 80, "\x1b]133;C;cmdline_url=mysql%20--password%3Dx%201\a$ ", "\x1b]133;C;cmdline_url=mysql%20--[redacted]%201\a$ "},
		"a command that the shell tells of, ended by ST":     {[]Pattern{password}, 80, "\x1b]133;C;cmdline_url=p%61ssword%3dx\x1b\\$ ", "\x1b]133;C;cmdline_url=[redacted]\x1b\\$ "},
		"a command that the shell tells of (VS Code)":        {[]Pattern{{Expr: `pass;\S+`}}, 80, "\x1b]633;E;a pass\\x3bx\\\\y z;1\a$ ", "\x1b]633;E;a [redacted] z;1\a$ "},
		"a command that the shell tells of, quoted":          {[]Pattern{password}, 80, "\x1b]133;C;cmdline=a\\ pass\\word\\=x\a$ ", "\x1b]133;C;cmdline=a\\ [redacted]\a$ "},
		"a command in other characters":                      {[]Pattern{{Expr: `heslo: č+`}}, 80, "\x1b]133;C;cmdline_url=heslo:%20%C4%8D%c4%8d.\a$ ", "\x1b]133;C;cmdline_url=[redacted].\a$ "},
		"a command that is told of where a title is cut off": {[]Pattern{password}, 80, "\x1b]0;t\x1b]133;C;cmdline_url=p%61ssword%3dx\a$ ", "\x1b]0;t\x1b]133;C;cmdline_url=[redacted]\a$ "},
		"a sequence that is cut off by another":              {[]Pattern{password}, 80, "pass\x1b[1\x1b[mword=x y", "[redacted]\x1b[1\x1b[m y"},
		"a sequence that makes no sense":                     {[]Pattern{password}, 80, "pass\x1b[1?2Hword\x1b[?5H=x y", "[redacted]\x1b[1?2H\x1b[?5H y"},
		"controls of one character":                          {[]Pattern{password}, 80, "pass\u009b1mword\u009b0m=x y", "[redacted]\u009b1m\u009b0m y"},
		"a command told of in controls of one character":     {[]Pattern{password}, 80, "\u009d133;C;cmdline_url=password%3Dx\u009c$ ", "\u009d133;C;cmdline_url=[redacted]\u009c$ "},
		"a title between the parts, ended by one character":  {[]Pattern{password}, 80, "pass\x1b]0;t\u009cword=x y", "[redacted]\x1b]\u009c y"},
		"characters without width":                           {[]Pattern{password}, 80, "pass\u200bwo\u2060rd=x y", "[redacted] y"},
		"characters":                                         {[]Pattern{{Expr: `tajné-\pL+`}}, 80, "heslo tajné-žluťoučký kůň", "heslo [redacted] kůň"},
		"at the beginning of lines":                          {[]Pattern{{Expr: `(?m)^key: .*$`}}, 80, "a key: 1\nkey: 2\nb", "a key: 1\n[redacted]\nb"},
		"as little as possible":                              {[]Pattern{{Expr: `<s>(?s:.)*?</s>`}}, 80, "a<s>1\n</s>b</s><s>c", "a[redacted]b</s><s>c"},
		"bytes of no character":                              {[]Pattern{password}, 80, "\xff\xc3password=\xfe\xff a\xe2\x98", "\xff\xc3[redacted] a\xe2\x98"},
		"words that are looked for":                          {[]Pattern{password}, 80, "passpasspassword=a", "passpass[redacted]"},
		"a key":                                              {[]Pattern{mustKnow("private-key")}, 80, "$ cat k\r\n" + pem + "$ ", "$ cat k\r\n[redacted private-key]\r\n$ "},
		"a key with a head":                                  {[]Pattern{mustKnow("private-key")}, 80, strings.Replace(pem, "-----\r\n", "-----\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-128-CBC,01\r\n\r\n", 1) + "$ ", "[redacted private-key]\r\n$ "},
		"a public key":                                       {[]Pattern{mustKnow("private-key")}, 80, strings.ReplaceAll(pem, "PRIVATE", "PUBLIC"), strings.ReplaceAll(pem, "PRIVATE", "PUBLIC")},
		"the word alone":                                     {[]Pattern{mustKnow("bearer-token")}, 80, "the bearer of this\r\n", "the bearer of this\r\n"},
		"a token":                                            {[]Pattern{mustKnow("bearer-token")}, 80, "Authorization: Bearer abc.def-012==\r\n", "Authorization: [redacted bearer-token]\r\n"},
		"a secret key in a file":                             {[]Pattern{mustKnow("aws-secret-key")}, 80, "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\r\n", "aws_[redacted aws-secret-key]\r\n"},
		"a secret key in JSON":                               {[]Pattern{mustKnow("aws-secret-key")}, 80, `"SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",`, `"[redacted aws-secret-key]",`},
		"a URL":                                              {[]Pattern{mustKnow("url-password")}, 80, "git clone https://me:pw@host/x", "git clone https[redacted url-password]host/x"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := redaction(t, tt.patterns...)
			for _, size := range []int{1, 2, 3, 7, len(tt.in)} {
				got := splitFeed(t, r, tt.cols, []byte(tt.in), func() int { return size })
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("in parts of %d bytes (-want +got):\n%s", size, diff)
				}
			}
		})
	}
}

const pem = "-----BEGIN RSA PRIVATE KEY-----\r\nMIIEpAIBAAKCAQEA7bq\r\nabcdef0123+/==\r\n-----END RSA PRIVATE KEY-----\r\n"

func mustKnow(name string) Pattern {
	p, err := KnownPattern(name)
	if err != nil {
		panic(err)
	}
	return p
}

// splitFeed passes in through redaction in parts.
func splitFeed(t testing.TB, r *Redaction, cols int, in []byte, size func() int) string {
	t.Helper()
	var out strings.Builder
	s := r.stream(cols, func(p []byte) error {
		out.Write(p)
		return nil
	})
	for len(in) > 0 {
		n := min(max(size(), 1), len(in))
		if err := s.feed(in[:n:n]); err != nil {
			t.Fatal(err)
		}
		if len(s.held) > maxMatch {
			t.Fatalf("%d bytes are held", len(s.held))
		}
		in = in[n:]
	}
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// fuzzed are patterns of which regexp finds the same matches when it replaces all.
var fuzzed = []Pattern{
	{Expr: `(?i)password=\S+`, Replace: "*"},
	{Expr: `AK[0-9]{3}\b`, Replace: "*"},
	{Expr: `<s>[^<]*</s>`, Replace: "*"},
	{Expr: `(?:ab|ba)c`, Replace: "*"},
	{Expr: `(?m)^key: .*$`, Replace: "*"},
}

var fuzzWords = []string{"pass", "word=", "password=", "Passwor", "AK", "123", "12", " ", "\n", "<s>", "</s>", "ab", "ac", "bac", "key: ", "é", "\xff", "x", "=", "<"}

// Without controls, what comes out is what regexp makes of the whole text.
func TestRedactionIsReplaceAll(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 1))
		var text strings.Builder
		for range random.IntN(60) {
			text.WriteString(fuzzWords[random.IntN(len(fuzzWords))])
		}
		for _, p := range fuzzed {
			want := regexp.MustCompile(p.Expr).ReplaceAllLiteralString(text.String(), p.Replace)
			got := splitFeed(t, redaction(t, p), 0, []byte(text.String()), func() int { return 1 + random.IntN(9) })
			if got != want {
				t.Fatalf("%s in %q: got %q, want %q", p.Expr, text.String(), got, want)
			}
		}
	}
}

// Whatever the text and however it is cut: no match comes out, and everything else does, in
// its order.
func FuzzRedaction(f *testing.F) {
	f.Add([]byte("a password=x b\x1b[1mpass\x1b[31mword=y\r\n"), uint64(1), 10)
	f.Add([]byte("pass\x1b]0;password=1\aword=x\b \b"), uint64(2), 4)
	r := redaction(f, fuzzed...)
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, cols int) {
		if len(in) > 1<<12 || cols < 0 || cols > 1000 {
			return
		}
		random := rand.New(rand.NewPCG(seed, 1))
		whole := splitFeed(t, r, cols, in, func() int { return len(in) })
		got := splitFeed(t, r, cols, in, func() int { return random.IntN(12) })
		if got != whole {
			t.Fatalf("in parts %q, in one piece %q", got, whole)
		}
		shown := withoutSequences(got)
		for _, u := range r.rules {
			if strings.Contains(u.re.String(), `\b`) { // a replacement beside it can make it one
				continue
			}
			if m := u.re.FindString(shown); m != "" && !strings.Contains(m, "*") && !strings.ContainsAny(shown, "\x1b\a\b\x7f") {
				t.Fatalf("%s found %q in %q of %q", u.re, m, got, in)
			}
		}
		if rest := strings.ReplaceAll(got, "*", ""); !isWithin(rest, strings.ReplaceAll(string(in), "*", "")) {
			t.Fatalf("got %q of %q", got, in)
		}
	})
}

// withoutSequences is what was written without sequences, but for the beginnings of
// strings, and without the controls that do nothing.
func withoutSequences(output string) string {
	var p escape.Parser
	var b strings.Builder
	for _, r := range output {
		switch found := p.Next(r); {
		case found == escape.StringBegin:
			b.WriteByte('\x1b')
		case found == escape.Text || found == escape.StringText || found == escape.Control && strings.ContainsRune("\a\b\t\n\r", r):
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isWithin reports whether all bytes of part are in whole, in their order.
func isWithin(part, whole string) bool {
	for i := 0; i < len(part); i++ {
		j := strings.IndexByte(whole, part[i])
		if j < 0 {
			return false
		}
		whole = whole[j+1:]
	}
	return true
}

// clocked is a redactor with a clock of its own.
func clocked(t *testing.T, patterns ...Pattern) (*Redactor, *noted, *time.Time) {
	next, now := &noted{}, start
	return redaction(t, patterns...).Wrap(next, 80, func() time.Time { return now }), next, &now
}

// A secret that is typed slowly is known for what it is although its beginning has been
// let go.
func TestTypedSlowly(t *testing.T) {
	r, next, now := clocked(t, password, Pattern{Name: "id", Expr: `AKIA[0-9A-Z]{16}`})
	for _, c := range "$ password=hunter2 AKIA0123456789ABCDEF ok\r\n" {
		*now = now.Add(time.Second)
		for _, err := range []error{r.Output(*now, []byte(string(c))), r.Flush()} {
			must(t)(err)
		}
	}
	*now = now.Add(time.Second)
	must(t)(r.Flush())
	if got, want := next.output.String(), "$ password=[redacted] AKI[redacted id] ok\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if r.Holds() {
		t.Error("something is still held")
	}
}

// What may be the beginning of a match is held for HoldLimit, no longer, and not beyond
// the end.
func TestHolding(t *testing.T) {
	r, next, now := clocked(t, password)
	ok := must(t)
	ok(r.Output(*now, []byte("my pass")))
	ok(r.Resize(*now, 100, 30))
	ok(r.Flush())
	if got := next.output.String(); got != "my " || !r.Holds() {
		t.Errorf("at once: got %q", got)
	}
	*now = now.Add(HoldLimit)
	ok(r.Flush())
	if diff := cmp.Diff([]string{"o my ", "o pass", "r 100x30"}, next.events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	ok(r.Output(*now, []byte("ing password=x")))
	ok(r.Input(*now, []byte("passwo")))
	_, err := r.Close(end(0))
	ok(err)
	if got, want := next.output.String()+next.input.String(), "my passing [redacted]passwo"; got != want {
		t.Errorf("at the end: got %q, want %q", got, want)
	}
	if next.events[len(next.events)-1] != "close" {
		t.Errorf("got %q last", next.events[len(next.events)-1])
	}
}

// Half a character is awaited by nothing: events do not queue behind it, and no Flush is
// asked for.
func TestHoldingHalfACharacter(t *testing.T) {
	r, next, now := clocked(t, password)
	ok := must(t)
	ok(r.Output(*now, []byte("pass\xc5")))
	for i := range 10 * maxQueued {
		ok(r.Resize(*now, 80+i, 24))
		if n := len(r.queue); n > maxQueued {
			t.Fatalf("%d events wait", n)
		}
	}
	if got := len(next.events); got != 1+10*maxQueued {
		t.Errorf("got %d events, want the output and all resizes", got)
	}
	if r.Holds() {
		t.Error("something is still held")
	}
	ok(r.Output(*now, []byte("\xbc")))
	if got, want := next.output.String(), "passż"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A mark of a shell on a slow link waits for its end, but only as long as it is evidently
// one: a program that begins one and never ends it keeps nothing from being recorded.
func TestHoldingMarks(t *testing.T) {
	for _, end := range []string{"\a", "\x1b\\"} {
		whole := "\x1b]133;C;cmdline_url=password%3Dx%20y" + end
		for cut := 1; cut < len(whole); cut++ {
			r, next, now := clocked(t, password)
			ok := must(t)
			ok(r.Output(*now, []byte(whole[:cut])))
			*now = now.Add(HoldLimit)
			ok(r.Flush())
			ok(r.Output(*now, []byte(whole[cut:]+"$ ")))
			if got, want := next.output.String(), "\x1b]133;C;cmdline_url=[redacted]%20y"+end+"$ "; cut > len("\x1b]133;") && got != want {
				t.Errorf("cut at %d: got %q, want %q", cut, got, want)
			}
		}
	}
	for _, in := range []string{"\x1b]133;C;rm -rf /\r\n$ ls", "\x1b]0;rm -rf /"} {
		r, next, now := clocked(t, password)
		ok := must(t)
		ok(r.Output(*now, []byte(in)))
		*now = now.Add(HoldLimit)
		ok(r.Flush())
		if got := next.output.String(); got != in {
			t.Errorf("got %q, want %q", got, in)
		}
	}
	r, next, now := clocked(t, password)
	must(t)(r.Output(*now, []byte("\x1b]133;C;"+strings.Repeat("x", 2*maxMatch))))
	if got := next.output.Len(); got < maxMatch {
		t.Errorf("of a mark without an end %d bytes were let go", got)
	}
}

// No more than 16 KiB are held, however long a match gets, and one that never ends does
// not hide the rest of a session.
func TestLongMatches(t *testing.T) {
	r := redaction(t, Pattern{Expr: `(?s)-----BEGIN.*?-----END`})
	in := "-----BEGIN" + strings.Repeat("abcdefghijklmno\n", 1<<14) + "the rest"
	got := splitFeed(t, r, 80, []byte(in), func() int { return 3000 })
	if !strings.HasSuffix(got, "the rest") || len(got) < len(in)-maxThread-maxMatch {
		t.Errorf("of %d bytes %d are left", len(in), len(got))
	}
}

// Attack: a program goes back and forth in a line, so that it is read again and again. What
// that costs is bounded by what came, and by the stock for people who type.
func TestCorrectionsAreBounded(t *testing.T) {
	r := redaction(t, password)
	s := r.stream(80, func([]byte) error { return nil })
	in := strings.Repeat("x", maxCorrected) + strings.Repeat("a\b", 1<<18)
	must(t)(s.feed([]byte(in)))
	if most := int64(len(in)/correctionBytes + correctionStock); s.screen.line.spent > most {
		t.Errorf("%d characters were read again, want %d at most", s.screen.line.spent, most)
	}
	if n := cap(s.screen.line.text); n > 4*maxCorrected {
		t.Errorf("%d characters of the line are kept", n)
	}
	must(t)(s.feed([]byte(strings.Repeat("\x1b[9999@\x1b[9999P\x1b[9999C", 1<<12))))
	if n := cap(s.screen.line.text); n > 4*maxCorrected {
		t.Errorf("%d characters of the line are kept after inserting", n)
	}
}

func TestPatternsRefused(t *testing.T) {
	tests := map[string]struct {
		p    Pattern
		want string
	}{
		"no expression":         {Pattern{Expr: `a(`}, "missing closing"},
		"the empty text":        {Pattern{Expr: `a*`}, "matches the empty text"},
		"the empty text, bound": {Pattern{Expr: `\b`}, "matches the empty text"},
		"long":                  {Pattern{Expr: strings.Repeat("a", maxExpr+1)}, "at most 4096"},
		"large":                 {Pattern{Expr: `(?:[a-z]{900}){5}`}, "repeat"},
		"its own replacement":   {Pattern{Expr: `redacted`}, "matches the pattern"},
		"control characters":    {Pattern{Expr: `a`, Replace: "\x1b[2J"}, "control characters"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := NewRedaction([]Pattern{tt.p})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
	if _, err := KnownPattern("nonsense"); err == nil || !strings.Contains(err.Error(), "private-key") {
		t.Errorf("got %v, want the known ones named", err)
	}
}

// The known patterns compile, and none matches another's replacement.
func TestKnownPatterns(t *testing.T) {
	redaction(t, known...)
}

func TestRedactedText(t *testing.T) {
	var none *Redaction
	if got := none.Text("mysql -px"); got != "mysql -px" {
		t.Errorf("got %q", got)
	}
	if got, want := redaction(t, Pattern{Expr: `-p\S+`}).Text("mysql -px db"), "mysql [redacted] db"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func BenchmarkRedaction(b *testing.B) {
	line := []byte(strings.Repeat("Nov 20 19:10:13 host app[123]: GET /path?q=1 from 10.0.0.1 \x1b[1mok\x1b[0m bytes=512\r\n", 12))
	s := redaction(b, known...).stream(80, func([]byte) error { return nil })
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if err := s.feed(line); err != nil {
			b.Fatal(err)
		}
	}
}
