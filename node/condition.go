package node

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Operator compares an attribute of a node with a condition's values.
type Operator string

// Operators. LessThan and GreaterThan compare dotted numbers part by part, and
// anything else as text.
const (
	Equal       Operator = "Equal"
	NotEqual    Operator = "NotEqual"
	BeginWith   Operator = "BeginWith"
	LessThan    Operator = "LessThan"
	GreaterThan Operator = "GreaterThan"
	Like        Operator = "Like" // * and ? are wild cards, as in EC2 filters
)

// Condition selects nodes: any of Values must match the attribute that Key names.
type Condition struct {
	Key    string
	Values []string
	// Operator is Equal when empty.
	Operator Operator
}

// Vocabulary names the attributes of nodes that a listing can filter by.
type Vocabulary map[string]func(n Node, at time.Time) []string

// SSM is the vocabulary of DescribeInstanceInformation and
// DescribeInstanceProperties; tag-key and tag:KEY belong to every vocabulary.
// Sallyport has no State Manager, so that no node has an AssociationStatus.
func SSM() Vocabulary {
	return Vocabulary{
		"InstanceIds":       func(n Node, _ time.Time) []string { return []string{n.ID} },
		"AgentVersion":      func(n Node, _ time.Time) []string { return present(n.AgentVersion) },
		"PingStatus":        func(n Node, at time.Time) []string { return []string{string(n.Ping(at))} },
		"PlatformTypes":     func(n Node, _ time.Time) []string { return present(n.PlatformType) },
		"ActivationIds":     func(n Node, _ time.Time) []string { return present(n.ActivationID) },
		"IamRole":           func(n Node, _ time.Time) []string { return present(n.IAMRole) },
		"ResourceType":      func(n Node, _ time.Time) []string { return []string{n.ResourceType()} },
		"AssociationStatus": func(Node, time.Time) []string { return nil },
		"SourceIds":         func(n Node, _ time.Time) []string { return []string{n.ID} },
		"SourceTypes":       func(n Node, _ time.Time) []string { return []string{n.SourceType()} },
	}
}

// EC2 is the vocabulary of DescribeInstances.
func EC2() Vocabulary {
	return Vocabulary{
		"instance-id":         func(n Node, _ time.Time) []string { return []string{n.ID} },
		"instance-state-name": func(n Node, at time.Time) []string { return []string{n.RunState(at)} },
		"private-ip-address":  func(n Node, _ time.Time) []string { return present(n.IPAddress) },
		"private-dns-name":    func(n Node, _ time.Time) []string { return present(n.ComputerName) },
		"availability-zone":   func(n Node, _ time.Time) []string { return present(n.AvailabilityZone) },
	}
}

func present(v string) []string {
	if v == "" {
		return nil
	}
	return []string{v}
}

// ResourceType is EC2Instance for i-… nodes and ManagedInstance for mi-… ones.
func (n Node) ResourceType() string {
	if strings.HasPrefix(n.ID, "mi-") {
		return "ManagedInstance"
	}
	return "EC2Instance"
}

// SourceType is the CloudFormation type of the node.
func (n Node) SourceType() string {
	if strings.HasPrefix(n.ID, "mi-") {
		return "AWS::SSM::ManagedInstance"
	}
	return "AWS::EC2::Instance"
}

// RunState is the node's state in EC2's words: running while it is alive, else
// stopped. A machine that cannot be reached and one that is switched off look alike
// from here.
func (n Node) RunState(at time.Time) string {
	if n.Ping(at) == Online {
		return "running"
	}
	return "stopped"
}

// ErrUnknownKey is returned for a condition on an attribute that nodes do not have.
type ErrUnknownKey struct{ Key string }

// Error implements error.
func (e *ErrUnknownKey) Error() string { return fmt.Sprintf("filter key %q is not known", e.Key) }

// Matcher reports whether a node meets conditions at a time.
type Matcher func(n Node, at time.Time) bool

