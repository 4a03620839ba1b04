package member

import (
	"cmp"
	"context"
	"errors"

	"sallyport.dev/recording"
	"sallyport.dev/session"
)

// Recordings start with this size; the first resize comes with the client.
const recordingWidth, recordingHeight = 80, 24

// record opens the recording of a session.
func (m *Member) record(ctx context.Context, s session.Session, o session.Options) (session.Recorder, string, error) {
	name := cmp.Or(o.NodeName, s.NodeID)
	h := recording.Header{
		Width: recordingWidth, Height: recordingHeight,
		Title: s.OwnerName + " on " + name,
		Env:   map[string]string{"TERM": "xterm-256color"},
		Metadata: recording.Metadata{
			Session: s.ID, Principal: s.Owner, Node: s.NodeID, NodeName: name,
			Document: s.Document, Reason: s.Reason, Command: o.Command, Started: s.Started,
		},
	}
	r, err := m.archive.Create(ctx, h)
	if err != nil {
		return nil, "", err
	}
	err = m.noteRecording(ctx, s, r.Name)
	if err == nil {
		err = m.logToAWS(ctx, s, r.Name, o.Log)
	}
	if err != nil {
		_, closed := r.Close(recording.End{Reason: err.Error(), Ended: s.Started})
		return nil, "", errors.Join(err, closed)
	}
	m.transcribe(r.Writer, h)
	return m.stages(r, o), r.Name, nil
}
