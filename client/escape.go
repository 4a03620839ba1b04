package client

// escapeAction is what an escape sequence asks for.
type escapeAction int

const (
	escapeNone escapeAction = iota
	escapeLeave
	escapeHelp
)

const escapeCharacter = '~'

// escapeFilter finds escape sequences in what is typed: ~ at the start of a line
// and a letter, as in OpenSSH. "~~" stands for one ~; any other pair passes unchanged.
type escapeFilter struct {
	midLine bool
	pending bool // a ~ at the start of a line is held back
}

// filter returns what is to be sent of p, and stops behind the first sequence that
// asks for something; rest is what follows it.
func (e *escapeFilter) filter(p []byte) (send []byte, action escapeAction, rest []byte) {
	send = make([]byte, 0, len(p)+1)
	for i, c := range p {
		if e.pending {
			e.pending = false
			switch c {
			case '.':
				return send, escapeLeave, p[i+1:]
			case '?':
				return send, escapeHelp, p[i+1:]
			case escapeCharacter:
			default:
				send = append(send, escapeCharacter)
			}
			e.midLine = true
		} else if c == escapeCharacter && !e.midLine {
			e.pending = true
			continue
		}
		send = append(send, c)
		e.midLine = c != '\r' && c != '\n'
	}
	return send, escapeNone, nil
}
