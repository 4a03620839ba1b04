package command

import (
	"strconv"
	"strings"
)

// limitOf reads a count ("50") or a percentage ("10%") of n. Percentages are rounded
// down, as AWS does: 10% of 50 errors allow five.
func limitOf(s string, n int) int {
	if percent, ok := strings.CutSuffix(s, "%"); ok {
		p, _ := strconv.Atoi(percent) // checked when it was given
		return n * p / 100
	}
	count, _ := strconv.Atoi(s)
	return count
}

// concurrency is how many nodes may run c at once: at least one.
func (c Command) concurrency() int { return max(1, limitOf(c.MaxConcurrency, c.TargetCount)) }

// errorLimit is how many nodes may fail before no more are told.
func (c Command) errorLimit() int { return limitOf(c.MaxErrors, c.TargetCount) }
