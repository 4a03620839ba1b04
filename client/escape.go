package client

// escapeAction is what an escape sequence asks for.
type escapeAction int

const (
	escapeNone escapeAction = iota
	escapeLeave
	escapeHelp
)

const escapeCharacter = '~'

// What a terminal puts around pasted text, where a program asked for it.
const (
	pasteStart = "\x1b[200~"
	pasteEnd   = "\x1b[201~"
)

// maxTyped is how much a person types at once, in bytes: Enter, ~ and a letter, which
// slow links bring together. What comes with more was pasted.
const maxTyped = 3

// escapeFilter finds escape sequences in what is typed: ~ at the start of a line
// and a letter, as in OpenSSH. "~~" stands for one ~; any other pair passes unchanged.
// Pasted text has none.
type escapeFilter struct {
	midLine bool
	pending bool // a ~ at the start of a line is held back
	pasting bool // between pasteStart and pasteEnd
	last    [len(pasteStart)]byte
}

// filter returns what is to be sent of p, which was read at once, and stops behind the
// first sequence that asks for something; rest is what follows it.
func (e *escapeFilter) filter(p []byte) (send []byte, action escapeAction, rest []byte) {
	send = make([]byte, 0, len(p)+1)
	typed := len(p) <= maxTyped
	for i, c := range p {
		switch {
		case e.pending:
			e.pending = false
			e.midLine = true
			switch {
			case !typed:
				send = append(send, escapeCharacter)
			case c == '.':
				return send, escapeLeave, p[i+1:]
			case c == '?':
				e.midLine = false // nothing was sent: the line still begins here
				return send, escapeHelp, p[i+1:]
			case c != escapeCharacter:
				send = append(send, escapeCharacter)
			}
		case c == escapeCharacter && !e.midLine && typed && !e.pasting:
			e.pending = true
			continue
		}
		send = append(send, c)
		e.sent(c)
	}
	return send, escapeNone, nil
}

func (e *escapeFilter) sent(c byte) {
	e.midLine = c != '\r' && c != '\n'
	copy(e.last[:], e.last[1:])
	e.last[len(e.last)-1] = c
	switch string(e.last[:]) {
	case pasteStart:
		e.pasting = true
	case pasteEnd:
		e.pasting = false
	}
}
