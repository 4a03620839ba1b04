package server

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sallyport.dev/command"
	"sallyport.dev/identity"
	"sallyport.dev/node"
)

// A command that still waits for its nodes, or runs there, is cancelled where it is not
// allowed any more, and goes on elsewhere.
func TestCommandEndsWithItsPermission(t *testing.T) {
	sending := allow("ssm:SendCommand", "*", "")
	for _, test := range []struct {
		name   string
		take   func(r *relayed, held *holdings)
		by     string
		lost   map[string]bool // nodes
		policy string
	}{
		{"a grant is revoked", func(_ *relayed, held *holdings) { held.revoke(firstGrant) },
			"access-ended: grant oi-0123456789ab was revoked by bob", map[string]bool{channelNode: true, otherNode: true}, sending},
		{"a grant is over", func(r *relayed, _ *holdings) { r.advance(2 * time.Hour) },
			"access-ended: grant oi-0123456789ab is over, its time was up", map[string]bool{channelNode: true, otherNode: true}, sending},
		{"a tag of one node changes", func(r *relayed, _ *holdings) {
			r.must(r.store.UpdateNode(context.Background(), channelNode, func(n *node.Node) error { n.Tags = nil; return nil }))
		}, "", map[string]bool{channelNode: true}, `{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Action":"ssm:SendCommand","Resource":"arn:aws:ssm:*:*:document/*"},
			{"Effect":"Allow","Action":"ssm:SendCommand","Resource":"arn:aws:ec2:*:*:instance/*","Condition":{"StringEquals":{"ssm:resourceTag/Team":"web"}}}]}`},
		{"nothing changes", func(r *relayed, _ *holdings) { r.user("dave", nil) }, "", nil, sending},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			held := newHoldings(t)
			var runner *command.Runner
			r := newRelayed(t, held.use, func(c *Config) {
				commands := c.Sessions.(command.Store)
				runner = command.New(command.Config{Store: commands, Cluster: &alone{}, Audit: c.Audit, Logger: slog.New(slog.DiscardHandler), Region: "us-east-1"})
				c.Commands, c.Runner = commands, runner
			})
			r.must(runner.Start(t.Context(), noSender{}))
			t.Cleanup(func() { r.must(runner.Close(context.Background())) })
			r.node(channelNode, identity.Tags{"Team": "web"})
			r.node(otherNode, identity.Tags{"Team": "web"})
			carol := r.user("carol", nil)
			who, err := r.store.User(t.Context(), "carol")
			r.must(err)
			held.give(firstGrant, who, time.Hour, test.policy)
			sent := decodeInto[commandOutput](t, r.json(carol, "AmazonSSM.SendCommand", map[string]any{
				"InstanceIds": []string{channelNode, otherNode}, "DocumentName": "AWS-RunShellScript", "Parameters": map[string][]string{"commands": {"id"}},
			})).Command.CommandID
			time.Sleep(2 * keepEvery)
			test.take(r, held)
			for _, id := range []string{channelNode, otherNode} {
				r.wantInvocation(sent, id, test.lost[id])
			}
			cmd, err := r.server.config.Commands.Command(t.Context(), sent)
			r.must(err)
			if cmd.CancelledBy != test.by {
				t.Errorf("cancelled by %q, want %q", cmd.CancelledBy, test.by)
			}
			cancelled := 0
			for _, a := range r.audited("change") {
				if a.Action == "ssm:CancelCommand" && strings.HasPrefix(a.Reason, "access-ended: ") {
					cancelled++
				}
			}
			if (cancelled == 1) != (test.lost != nil) {
				t.Errorf("%d records of it", cancelled)
			}
		})
	}
}

func (r *relayed) wantInvocation(cmd, id string, lost bool) {
	r.t.Helper()
	deadline := 5 * time.Second
	if !lost {
		deadline = 3 * keepEvery
	}
	var got command.Invocation
	for began := time.Now(); time.Since(began) < deadline; time.Sleep(20 * time.Millisecond) {
		var err error
		got, err = r.server.config.Commands.Invocation(context.Background(), cmd, id)
		r.must(err)
		if lost && got.Status == command.Cancelled {
			return
		}
	}
	if (got.Status == command.Cancelled) != lost {
		r.t.Errorf("on %s the command is %s, cancelled should be %v", id, got.Status, lost)
	}
}
