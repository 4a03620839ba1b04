package server

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/audit/checkpoint"
	"sallyport.dev/wire"
)

// AuditChain is the audit log as it lies in the database, with its checkpoints there and
// in the recording store, for those who verify it.
type AuditChain interface {
	AuditHeads(ctx context.Context) ([]audit.Head, error)
	AuditRows(ctx context.Context, member string, after int64, n int) ([]audit.Row, error)
	Checkpoints(ctx context.Context, after int64, n int) ([]checkpoint.Signed, error)
	// StoredNames yields the names of the objects of checkpoints in the recording store,
	// in order; StoredNamed reads one, fs.ErrNotExist for none.
	StoredNames(ctx context.Context) iter.Seq2[string, error]
	StoredNamed(ctx context.Context, name string) (checkpoint.Signed, error)
	Status(ctx context.Context) (AuditStatus, error)
}

// AuditStatus says how checkpoints and forwarding are doing, on the member asked.
type AuditStatus struct {
	Checkpoint   int64              `json:"Checkpoint"`    // number of the last one
	Made         wire.Time          `json:"Made,omitzero"` // when that was signed
	Waiting      int                `json:"Waiting"`       // checkpoints that the recording store does not have yet
	Problems     int                `json:"Problems"`      // found in the log by this member since its start
	Destinations []AuditDestination `json:"Destinations"`  // in order of their names
}

// AuditDestination says how far the log was forwarded to one place.
type AuditDestination struct {
	Name     string    `json:"Name"`
	Behind   int64     `json:"Behind"`          // records that were not delivered yet
	Oldest   wire.Time `json:"Oldest,omitzero"` // when the first of them was written
	Sending  bool      `json:"Sending"`         // by this member; others know of problems
	Sent     int64     `json:"Sent"`            // by this member since its start
	Failures int64     `json:"Failures"`        // likewise
	Problem  string    `json:"Problem,omitempty"`
}

// auditOperations are those that verify the audit log. All of them are one action: who
// may verify the log may read all of it.
func auditOperations() []*Operation {
	verify := as("sallyport:VerifyAudit")
	return []*Operation{
		op("sallyport", "ListAuditChains", nil, listAuditChains, checksItself, verify),
		op("sallyport", "ReadAuditChain", nil, readAuditChain, checksItself, verify),
		op("sallyport", "ReadAuditCheckpoints", nil, readAuditCheckpoints, checksItself, verify),
		op("sallyport", "ListAuditObjects", nil, listAuditObjects, checksItself, verify),
		op("sallyport", "ReadAuditObjects", nil, readAuditObjects, checksItself, verify),
		op("sallyport", "GetAuditStatus", nil, getAuditStatus, checksItself, verify),
	}
}

// Bounds of one answer.
const (
	maxAuditRows        = 500
	maxAuditBytes       = 4 << 20
	maxAuditCheckpoints = 100
	maxAuditNames       = 10000
)

// auditChain authorises the caller and returns what they ask about. Of the many pages of
// a verification one record tells.
func (c *Call) auditChain(ctx context.Context) (AuditChain, error) {
	if err := c.once("", func() error { return c.Check(ctx, access.Resource{ARN: "*"}) }); err != nil {
		return nil, err
	}
	if c.Server.config.AuditChain == nil {
		return nil, exception("ValidationException", "This server keeps no checkpoints of its audit log.")
	}
	return c.Server.config.AuditChain, nil
}

type auditChainsOutput struct {
	Heads []audit.Head `json:"Heads"`
}

func listAuditChains(ctx context.Context, c *Call, _ *struct{}) (*auditChainsOutput, error) {
	chain, err := c.auditChain(ctx)
	if err != nil {
		return nil, err
	}
	heads, err := chain.AuditHeads(ctx)
	if heads == nil {
		heads = []audit.Head{}
	}
	return &auditChainsOutput{heads}, err
}

type readAuditChainInput struct {
	Member     string `json:"Member" check:"required,min=1,max=256"`
	After      int64  `json:"After" check:"min=0"`
	MaxResults int    `json:"MaxResults,omitempty" check:"min=1,max=500"`
}

type readAuditChainOutput struct {
	Rows []audit.Row `json:"Rows"` // none after the end
}

