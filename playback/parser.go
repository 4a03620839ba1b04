package playback

import "strings"

// parser cuts terminal output into characters, controls and sequences, as ECMA-48 and
// xterm have them. What is incomplete at the end of a piece waits for the next.
type parser struct {
	state  parseState
	params [maxParams]int  // of a CSI sequence; -1 where left out
	sub    [maxParams]bool // the parameter was joined to the one before by a colon
	n      int             // how many there are
	prefix byte            // <, =, > or ? after CSI
	middle byte            // an intermediate character
}

type parseState uint8

const (
	inText parseState = iota
	inEscape
	inEscapeMiddle // after ESC and an intermediate character
	inCSI
	inString // OSC, DCS, SOS, PM, APC: dropped as they come
	inStringEscape
)

const (
	maxParams = 32
	maxParam  = 9999
)

// actions are what a parser finds.
type actions interface {
	char(r rune)
	control(c byte)
	escape(middle, final byte)
	csi(p *parser, final byte)
}

func (p *parser) feed(s string, do actions) {
	for _, r := range s {
		switch p.state {
		case inText:
			p.text(r, do)
		case inEscape:
			p.escape(r, do)
		case inEscapeMiddle:
			p.escapeMiddle(r, do)
		case inCSI:
			p.csi(r, do)
		case inString:
			p.str(r)
		case inStringEscape:
			p.strEscape(r, do)
		}
	}
}

func (p *parser) text(r rune, do actions) {
	switch {
	case r == 0x1b:
		p.state = inEscape
	case r < 0x20:
		do.control(byte(r))
	default:
		do.char(r)
	}
}

// cancelled handles what ends any sequence: CAN and SUB, and ESC, which begins another.
func (p *parser) cancelled(r rune) bool {
	switch r {
	case 0x18, 0x1a:
		p.state = inText
	case 0x1b:
		p.state = inEscape
	default:
		return false
	}
	return true
}

func (p *parser) escape(r rune, do actions) {
	p.middle = 0
	switch {
	case p.cancelled(r):
	case r < 0x20:
		do.control(byte(r))
	case r == '[':
		p.state, p.n, p.prefix = inCSI, 0, 0
	case strings.ContainsRune("]PX^_", r):
		p.state = inString
	case r <= 0x2f:
		p.state, p.middle = inEscapeMiddle, byte(r)
	default:
		p.state = inText
		if r < 0x7f {
			do.escape(0, byte(r))
		}
	}
}

func (p *parser) escapeMiddle(r rune, do actions) {
	switch {
	case p.cancelled(r):
	case r < 0x20:
		do.control(byte(r))
	case r <= 0x2f:
	default:
		p.state = inText
		if r < 0x7f {
			do.escape(p.middle, byte(r))
		}
	}
}

func (p *parser) csi(r rune, do actions) {
	switch {
	case p.cancelled(r):
	case r < 0x20:
		do.control(byte(r))
	case r >= '0' && r <= '9':
		p.digit(int(r - '0'))
	case r == ';' || r == ':':
		p.separate(r == ':')
	case r >= '<' && r <= '?':
		p.prefix = byte(r)
	case r >= 0x20 && r <= 0x2f:
		p.middle = byte(r)
	case r >= 0x40 && r <= 0x7e:
		p.state = inText
		do.csi(p, byte(r))
	default:
		p.state = inText
	}
}

func (p *parser) digit(d int) {
	if p.n == 0 {
		p.open(false)
	}
	last := &p.params[p.n-1]
	*last = min(max(*last, 0)*10+d, maxParam)
}

func (p *parser) separate(colon bool) {
	if p.n == 0 {
		p.open(false)
	}
	p.open(colon)
}

// open begins a parameter. Of too many, the last gets what is left over.
func (p *parser) open(sub bool) {
	if p.n < maxParams {
		p.n++
	}
	p.params[p.n-1], p.sub[p.n-1] = -1, sub
}

// param returns a parameter, or otherwise where it is missing or 0.
func (p *parser) param(i, otherwise int) int {
	if i >= p.n || p.params[i] <= 0 {
		return otherwise
	}
	return p.params[i]
}

func (p *parser) str(r rune) {
	switch r {
	case 0x07, 0x18, 0x1a:
		p.state = inText
	case 0x1b:
		p.state = inStringEscape
	}
}

// strEscape is after an ESC in a string: \ makes its end, anything else begins another
// sequence.
func (p *parser) strEscape(r rune, do actions) {
	if r == '\\' {
		p.state = inText
		return
	}
	p.state = inEscape
	p.escape(r, do)
}
