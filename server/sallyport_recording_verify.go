package server

import (
	"context"
	"errors"
	"strconv"

	"sallyport.dev/archive"
	"sallyport.dev/audit"
	"sallyport.dev/recording"
)

type verifyRecordingOutput struct {
	Recording string `json:"Recording"`
	// Verified says that every byte is what was recorded: the audit log names the
	// manifest, and the manifest the chunks. That the audit log is whole is verified by
	// itself ("sallyport audit verify").
	Verified       bool   `json:"Verified"`
	SHA256         string `json:"Sha256,omitempty"`
	Size           int64  `json:"Size,omitempty"`
	ManifestSHA256 string `json:"ManifestSha256,omitempty"`
	Chunks         int    `json:"Chunks,omitempty"`
	// AuditMember and AuditSeq are which record names the manifest.
	AuditMember string             `json:"AuditMember,omitempty"`
	AuditSeq    int64              `json:"AuditSeq,omitempty"`
	Damage      []damagedRecording `json:"Damage,omitempty"`
}

type damagedRecording struct {
	Object string `json:"Object"`          // key.json, 000001.chunk, manifest.json
	Frame  int64  `json:"Frame,omitempty"` // number within the recording, from 1
	What   string `json:"What"`
}

// verificationsAtOnce bounds the calls that read whole recordings at a time: they fetch and
// decrypt gigabytes, and one's own recordings may be verified without any policy. One person
// has one of them at most.
const verificationsAtOnce = 4

// verifyRecording reads all of a recording and follows the digests from the audit log to
// its bytes, naming the places where they differ.
func verifyRecording(ctx context.Context, c *Call, in *recordingInput) (*verifyRecordingOutput, error) {
	row, err := c.checkRecording(ctx, in.SessionID, true)
	if err != nil {
		return nil, err
	}
	leave, err := c.Server.verifications.enter(ctx, c.Principal.RootID())
	if err != nil {
		return nil, err
	}
	defer leave()
	report, err := c.Server.config.Custody.Verify(ctx, row.Name)
	switch {
	case errors.Is(err, recording.ErrNotFound):
		return nil, c.recordingGone(ctx, in.SessionID)
	case errors.Is(err, recording.ErrIncomplete):
		return nil, exception("ConflictException", "The recording of session %q has not ended; verify it when it has.", in.SessionID)
	case err != nil:
		return nil, err
	}
	out := &verifyRecordingOutput{
		Recording: row.Name, SHA256: report.Manifest.SHA256, Size: report.Manifest.Size,
		ManifestSHA256: report.Manifest.Sum, Chunks: len(report.Manifest.Chunks),
	}
	for _, d := range report.Damage {
		out.Damage = append(out.Damage, damagedRecording{d.Object, d.Frame, d.What})
	}
	if err := c.compareAudit(ctx, row, report.Manifest, out); err != nil {
		return nil, err
	}
	out.Verified = len(out.Damage) == 0
	return out, nil
}

// auditOfSession bounds how many records of a session are read.
const auditOfSession = 10000

// compareAudit finds the record that names the recording's manifest.
func (c *Call) compareAudit(ctx context.Context, row archive.Row, m archive.Manifest, out *verifyRecordingOutput) error {
	if m.Sum == "" {
		return nil // there is none to compare; that is damage already
	}
	named := ""
	for _, event := range []string{audit.EventSessionEnd, audit.EventRecording} {
		records, err := c.Server.config.AuditStore.Audit(ctx, audit.Filter{Session: row.Session, Event: event, Limit: auditOfSession})
		if err != nil {
			return err
		}
		for _, r := range records {
			sum := r.Details["recording_manifest_sha256"]
			if sum == "" || r.Details["recording"] != row.Name {
				continue
			}
			out.AuditMember, out.AuditSeq, named = r.Member, r.Seq, sum
			if sum == m.Sum {
				return nil
			}
		}
	}
	what := "the audit log does not name it"
	if named != "" {
		what = "its SHA-256 is " + m.Sum + ", and " + named + " by record " + strconv.FormatInt(out.AuditSeq, 10) + " of member " + out.AuditMember
	}
	out.Damage = append(out.Damage, damagedRecording{Object: "manifest.json", What: what})
	return nil
}