// Compile turns conditions, all of which must hold, into a Matcher. An unknown key
// is an *ErrUnknownKey.
func (v Vocabulary) Compile(conditions []Condition) (Matcher, error) {
	tests := make([]Matcher, 0, len(conditions))
	for _, c := range conditions {
		attribute, err := v.attribute(c.Key)
		if err != nil {
			return nil, err
		}
		tests = append(tests, func(n Node, at time.Time) bool { return c.holds(attribute(n, at)) })
	}
	return func(n Node, at time.Time) bool {
		for _, test := range tests {
			if !test(n, at) {
				return false
			}
		}
		return true
	}, nil
}

func (v Vocabulary) attribute(key string) (func(Node, time.Time) []string, error) {
	if f, ok := v[key]; ok {
		return f, nil
	}
	if key == "tag-key" {
		return func(n Node, _ time.Time) []string { return n.Tags.Keys() }, nil
	}
	if tag, ok := strings.CutPrefix(key, "tag:"); ok && tag != "" {
		return func(n Node, _ time.Time) []string { return tagValues(n, tag) }, nil
	}
	return nil, &ErrUnknownKey{Key: key}
}

// tagValues lets a tag of several values be found by each of them and by the whole.
func tagValues(n Node, key string) []string {
	values := n.Tags.Values(key)
	if len(values) > 1 {
		values = append(values, n.Tags[key])
	}
	return values
}

// holds reports whether any value of the attribute matches any of the condition's.
// NotEqual holds when none does.
func (c Condition) holds(attribute []string) bool {
	if c.Operator == NotEqual {
		return !anyMatch(Equal, attribute, c.Values)
	}
	return anyMatch(c.Operator, attribute, c.Values)
}

func anyMatch(op Operator, attribute, values []string) bool {
	for _, have := range attribute {
		for _, want := range values {
			if op.matches(have, want) {
				return true
			}
		}
	}
	return false
}

func (op Operator) matches(have, want string) bool {
	switch op {
	case BeginWith:
		return strings.HasPrefix(have, want)
	case LessThan:
		return compareDotted(have, want) < 0
	case GreaterThan:
		return compareDotted(have, want) > 0
	case Like:
		return like(have, want)
	default:
		return have == want
	}
}

func compareDotted(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(as), len(bs)) {
		x, errX := part(as, i)
		y, errY := part(bs, i)
		if errX != nil || errY != nil {
			return strings.Compare(a, b)
		}
		if x != y {
			if x < y {
				return -1
			}
			return 1
		}
	}
	return 0
}

func part(parts []string, i int) (uint64, error) {
	if i >= len(parts) {
		return 0, nil
	}
	return strconv.ParseUint(parts[i], 10, 64)
}

// like matches s with a pattern in which * stands for any text, ? for one
// character, and a backslash takes the next one as it is. It goes back to the last
// star only, so its time is bounded by len(s) × len(pattern).
func like(s, pattern string) bool {
	text, p := []rune(s), []rune(pattern)
	i, j, star, mark := 0, 0, -1, 0
	for i < len(text) {
		wild, literal, width := patternAt(p, j)
		switch {
		case wild == '*':
			star, mark = j, i
			j++
		case width > 0 && (wild == '?' || literal == text[i]):
			i++
			j += width
		case star >= 0:
			mark++
			i, j = mark, star+1
		default:
			return false
		}
	}
	for j < len(p) && p[j] == '*' {
		j++
	}
	return j == len(p)
}

// patternAt reads the element of the pattern at j: its wild card, or its literal
// character, and how many runes it takes; none at the end.
func patternAt(p []rune, j int) (wild, literal rune, width int) {
	if j >= len(p) {
		return 0, 0, 0
	}
	switch {
	case p[j] == '*' || p[j] == '?':
		return p[j], 0, 1
	case p[j] == '\\' && j+1 < len(p):
		return 0, p[j+1], 2
	default:
		return 0, p[j], 1
	}
}

// MatchesAny reports whether text matches any of the patterns, in which * and ? are
// wild cards.
func MatchesAny(text string, patterns []string) bool {
	return anyMatch(Like, []string{text}, patterns)
}
