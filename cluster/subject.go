package cluster

import (
	"fmt"
	"strings"
)

// subjectLength bounds subjects, in bytes before escaping.
const subjectLength = 512

// escape returns a subject that NATS takes, different for different texts. Ids of
// sessions begin with names that people chose, which may hold dots in a row; none
// may become a wildcard.
func escape(subject string) (string, error) {
	if subject == "" || len(subject) > subjectLength {
		return "", fmt.Errorf("subject has %d bytes, must have 1 to %d", len(subject), subjectLength)
	}
	b := strings.Builder{}
	for i := range len(subject) {
		if ch := subject[i]; mustEscape(subject, i) {
			fmt.Fprintf(&b, "%%%02X", ch)
		} else {
			b.WriteByte(ch)
		}
	}
	return b.String(), nil
}

func mustEscape(subject string, i int) bool {
	switch ch := subject[i]; ch {
	case '*', '>', '%', '$', 0x7f:
		return true
	case '.': // at either end or after another, it would leave an empty part
		return i == 0 || i == len(subject)-1 || subject[i-1] == '.'
	default:
		return ch <= ' '
	}
}
