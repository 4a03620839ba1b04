package client

import (
	"context"

	"sallyport.dev/evidence"
)

// ExportRequest returns the evidence of a request, signed.
func (a *API) ExportRequest(ctx context.Context, id string) (evidence.File, error) {
	out, err := call[struct {
		File evidence.File `json:"File"`
	}](ctx, a, "ExportRequest", map[string]string{"RequestId": id})
	if err != nil {
		return evidence.File{}, err
	}
	return out.File, nil
}
