package policy

// environment is the request as conditions and variables see it.
type environment struct {
	context Context
	checked bool // canonical is known
	// canonical: every key is in lower case, so that a look-up finds all there is.
	canonical bool
}

// values returns the values of a key, given in lower case.
func (e *environment) values(key string) []string {
	if !e.checked {
		e.checked, e.canonical = true, canonical(e.context)
	}
	if e.canonical {
		return e.context[key]
	}
	return e.gather(key)
}

// gather collects what stands under all spellings of a key. The exact spelling
// comes first, so that the order does not depend on the map's.
func (e *environment) gather(key string) []string {
	values := e.context[key]
	values = values[:len(values):len(values)]
	for k, v := range e.context {
		if k != key && equalFold(k, key) {
			values = append(values, v...)
		}
	}
	return values
}

func canonical(c Context) bool {
	for k := range c {
		if hasUpper(k) {
			return false
		}
	}
	return true
}

// hasUpper reports whether s has an upper-case ASCII letter. It looks at eight bytes
// at once, since every evaluation asks it of every key of the context.
func hasUpper(s string) bool {
	const (
		ones = 0x0101010101010101
		high = 0x80 * ones
	)
	for len(s) >= 8 {
		x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		low := x &^ high // no carry from byte to byte
		fromA, beyondZ := low+(0x80-'A')*ones, low+(0x80-'Z'-1)*ones
		if fromA&^beyondZ&^x&high != 0 {
			return true
		}
		s = s[8:]
	}
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return true
		}
	}
	return false
}

// condition is one operator applied to one key.
type condition struct {
	modified
	operatorText string // as the policy has it
	keyText      string
	key          string // in lower case
	operands     []operand
	off          int // of the key
}

// holds evaluates the condition. For an absent key positive operators fail and
// negated ones hold; IfExists and ForAllValues hold, ForAnyValue fails. With
// several values any may match; for negated operators none may.
func (c *condition) holds(env *environment) bool {
	values := env.values(c.key)
	if c.family == familyNull {
		return c.null(len(values) == 0)
	}
	if len(values) == 0 {
		return c.ifExists || c.quantifier == forAll || c.quantifier == plain && c.negated
	}
	switch c.quantifier {
	case forAll:
		for _, v := range values {
			if c.matchesAny(env, v) == c.negated {
				return false
			}
		}
		return true
	case forAny:
		for _, v := range values {
			if c.matchesAny(env, v) != c.negated {
				return true
			}
		}
		return false
	}
	for _, v := range values {
		if c.matchesAny(env, v) {
			return !c.negated
		}
	}
	return c.negated
}

func (c *condition) null(absent bool) bool {
	for i := range c.operands {
		if c.operands[i].truth == absent {
			return true
		}
	}
	return false
}

func (c *condition) matchesAny(env *environment, value string) bool {
	for i := range c.operands {
		if c.operands[i].compares(&c.modified, env, value) {
			return true
		}
	}
	return false
}
