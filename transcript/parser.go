package transcript

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxParams = 64      // bytes of the parameters of a control sequence
	maxString = 6 << 10 // bytes of a string sequence that are kept
)

// state is where in a control sequence the bytes are.
type state byte

const (
	ground    state = iota
	escape          // after ESC
	csi             // in ESC [ …
	osc             // in an OSC string
	str             // in another string: DCS, SOS, PM, APC
	strEscape       // after ESC in a string
	hash8           // the byte after ESC # and its like
	charset         // the byte after ESC ( or ESC )
)

// parser finds the control sequences in what a terminal is sent.
type parser struct {
	state  state
	isOSC  bool
	second byte // the byte before the one that names a character set
	params []byte
	text   []byte // of an OSC string
}

// reset forgets a sequence that has begun. Its buffers go, since sessions are idle most
// of the time.
func (p *parser) reset() { *p = parser{} }

// handler is what is done about what a parser finds.
type handler interface {
	print(r rune)
	control(c rune)
	escape(c rune)
	csi(params string, final rune)
	osc(text string)
	charset(g, set rune)
}

// feed reads whole characters.
func (p *parser) feed(data []byte, h handler) {
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		data = data[n:]
		p.rune(r, h)
	}
}

func (p *parser) rune(r rune, h handler) {
	switch {
	case r == 0x18 || r == 0x1a: // cancel
		p.state, p.text = ground, nil
	case p.state == osc || p.state == str || p.state == strEscape:
		p.string(r, h)
	case r == 0x1b:
		p.state = escape
	case r >= 0x80 && r < 0xa0:
		p.state = ground
		p.escaped(r-0x40, h)
	case r < 0x20:
		h.control(r) // also in the middle of a sequence
	case p.state == ground:
		if r != 0x7f {
			h.print(r)
		}
	case p.state == escape:
		p.state = ground
		p.escaped(r, h)
	case p.state == csi:
		p.parameter(r, h)
	case p.state == charset:
		p.state = ground
		h.charset(rune(p.second), r)
	case p.state == hash8:
		p.state = ground
	}
}

func (p *parser) escaped(r rune, h handler) {
	switch {
	case r == '[':
		p.state, p.params = csi, p.params[:0]
	case r == ']':
		p.state, p.isOSC, p.text = osc, true, nil
	case strings.ContainsRune("PX^_", r):
		p.state, p.isOSC = str, false
	case r == '(' || r == ')':
		p.state, p.second = charset, byte(r)
	case r >= 0x20 && r <= 0x2f:
		p.state = hash8
	default:
		h.escape(r)
	}
}

func (p *parser) parameter(r rune, h handler) {
	switch {
	case r >= 0x40 && r <= 0x7e:
		p.state = ground
		h.csi(string(p.params), r)
	case r >= 0x20 && r < 0x40 && len(p.params) < maxParams:
		p.params = append(p.params, byte(r))
	case r >= 0x7f:
		p.state = ground
	}
}

func (p *parser) string(r rune, h handler) {
	if p.state == strEscape {
		if r == '\\' {
			p.endString(h)
			return
		}
		p.state, p.text = ground, nil
		p.escaped(r, h)
		return
	}
	switch {
	case r == 0x07 || r == 0x9c:
		p.endString(h)
	case r == 0x1b:
		p.state = strEscape
	case p.isOSC && len(p.text) < maxString:
		p.text = utf8.AppendRune(p.text, r)
	}
}

func (p *parser) endString(h handler) {
	text := p.text
	p.state, p.text = ground, nil
	if p.isOSC {
		h.osc(string(text))
	}
}

// number returns the nth parameter, or otherwise where it is missing or 0. It is at most
// maxColumns, which is more than any screen has of anything.
func number(params string, n, otherwise int) int {
	for range n {
		_, params, _ = strings.Cut(params, ";")
	}
	first, _, _ := strings.Cut(params, ";")
	first, _, _ = strings.Cut(first, ":")
	v, err := strconv.Atoi(first)
	if err != nil && len(first) > 9 {
		v = maxColumns
	}
	if v < 1 {
		return otherwise
	}
	return min(v, maxColumns)
}
