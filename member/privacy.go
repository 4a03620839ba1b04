package member

import (
	"fmt"

	"sallyport.dev/archive"
	"sallyport.dev/recording"
	"sallyport.dev/session"
)

// Redaction is a pattern with a name that recordings never hold.
type Redaction struct {
	Name string `hcl:"name,label"`
	// Pattern is a regular expression in RE2 syntax. Replace stands for what matches;
	// "[redacted NAME]" by default.
	Pattern string `hcl:"pattern"`
	Replace string `hcl:"replace,optional"`
}

// checkRedaction compiles the patterns that recordings never hold.
func (s *Sessions) checkRedaction() (err error) {
	var all []recording.Pattern
	for _, name := range s.RedactKnown {
		p, err := recording.KnownPattern(name)
		if err != nil {
			return fmt.Errorf("sessions.redact_known: %w", err)
		}
		all = append(all, p)
	}
	for _, expr := range s.Redact {
		all = append(all, recording.Pattern{Expr: expr})
	}
	for _, r := range s.Redactions {
		all = append(all, recording.Pattern{Name: r.Name, Expr: r.Pattern, Replace: r.Replace})
	}
	if len(all) == 0 {
		return nil
	}
	if s.redaction, err = recording.NewRedaction(all); err != nil {
		return fmt.Errorf("sessions.redact: %w", err)
	}
	return nil
}

// staged is a recording behind the stages that leave out what it must not hold. Who
// follows it follows what is left.
type staged struct {
	recording.Stage
	recording *archive.Recording
}

// Attach lets watchers in.
func (s staged) Attach(f recording.Follower) (offset int64) { return s.recording.Attach(f) }

// Detach lets them go.
func (s staged) Detach(f recording.Follower) { s.recording.Detach(f) }

// stages puts in front of a session's recording what leaves out hidden input, if input is
// recorded, and then what patterns name.
func (m *Member) stages(r *archive.Recording, o session.Options) session.Recorder {
	s := staged{r, r}
	if m.cfg.Sessions.redaction != nil {
		s.Stage = m.cfg.Sessions.redaction.Wrap(s.Stage, recordingWidth, m.cfg.Now)
	}
	switch {
	case !o.RecordInput:
	case o.Terminal:
		s.Stage = recording.NewEchoGuard(s.Stage)
	case !m.cfg.Sessions.RecordProgramInput:
		s.Stage = &recording.NoInput{Stage: s.Stage}
	}
	return s
}
