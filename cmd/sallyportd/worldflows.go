package main

import (
	"context"
	"embed"
	"fmt"
	"maps"

	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
)

// sampleFlow is the file of the sample world's flow.
const sampleFlow = "frontend.sallyport.hcl"

//go:embed world/flows/*.hcl
var worldFlows embed.FS

// flowKeeper keeps the flows in force: *grant.Engine.
type flowKeeper interface {
	Files(ctx context.Context) (files map[string][]byte, digest string, err error)
	PutFlows(ctx context.Context, a grant.Actor, files map[string][]byte, old string) (string, error)
}

// addFlow puts the sample flow beside the flows that there are. One of the same file is
// somebody's own.
func addFlow(ctx context.Context, k flowKeeper, realm arn.Realm) error {
	files, digest, err := k.Files(ctx)
	if err != nil || files[sampleFlow] != nil {
		return err
	}
	text, err := worldFlows.ReadFile("world/flows/" + sampleFlow)
	if err != nil {
		return err
	}
	all := maps.Clone(files)
	if all == nil {
		all = map[string][]byte{}
	}
	all[sampleFlow] = text
	local := grant.Actor{Principal: identity.Principal{ARN: realm.IAM("user", "/", "admin")}, Channel: "api"}
	if _, err := k.PutFlows(ctx, local, all, digest); err != nil {
		return fmt.Errorf("adding the flow frontend: %w", err)
	}
	return nil
}
