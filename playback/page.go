package playback

import (
	"crypto/sha256"
	_ "embed" // the page's own code
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	pageInterval = 33 * time.Millisecond
	// maxPage bounds what a page holds of a recording, in bytes.
	maxPage = 48 << 20
)

//go:embed page.js
var pageScript string

//go:embed page.css
var pageStyle string

// pageTemplate is the page. Its policy lets run what is written here and nothing else,
// load nothing and send nothing; what was recorded is data, which the script shows as
// text.
var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '{{.ScriptHash}}'; style-src '{{.StyleHash}}'; base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width">
<title>{{.Title}}</title>
<style>{{.Style}}</style>
</head>
<body>
<h1>{{.Title}}</h1>
<dl>{{range .Facts}}<dt>{{.Name}}</dt><dd>{{.Value}}</dd>{{end}}</dl>
<main>
<div id="screen" role="img" aria-label="the recorded terminal"></div>
<div id="controls">
<button id="play" type="button">Play</button>
<input id="seek" type="range" min="0" value="0" step="1" aria-label="time">
<span id="clock"></span>
<label>speed <select id="speed"><option>0.5</option><option selected>1</option><option>2</option><option>4</option><option>8</option></select></label>
</div>
<ol id="marks"></ol>
</main>
<noscript>This page plays the recording with a script of its own; without scripts there is nothing to see.</noscript>
<script type="application/json" id="film">{{.Film}}</script>
<script>{{.Script}}</script>
</body>
</html>
`))

// Fact is a line of what a page says of a recording.
type Fact struct{ Name, Value string }

// WritePage writes a page that plays a recording by itself, in any browser: it loads
// nothing. Frames are as far apart as o says, 33 ms at least.
func WritePage(w io.Writer, t *Tape, title string, facts []Fact, o FrameOptions) error {
	o.Interval = max(o.Interval, pageInterval)
	r := reel{tape: t, styles: map[Style]int{}, to: o.To}
	r.style(Style{}, false) // the first
	if err := t.Frames(o, r.frame); err != nil {
		return err
	}
	film, err := json.Marshal(r.finish()) // < and > are escaped in it
	if err != nil {
		return fmt.Errorf("making the page: %w", err)
	}
	err = pageTemplate.Execute(w, map[string]any{
		"Title": clean(title), "Facts": cleanFacts(facts),
		"Film": template.JS(film), "Script": template.JS(pageScript), "Style": template.CSS(pageStyle),
		"ScriptHash": hashSource(pageScript), "StyleHash": hashSource(pageStyle),
	})
	if err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

// hashSource is how a Content-Security-Policy names an inline script or style.
func hashSource(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// pageFilm is what a page's script plays. Times are in milliseconds.
type pageFilm struct {
	Columns int         `json:"cols"`
	Rows    int         `json:"rows"`
	Length  int64       `json:"length"`
	Styles  []pageInk   `json:"styles"`
	Frames  []pageFrame `json:"frames"`
	Marks   []pageMark  `json:"marks"`
}

// pageInk is a style: colours as #rrggbb, "" for the page's own, and attributes as bits.
type pageInk struct {
	FG   string `json:"f,omitempty"`
	BG   string `json:"b,omitempty"`
	Attr Attr   `json:"a,omitempty"`
}

// pageFrame is what changed at a time: rows as lists of spans.
type pageFrame struct {
	At     int64         `json:"t"`
	Height int           `json:"h"` // rows of the screen then
	X      int           `json:"x"` // of the cursor; -1 where it is hidden
	Y      int           `json:"y"`
	Rows   map[int][]any `json:"r,omitempty"`
}

type pageMark struct {
	At    int64  `json:"t"`
	Label string `json:"l"`
}

// reel gathers the frames of a page.
type reel struct {
	tape   *Tape
	film   pageFilm
	styles map[Style]int
	rows   []string // as they are, to tell those that changed
	size   int      // of the frames, about
	moved  []Frame  // when in the recording each frame is
	to     time.Duration
}

func (r *reel) frame(f Frame) error {
	cols, rows := f.Screen.Size()
	out := pageFrame{At: f.At.Milliseconds(), Height: rows, X: -1}
	if x, y, shown := f.Screen.Cursor(); shown {
		out.X, out.Y = x, y
	}
	for len(r.rows) < rows {
		r.rows = append(r.rows, "")
	}
	for y := range r.rows {
		spans, text := []any{}, ""
		if y < rows {
			spans, text = r.spans(f.Screen.Line(y)[:cols], f.Screen.Reversed())
		}
		if text == r.rows[y] {
			continue
		}
		if out.Rows == nil {
			out.Rows = map[int][]any{}
		}
		r.rows[y], out.Rows[y] = text, spans
		r.size += len(text) + 16
	}
	r.film.Frames = append(r.film.Frames, out)
	r.moved = append(r.moved, Frame{At: f.At, Recorded: f.Recorded})
	if r.size += 48; r.size > maxPage {
		return fmt.Errorf("%w page after %s: at most %d MiB", ErrTooLong, f.Recorded.Round(time.Second), maxPage>>20)
	}
	return nil
}

// spans are the cells of a row as the script gets them: a text and its style, in turn.
// Wide characters stand alone, with a style below zero: -1 is style 0. text is the same
// for rows that look the same.
func (r *reel) spans(cells []Cell, reversed bool) (spans []any, text string) {
	n := len(cells)
	for n > 0 && cells[n-1] == (Cell{Rune: ' '}) && !reversed {
		n--
	}
	var run strings.Builder
	style := 0
	flush := func() {
		if run.Len() > 0 {
			spans = append(spans, run.String(), style)
			run.Reset()
		}
	}
	var key strings.Builder
	for _, c := range cells[:n] {
		if c.Rune == 0 {
			continue
		}
		k := r.style(c.Style, reversed)
		if k != style || c.isWide() {
			flush()
			style = k
		}
		run.WriteString(c.Text())
		if c.isWide() {
			spans = append(spans, run.String(), -1-k)
			run.Reset()
		}
		key.WriteString(c.Text())
		key.WriteString("\x00" + strconv.Itoa(k))
	}
	flush()
	return spans, key.String()
}

// style is the number of a style in the film.
func (r *reel) style(st Style, reversed bool) int {
	if reversed {
		st.Attr ^= Reverse
	}
	if n, ok := r.styles[st]; ok {
		return n
	}
	fg, bg := st.colors(false)
	out := pageInk{Attr: st.Attr & (Bold | Italic | Underline | Struck)}
	if fg != ink {
		out.FG = fg.String()
	}
	if bg != ground {
		out.BG = bg.String()
	}
	r.film.Styles = append(r.film.Styles, out)
	r.styles[st] = len(r.film.Styles) - 1
	r.size += 40
	return r.styles[st]
}

// finish completes the film.
func (r *reel) finish() pageFilm {
	f := r.film
	f.Columns, f.Rows = r.tape.Columns, r.tape.Rows
	if n := len(f.Frames); n > 0 {
		f.Length = f.Frames[n-1].At
	}
	f.Marks = []pageMark{}
	for _, m := range r.tape.Marks {
		if at, ok := r.when(m.At); ok {
			f.Marks = append(f.Marks, pageMark{At: at.Milliseconds(), Label: clean(m.Label)})
		}
	}
	return f
}

// when is the time in the film of a moment of the recording: that of the last frame which
// shows nothing later; false where it is not in it.
func (r *reel) when(recorded time.Duration) (at time.Duration, ok bool) {
	n := sort.Search(len(r.moved), func(i int) bool { return r.moved[i].Recorded > recorded })
	if n == 0 {
		return 0, false
	}
	at = r.moved[n-1].At
	return at, n < len(r.moved) || recorded <= r.tape.Length && (r.to == 0 || recorded <= r.to)
}

// clean is a text without characters that act, or turn the direction of text around.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if runeWidth(r) < 0 {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

func cleanFacts(facts []Fact) []Fact {
	all := slices.Clone(facts)
	for i := range all {
		all[i].Value = clean(all[i].Value)
	}
	return all
}

// String is a colour as CSS has it.
func (c rgb) String() string { return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]) }
