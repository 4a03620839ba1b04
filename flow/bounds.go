package flow

import "errors"

// Bounds on what is read. Parsers are recursive: depth is bounded before they see a text,
// as a Go stack that overflows cannot be recovered from.
const (
	maxFile      = 1 << 20 // bytes of one file
	maxFiles     = 1000
	maxFlows     = 1000
	maxSchedules = 1000
	maxNesting   = 100 // of brackets
)

var errTooDeep = errors.New("brackets are nested too deep; at most 100 levels")

// deepest is how deep brackets are nested, those in strings and comments included.
func deepest(text string) int {
	depth, most := 0, 0
	for i := range len(text) {
		switch text[i] {
		case '(', '[', '{':
			depth++
			most = max(most, depth)
		case ')', ']', '}':
			depth = max(0, depth-1)
		}
	}
	return most
}
