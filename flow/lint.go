package flow

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Warning is something in a flow that is allowed, and perhaps not meant.
type Warning struct {
	Flow string `json:"flow"`
	Text string `json:"text"`
}

// Lint looks for what is allowed and perhaps not meant, in the order of flows' names.
func Lint(set *Set) []Warning {
	var out []Warning
	for _, name := range slices.Sorted(maps.Keys(set.Flows)) {
		for _, text := range set.Flows[name].lint() {
			out = append(out, Warning{name, text})
		}
	}
	return append(out, unusedSchedules(set)...)
}

func (f *Flow) lint() []string {
	var out []string
	warn := func(when bool, format string, args ...any) {
		if when {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	warn(f.Clocks.Longest > 24*time.Hour, "grants last up to %s; nobody looks again in that time", FormatDuration(f.Clocks.Longest))
	warn(f.BreakGlass != nil && len(f.Announce) == 0, "break-glass is announced nowhere; want announce { … }")
	warn(f.BreakGlass != nil && f.Clocks.Longest > 4*time.Hour, "break-glass lasts up to %s", FormatDuration(f.Clocks.Longest))
	warn(len(f.Stages) == 0 && f.BreakGlass == nil, "only its rules decide: what they cannot be asked about is denied")
	if reason := f.Field(FieldReason); reason != nil {
		warn(!reason.Required, "asks for no reason")
	}
	for _, s := range f.Stages {
		warn(s.AllowSelf && s.Approvals == 1, "stage %s: who asks may approve it alone", s.Name)
		warn(s.Of.Everyone, "stage %s: everyone may approve", s.Name)
		warn(s.Approvals > len(s.Of.Users) && s.Of.onlyUsers() && s.Fallback == nil && (f.Code == nil || !f.Code.Defines(FunctionPermissions)),
			"stage %s: wants %d approvals, but only %d people may give one", s.Name, s.Approvals, len(s.Of.Users))
		warn(s.Within > f.Clocks.Pending, "stage %s: lasts up to %s, but the request waits for %s only", s.Name, FormatDuration(s.Within), FormatDuration(f.Clocks.Pending))
		warn(s.Of.onlyOnCall() && s.Fallback == nil, "stage %s: if the on-call source cannot be asked nobody decides; want a fallback", s.Name)
	}
	for _, t := range f.Targets {
		warn(f.BreakGlass == nil && t.Nodes != nil && slices.Contains(t.Nodes.Names, "*") && len(t.Nodes.Tags) == 0, "target %s: is every node that has a name", t.Name)
		warn(t.Nodes != nil && t.Nodes.Commands && t.Nodes.Login != "", "target %s: its login is that of sessions; commands run as the agent's own user, root as a rule", t.Name)
	}
	return append(out, f.lintCode()...)
}

func (f *Flow) lintCode() []string {
	if f.Code == nil {
		return nil
	}
	var out []string
	known := []string{FunctionPermissions, FunctionNotifications}
	for _, hook := range []string{HookRequest, HookApprove, HookDeny, HookActivate, HookExpire, HookRevoke} {
		known = append(known, "on_"+hook, "after_"+hook)
	}
	for _, name := range f.Code.Functions() {
		looks := strings.HasPrefix(name, "on_") || strings.HasPrefix(name, "after_") || strings.HasPrefix(name, "get_")
		if looks && !slices.Contains(known, name) && !slices.ContainsFunc(f.Fields, func(field Field) bool { return field.Options == name }) {
			out = append(out, fmt.Sprintf("%s defines %s, which nobody calls; hooks are %s", f.Code.File, name, strings.Join(known, ", ")))
		}
	}
	return out
}

// onlyUsers reports whether people are named one by one.
func (p People) onlyUsers() bool {
	return !p.Everyone && len(p.Groups)+len(p.Tags)+len(p.OnCall) == 0
}

// onlyOnCall reports whether a source alone knows who it is.
func (p People) onlyOnCall() bool {
	return !p.Everyone && len(p.Users)+len(p.Groups)+len(p.Tags) == 0 && len(p.OnCall) > 0
}

// unusedSchedules are schedules that no flow's people name. Code may.
func unusedSchedules(set *Set) []Warning {
	used := map[string]bool{}
	code := ""
	for _, f := range set.Flows {
		all := []People{f.Ask}
		for _, s := range f.Stages {
			all = append(all, s.Of)
			if s.Fallback != nil {
				all = append(all, s.Fallback.Of)
			}
		}
		if f.BreakGlass != nil {
			all = append(all, f.BreakGlass.Review)
		}
		for _, p := range all {
			for _, name := range p.OnCall {
				used[name] = true
			}
		}
		if f.Code != nil {
			code += f.Code.Source
			for _, source := range f.Code.Modules {
				code += source
			}
		}
	}
	var out []Warning
	for _, name := range slices.Sorted(maps.Keys(set.Schedules)) {
		if !used[name] && !strings.Contains(code, name) {
			out = append(out, Warning{"", fmt.Sprintf("schedule %q is used by no flow", name)})
		}
	}
	return out
}
