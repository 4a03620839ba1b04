package command

import (
	"encoding/json"
	"regexp"
	"strconv"
	"time"
)

// Timeouts of steps (docs/protocol.md §25).
const (
	defaultExecution = time.Hour
	maxExecution     = 48 * time.Hour
)

// ExecutionOf is how long the steps of a document may take together, with the
// parameters that they were filled with.
func ExecutionOf(content json.RawMessage, values map[string]json.RawMessage) time.Duration {
	var doc struct {
		MainSteps []struct {
			Inputs timed `json:"inputs"`
		} `json:"mainSteps"`
		RuntimeConfig map[string]struct {
			Properties json.RawMessage `json:"properties"`
		} `json:"runtimeConfig"`
	}
	var total time.Duration
	if json.Unmarshal(content, &doc) != nil {
		return defaultExecution
	}
	for _, s := range doc.MainSteps {
		total += s.Inputs.timeout(values)
	}
	for _, p := range doc.RuntimeConfig {
		var several []timed
		if json.Unmarshal(p.Properties, &several) != nil {
			several = make([]timed, 1)
			_ = json.Unmarshal(p.Properties, &several[0]) // or else the default
		}
		for _, s := range several {
			total += s.timeout(values)
		}
	}
	return max(total, time.Second)
}

// timed are the inputs of a step, as far as its timeout goes.
type timed struct {
	TimeoutSeconds any `json:"timeoutSeconds"`
}

var wholePlaceholder = regexp.MustCompile(`^\{\{\s*([A-Za-z0-9]+)\s*\}\}$`)

func (t timed) timeout(values map[string]json.RawMessage) time.Duration {
	v := t.TimeoutSeconds
	if s, ok := v.(string); ok {
		if m := wholePlaceholder.FindStringSubmatch(s); m != nil {
			v = nil
			_ = json.Unmarshal(values[m[1]], &v) // absent: the default
		}
	}
	var seconds float64
	switch v := v.(type) {
	case float64:
		seconds = v
	case string:
		seconds, _ = strconv.ParseFloat(v, 64) // or else the default
	}
	if seconds < 1 || seconds > maxExecution.Seconds() {
		return defaultExecution
	}
	return time.Duration(seconds * float64(time.Second))
}
