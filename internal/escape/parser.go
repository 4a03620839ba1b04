package escape

// Found is what a character that a Parser read was.
type Found uint8

// What a character may be.
const (
	Nothing     Found = iota // of a sequence that goes on, or that was cut off
	Text                     // to be shown
	Control                  // C0 or DEL; also in the middle of a sequence
	Escape                   // the end of a sequence ESC Middle Final
	CSI                      // the end of a control sequence
	StringBegin              // the beginning of the string that Final names: ] for OSC, P, X, ^ or _
	StringText               // a character of a string
	StringEnd                // the end of a string
	StringCut                // the end of a string that CAN or SUB makes void
)

const (
	maxParams = 32
	maxParam  = 9999 // larger numbers are taken for it: no screen has more of anything
)

// Parser finds the sequences in what a terminal is sent. C1 controls are those that UTF-8
// encodes; they count as ESC and the character that stands for them, but end no string
// (ST does), since terminals disagree. The zero Parser is ready, and has forgotten whatever
// sequence had begun.
type Parser struct {
	Prefix byte // of a CSI sequence: <, =, > or ?, or 0
	Middle byte // the first intermediate character of a sequence, or 0
	Final  byte // what ended the sequence, or began the string

	state  state
	n      uint8  // how many parameters there are
	joined uint32 // a bit for each: it was joined to the one before by a colon
	params [maxParams]int16
}

type state uint8

const (
	inText state = iota
	inEscape
	inCSI
	inVoid // a CSI sequence that makes no sense
	inString
)

// Controls that the parser acts on itself.
const (
	bel = 0x07
	can = 0x18
	sub = 0x1a
	esc = 0x1b
	del = 0x7f
	st  = 0x9c
)

// InText reports whether what comes next is outside of sequences.
func (p *Parser) InText() bool { return p.state == inText }

// InString reports whether what comes next is the text of a string.
func (p *Parser) InString() bool { return p.state == inString }

// Next reads a character. Where it ends a sequence, the parser tells which until the next
// character is read.
func (p *Parser) Next(r rune) Found {
	switch {
	case p.state == inText && r >= ' ' && r < del:
		return Text
	case p.state == inString:
		return p.string(r)
	case r < ' ' || r == del:
		return p.control(r)
	case r >= 0x80 && r < 0xa0:
		p.begin()
		return p.escape(r - 0x40)
	case p.state == inText:
		return Text
	case p.state == inEscape:
		return p.escape(r)
	}
	return p.csi(r)
}

// begin forgets the sequence before.
func (p *Parser) begin() {
	p.state, p.Prefix, p.Middle, p.Final, p.n, p.joined = inEscape, 0, 0, 0, 0, 0
}

func (p *Parser) control(r rune) Found {
	switch {
	case r == esc:
		p.begin()
		return Nothing
	case p.state == inText:
		return Control
	case r == can || r == sub:
		p.state = inText
		return Nothing
	case r == del:
		return Nothing
	}
	return Control
}

func (p *Parser) escape(r rune) Found {
	switch {
	case r >= ' ' && r <= '/':
		p.intermediate(r)
		return Nothing
	case p.Middle != 0:
	case r == '[':
		p.state = inCSI
		return Nothing
	case r == ']' || r == 'P' || r == 'X' || r == '^' || r == '_':
		p.state, p.Final = inString, byte(r)
		return StringBegin
	case r == '\\': // the string that it ends was ended by ESC
		p.state = inText
		return Nothing
	}
	p.state = inText
	if r >= del {
		return Nothing
	}
	p.Final = byte(r)
	return Escape
}

func (p *Parser) intermediate(r rune) {
	if p.Middle == 0 {
		p.Middle = byte(r)
	}
}

func (p *Parser) csi(r rune) Found {
	switch {
	case r >= del:
		p.state = inText
	case r >= '@':
		void := p.state == inVoid
		p.state, p.Final = inText, byte(r)
		if !void {
			return CSI
		}
	case r <= '/':
		p.intermediate(r)
	case p.Middle != 0 || r >= '<' && (p.n > 0 || p.Prefix != 0):
		p.state = inVoid
	case r >= '<':
		p.Prefix = byte(r)
	default:
		p.parameter(r)
	}
	return Nothing
}

// parameter reads a digit or what separates parameters. Of too many, those at the end are
// left out.
func (p *Parser) parameter(r rune) {
	if p.n == 0 {
		p.n, p.params[0] = 1, -1
	}
	switch {
	case r >= ':':
		if p.n < maxParams {
			p.params[p.n] = -1
			if r == ':' {
				p.joined |= 1 << p.n
			}
		}
		p.n = min(p.n+1, maxParams+1)
	case p.n <= maxParams:
		last := &p.params[p.n-1]
		*last = int16(min(int(max(*last, 0))*10+int(r-'0'), maxParam))
	}
}

func (p *Parser) string(r rune) Found {
	switch {
	case r >= ' ' && r < del || r >= 0xa0:
		return StringText
	case r == esc:
		p.begin()
		return StringEnd
	case r == bel || r == st:
		p.state = inText
		return StringEnd
	case r == can || r == sub:
		p.state = inText
		return StringCut
	}
	return Nothing
}

// Len returns how many parameters a CSI sequence has, 32 at most.
func (p *Parser) Len() int { return min(int(p.n), maxParams) }

// Param returns a parameter, or otherwise where it is missing or 0.
func (p *Parser) Param(i, otherwise int) int {
	if i >= p.Len() || p.params[i] <= 0 {
		return otherwise
	}
	return int(p.params[i])
}

// Joined reports whether a parameter was joined to the one before by a colon.
func (p *Parser) Joined(i int) bool { return i < p.Len() && p.joined>>i&1 != 0 }

// Given reports whether a parameter has a value, be it 0.
func (p *Parser) Given(i int) bool { return i < p.Len() && p.params[i] >= 0 }
