package access

import (
	"iter"
	"maps"
	"slices"
)

// maxCombinations bounds how often a query is evaluated for the values of its tags.
const maxCombinations = 256

// combined is how many combinations the values in Each have; it stops counting above
// maxCombinations.
func (q Query) combined() int {
	n := 1
	for _, values := range q.Each {
		if n *= max(1, len(values)); n > maxCombinations {
			return n
		}
	}
	return n
}

// combinations returns the query with each combination of the values in Each moved to
// Context. A tag with several values gives its bearer every one of them, so that who
// may set one value only must not set others beside it, whichever way policies ask.
func (q Query) combinations() iter.Seq[Query] {
	return func(yield func(Query) bool) {
		if len(q.Each) == 0 {
			yield(q)
			return
		}
		keys := slices.Sorted(maps.Keys(q.Each))
		for i := range q.combined() {
			one := q
			one.Each, one.Context = nil, maps.Clone(q.Context)
			if one.Context == nil {
				one.Context = map[string][]string{}
			}
			for _, key := range keys {
				values := q.Each[key]
				if n := len(values); n > 0 {
					one.Context[key] = values[i%n : i%n+1]
					i /= n
				}
			}
			if !yield(one) {
				return
			}
		}
	}
}
