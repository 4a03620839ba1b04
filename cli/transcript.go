package cli

import (
	"bufio"
	"io"
	"strconv"
	"strings"
)

// maxColumn bounds a line of a transcript.
const maxColumn = 4096

// transcript turns terminal output into plain text, line by line: what a line looked
// like when it was left. Full-screen programs, which have no lines, are left out.
type transcript struct {
	out    *bufio.Writer
	parser sequences
	line   []rune
	column int
	screen bool // a full-screen program has the terminal
}

func newTranscript(w io.Writer) *transcript { return &transcript{out: bufio.NewWriter(w)} }

func (t *transcript) write(s string) { t.parser.feed(s, t.token) }

// close writes the last line.
func (t *transcript) close() error {
	if len(t.line) > 0 {
		t.newline()
	}
	return t.out.Flush()
}

func (t *transcript) token(k token) {
	if k.kind == tokenCSI && (k.final == 'h' || k.final == 'l') {
		t.mode(k)
	}
	if t.screen {
		return
	}
	switch k.kind {
	case tokenText:
		for _, r := range k.text {
			t.put(r)
		}
	case tokenControl:
		t.control(k.final)
	case tokenCSI:
		t.edit(k)
	}
}

// mode notices the alternate screen.
func (t *transcript) mode(k token) {
	switch k.params {
	case "?1049", "?1047", "?47":
		t.screen = k.final == 'h'
		if t.screen {
			t.out.WriteString("[full-screen program]\n")
		}
	}
}

func (t *transcript) put(r rune) {
	for len(t.line) < t.column {
		t.line = append(t.line, ' ')
	}
	if t.column < len(t.line) {
		t.line[t.column] = r
	} else if t.column < maxColumn {
		t.line = append(t.line, r)
	}
	t.column = min(t.column+1, maxColumn)
}

func (t *transcript) control(c byte) {
	switch c {
	case '\n':
		t.newline()
	case '\r':
		t.column = 0
	case '\b':
		t.column = max(t.column-1, 0)
	case '\t':
		t.column = min(t.column/8*8+8, maxColumn)
	}
}

func (t *transcript) newline() {
	t.out.WriteString(strings.TrimRight(string(t.line), " "))
	t.out.WriteByte('\n')
	t.line, t.column = t.line[:0], 0
}

// edit follows what line editors do within a line.
func (t *transcript) edit(k token) {
	n := 1
	if v, err := strconv.Atoi(k.params); err == nil && v > 0 {
		n = min(v, maxColumn)
	}
	switch k.final {
	case 'C':
		t.column = min(t.column+n, maxColumn)
	case 'D':
		t.column = max(t.column-n, 0)
	case 'G':
		t.column = n - 1
	case 'K':
		t.erase(k.params)
	case 'P':
		if t.column < len(t.line) {
			t.line = append(t.line[:t.column], t.line[min(t.column+n, len(t.line)):]...)
		}
	case '@':
		if t.column < len(t.line) && len(t.line)+n <= maxColumn {
			rest := append([]rune(strings.Repeat(" ", n)), t.line[t.column:]...)
			t.line = append(t.line[:t.column], rest...)
		}
	}
}

func (t *transcript) erase(how string) {
	switch how {
	case "", "0":
		t.line = t.line[:min(t.column, len(t.line))]
	case "1":
		for i := 0; i <= t.column && i < len(t.line); i++ {
			t.line[i] = ' '
		}
	case "2":
		t.line = t.line[:0]
	}
}
