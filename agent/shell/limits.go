package shell

import (
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// unlimited is setrlimit(2)'s word for no limit.
const unlimited = ^uint64(0)

// limitRule is a line of limits.conf(5).
type limitRule struct {
	domain, kind, item, value string
}

type limitRules []limitRule

// limitRules reads limits.conf and, in the order of their names, limits.d's files.
func (o Options) limitRules() limitRules {
	files := []string{o.at(limitsFile)}
	more, err := filepath.Glob(filepath.Join(o.at(limitsDir), "*.conf"))
	if err == nil {
		files = append(files, more...)
	}
	var rules limitRules
	for _, file := range files {
		for _, line := range readLines(file) {
			if f := strings.Fields(line); len(f) == 4 {
				rules = append(rules, limitRule{f[0], f[1], f[2], f[3]})
			}
		}
	}
	return rules
}

// of returns the priority and the limits of u. What names the user counts more than what
// names a group, and that more than *; among equals the last line counts. Root is meant
// only where it is named.
func (r limitRules) of(u User, groups []string) (nice int, limits []limit) {
	set := make(map[int]*bounds)
	priority := bound{}
	for _, rule := range r {
		rank := rule.rank(u, groups)
		switch item, known := limitItems[rule.item]; {
		case rank == 0:
		case rule.item == "priority":
			if n, err := strconv.Atoi(rule.value); err == nil && rank >= priority.rank {
				priority = bound{rank: rank, value: uint64(int64(max(-20, min(n, 19))))}
			}
		case known:
			if set[item.resource] == nil {
				set[item.resource] = &bounds{}
			}
			set[item.resource].apply(rule, item, rank)
		}
	}
	for _, resource := range slices.Sorted(maps.Keys(set)) {
		limits = append(limits, set[resource].limit(resource))
	}
	return int(int64(priority.value)), limits
}

// Ranks of a rule's domain; 0 is none of the user's.
const (
	rankAll = iota + 1
	rankGroup
	rankUser
)

// rank says how closely a rule's domain describes u.
func (r limitRule) rank(u User, groups []string) int {
	switch group, isGroup := strings.CutPrefix(r.domain, "@"); {
	case r.domain == u.Name:
		return rankUser
	case u.UID == 0:
		return 0
	case r.domain == "*":
		return rankAll
	case isGroup && slices.Contains(groups, group):
		return rankGroup
	case isGroup && inRange(group, append([]uint32{u.GID}, u.Groups...)...):
		return rankGroup
	case !isGroup && inRange(r.domain, u.UID):
		return rankUser
	}
	return 0
}

// inRange reports whether an id is in a range MIN:MAX, of which either may be missing:
// "MIN:" has no end and ":MAX" is MAX alone, as limits.conf(5) has it.
func inRange(s string, ids ...uint32) bool {
	from, to, ok := strings.Cut(s, ":")
	if !ok || from == "" && to == "" {
		return false
	}
	if from == "" {
		from = to
	}
	lo, err := strconv.ParseUint(from, 10, 32)
	if err != nil {
		return false
	}
	hi := uint64(1<<32 - 1)
	if to != "" {
		if hi, err = strconv.ParseUint(to, 10, 32); err != nil {
			return false
		}
	}
	return slices.ContainsFunc(ids, func(id uint32) bool { return uint64(id) >= lo && uint64(id) <= hi })
}

// bound is a value with the rank of what set it; rank 0 is none.
type bound struct {
	rank  int
	value uint64
}

// bounds are the two bounds of a resource.
type bounds struct{ soft, hard bound }

func (b *bounds) apply(rule limitRule, item limitItem, rank int) {
	v, ok := item.value(rule.value)
	if !ok {
		return
	}
	if (rule.kind == "soft" || rule.kind == "-") && rank >= b.soft.rank {
		b.soft = bound{rank, v}
	}
	if (rule.kind == "hard" || rule.kind == "-") && rank >= b.hard.rank {
		b.hard = bound{rank, v}
	}
}

// limit makes the two bounds complete with what the agent has, and the soft one no
// greater than the hard one.
func (b *bounds) limit(resource int) limit {
	soft, hard := currentLimit(resource)
	if b.hard.rank > 0 {
		hard = b.hard.value
	}
	if b.soft.rank > 0 {
		soft = b.soft.value
	}
	return limit{Resource: resource, Soft: min(soft, hard), Hard: hard}
}

// limitItem is a resource, and what one of limits.conf's units is of it.
type limitItem struct {
	resource int
	unit     uint64
}

func (i limitItem) value(s string) (uint64, bool) {
	switch s {
	case "unlimited", "infinity", "-1", "-":
		return unlimited, true
	}
	if i.unit == niceUnit {
		n, err := strconv.Atoi(s)
		return uint64(20 - max(-20, min(n, 19))), err == nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > unlimited/i.unit {
		return 0, false
	}
	return n * i.unit, true
}

// niceUnit marks the one resource that counts downwards.
const niceUnit = 0
