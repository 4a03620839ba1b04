package flow

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// maxProgram bounds how large patterns become when they are compiled: matching takes time
// in proportion to that and to the text, and short patterns can become very large.
const maxProgram = 5000

// wholePattern compiles a pattern that values must match as a whole.
func wholePattern(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > maxText {
		return nil, fmt.Errorf("pattern of %d characters; at most %d", len(pattern), maxText)
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	if programSize(parsed) > maxProgram {
		return nil, fmt.Errorf("the pattern repeats too much: it becomes larger than %d steps", maxProgram)
	}
	return regexp.Compile(`\A(?:` + pattern + `)\z`)
}

// programSize estimates the instructions that a pattern becomes; above maxProgram it says
// so only.
func programSize(re *syntax.Regexp) int {
	size := 1 + len(re.Rune)/8
	for _, sub := range re.Sub {
		size += programSize(sub)
		if size > maxProgram {
			return maxProgram + 1
		}
	}
	if re.Op == syntax.OpLiteral {
		size = len(re.Rune)
	}
	if re.Op == syntax.OpRepeat {
		size *= max(1, re.Min, re.Max)
	}
	return min(size, maxProgram+1)
}