func readAuditChain(ctx context.Context, c *Call, in *readAuditChainInput) (*readAuditChainOutput, error) {
	chain, err := c.auditChain(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := chain.AuditRows(ctx, in.Member, in.After, cmp.Or(in.MaxResults, maxAuditRows))
	if err != nil {
		return nil, err
	}
	out := &readAuditChainOutput{Rows: []audit.Row{}}
	for size := 0; len(out.Rows) < len(rows) && size < maxAuditBytes; {
		row := rows[len(out.Rows)]
		out.Rows = append(out.Rows, row)
		size += len(row.Text)
	}
	return out, nil
}

type readAuditCheckpointsInput struct {
	After      int64 `json:"After" check:"min=0"`
	MaxResults int   `json:"MaxResults,omitempty" check:"min=1,max=100"`
}

type auditCheckpointsOutput struct {
	Checkpoints []checkpoint.Signed `json:"Checkpoints"`
}

func readAuditCheckpoints(ctx context.Context, c *Call, in *readAuditCheckpointsInput) (*auditCheckpointsOutput, error) {
	chain, err := c.auditChain(ctx)
	if err != nil {
		return nil, err
	}
	all, err := chain.Checkpoints(ctx, in.After, cmp.Or(in.MaxResults, maxAuditCheckpoints))
	if err != nil {
		return nil, err
	}
	return &auditCheckpointsOutput{someOf(all)}, nil
}

// someOf is as many of the checkpoints as go into one answer, one at least.
func someOf(all []checkpoint.Signed) []checkpoint.Signed {
	some := []checkpoint.Signed{}
	for size := 0; len(some) < len(all) && size < maxAuditBytes; {
		c := all[len(some)]
		some = append(some, c)
		size += len(c.Text)
	}
	return some
}

type listAuditObjectsInput struct {
	After string `json:"After" check:"max=256"`
}

type listAuditObjectsOutput struct {
	Names []string `json:"Names"`
	More  bool     `json:"More,omitempty"`
}

func listAuditObjects(ctx context.Context, c *Call, in *listAuditObjectsInput) (*listAuditObjectsOutput, error) {
	chain, err := c.auditChain(ctx)
	if err != nil {
		return nil, err
	}
	out := &listAuditObjectsOutput{Names: []string{}}
	for name, err := range chain.StoredNames(ctx) {
		switch {
		case err != nil:
			return nil, storeAway(err)
		case name <= in.After:
			continue
		case len(out.Names) == maxAuditNames:
			out.More = true
			return out, nil
		}
		out.Names = append(out.Names, name)
	}
	return out, nil
}

// storeAway says that the recording store does not answer, which is not the caller's
// doing and not a mistake of ours.
func storeAway(err error) error {
	return exception("ServiceUnavailable", "The recording store does not answer: %v", err)
}

type readAuditObjectsInput struct {
	Names []string `json:"Names" check:"required,min=1,max=100" each:"min=1,max=256"`
}

type readAuditObjectsOutput struct {
	// Objects are those of the names, in their order, up to the first that did not fit.
	// One that is not there has no text.
	Objects []checkpoint.Signed `json:"Objects"`
}

func readAuditObjects(ctx context.Context, c *Call, in *readAuditObjectsInput) (*readAuditObjectsOutput, error) {
	chain, err := c.auditChain(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range in.Names {
		// Of the store that recordings lie in, this reads checkpoints and nothing else.
		if !strings.HasPrefix(name, checkpoint.Folder) || checkpoint.NumberOf(name) == 0 {
			return nil, exception("ValidationException", "%q is not the name of a checkpoint.", name)
		}
	}
	all := []checkpoint.Signed{}
	for names := range slices.Chunk(in.Names, auditObjectsAtOnce) {
		read, err := readStored(ctx, chain, names)
		if err != nil {
			return nil, storeAway(err)
		}
		if all = append(all, read...); len(someOf(all)) < len(all) {
			break
		}
	}
	return &readAuditObjectsOutput{someOf(all)}, nil
}

// auditObjectsAtOnce is how many checkpoints are read from the recording store at a time:
// a year has a hundred thousand, and each of them is far away.
const auditObjectsAtOnce = 8

// readStored reads checkpoints from the recording store; one that is not there has no text.
func readStored(ctx context.Context, chain AuditChain, names []string) ([]checkpoint.Signed, error) {
	all := make([]checkpoint.Signed, len(names))
	var g errgroup.Group
	for i, name := range names {
		g.Go(func() (err error) {
			if all[i], err = chain.StoredNamed(ctx, name); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			all[i].Number = checkpoint.NumberOf(name)
			return err
		})
	}
	return all, g.Wait()
}

func getAuditStatus(ctx context.Context, c *Call, _ *struct{}) (*AuditStatus, error) {
	chain, err := c.auditChain(ctx)
	if err != nil {
		return nil, err
	}
	status, err := chain.Status(ctx)
	if status.Destinations == nil {
		status.Destinations = []AuditDestination{}
	}
	return &status, err
}
