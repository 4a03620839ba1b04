package client

import (
	"context"

	"sallyport.dev/audit"
	"sallyport.dev/audit/checkpoint"
)

// AuditStatus says how checkpoints and forwarding of the audit log are doing, on the
// member that answered.
type AuditStatus struct {
	Checkpoint   int64              `json:"Checkpoint"`
	Made         Time               `json:"Made,omitzero"`
	Waiting      int                `json:"Waiting"`
	Problems     int                `json:"Problems"`
	Destinations []AuditDestination `json:"Destinations"`
}

// AuditDestination says how far the audit log was forwarded to one place.
type AuditDestination struct {
	Name     string `json:"Name"`
	Behind   int64  `json:"Behind"` // records
	Oldest   Time   `json:"Oldest,omitzero"`
	Sending  bool   `json:"Sending"` // by the member that answered
	Sent     int64  `json:"Sent"`
	Failures int64  `json:"Failures"`
	Problem  string `json:"Problem,omitempty"`
}

// AuditStatus asks how checkpoints and forwarding are doing.
func (a *API) AuditStatus(ctx context.Context) (*AuditStatus, error) {
	return call[AuditStatus](ctx, a, "GetAuditStatus", struct{}{})
}

// AuditHeads returns the ends of all chains of the audit log.
func (a *API) AuditHeads(ctx context.Context) ([]audit.Head, error) {
	out, err := call[struct {
		Heads []audit.Head `json:"Heads"`
	}](ctx, a, "ListAuditChains", struct{}{})
	if err != nil {
		return nil, err
	}
	return out.Heads, nil
}

// AuditRows returns the next rows of a chain after a sequence number, as they lie in the
// database; none after its end.
func (a *API) AuditRows(ctx context.Context, member string, after int64) ([]audit.Row, error) {
	out, err := call[struct {
		Rows []audit.Row `json:"Rows"`
	}](ctx, a, "ReadAuditChain", map[string]any{"Member": member, "After": after})
	if err != nil {
		return nil, err
	}
	return out.Rows, nil
}

// Checkpoints returns the next checkpoints in the database after a number.
func (a *API) Checkpoints(ctx context.Context, after int64) ([]checkpoint.Signed, error) {
	out, err := call[struct {
		Checkpoints []checkpoint.Signed `json:"Checkpoints"`
	}](ctx, a, "ReadAuditCheckpoints", map[string]int64{"After": after})
	if err != nil {
		return nil, err
	}
	return out.Checkpoints, nil
}

// CheckpointNames returns the next names of objects among the checkpoints in the
// recording store, and whether there are more.
func (a *API) CheckpointNames(ctx context.Context, after string) (names []string, more bool, err error) {
	out, err := call[struct {
		Names []string `json:"Names"`
		More  bool     `json:"More"`
	}](ctx, a, "ListAuditObjects", map[string]string{"After": after})
	if err != nil {
		return nil, false, err
	}
	return out.Names, out.More, nil
}

// MaxCheckpointNames is how many names CheckpointsNamed takes.
const MaxCheckpointNames = 100

// CheckpointsNamed reads checkpoints from the recording store by the names of their
// objects: the first ones of them, as many as go into one answer.
func (a *API) CheckpointsNamed(ctx context.Context, names []string) ([]checkpoint.Signed, error) {
	out, err := call[struct {
		Objects []checkpoint.Signed `json:"Objects"`
	}](ctx, a, "ReadAuditObjects", map[string][]string{"Names": names})
	if err != nil {
		return nil, err
	}
	return out.Objects, nil
}
