package server

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"sallyport.dev/command"
	"sallyport.dev/identity"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// Who is disabled or deleted, and whose role is deleted, loses their sessions: also
// those that still wait for their channels, whose tokens open nothing then.
func TestSessionsEndWithTheirOwners(t *testing.T) {
	const path = "/v1/data-channel/"
	type ending struct {
		name   string
		viaOps bool
		end    func(r *relayed, admin identity.Credentials) answer
		text   string
	}
	strip := func(r *relayed, o identity.Owner) { r.must(r.store.DeleteInlinePolicy(context.Background(), o, "p0")) }
	deleteAlice := func(r *relayed, admin identity.Credentials) answer {
		strip(r, identity.Owner{Kind: identity.OwnerUser, Name: "alice"})
		keys, err := r.store.AccessKeys(context.Background(), "alice")
		r.must(err)
		for _, k := range keys {
			r.must(r.store.DeleteAccessKey(context.Background(), "alice", k.ID))
		}
		return r.query(admin, "iam", "DeleteUser", "UserName", "alice")
	}
	disableAlice := func(r *relayed, admin identity.Credentials) answer {
		return r.json(admin, "Sallyport.DisableUser", userInput{UserName: "alice"})
	}
	for _, test := range []ending{
		{"the user is disabled", false, disableAlice, "was disabled by"},
		{"the user behind a role is disabled", true, disableAlice, "was disabled by"},
		{"the user is deleted", false, deleteAlice, "was deleted by"},
		{"the user behind a role is deleted", true, deleteAlice, "was deleted by"},
		{"the role is deleted", true, func(r *relayed, admin identity.Credentials) answer {
			strip(r, identity.Owner{Kind: identity.OwnerRole, Name: "Ops"})
			return r.query(admin, "iam", "DeleteRole", "RoleName", "Ops")
		}, "was deleted by"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRelayed(t)
			r.node(channelNode, nil)
			admin, alice, bob := r.user("admin", nil, allowAll), r.user("alice", nil, allowAll), r.user("bob", nil, allowAll)
			r.role("Ops", trustAccount, allowAll)
			r.role("OpsToo", trustAccount, allowAll)
			other := bob
			if test.viaOps {
				alice = r.assumed(alice, "Ops", "alice")
				other = r.assumed(bob, "OpsToo", "alice")
			}
			r.connect(channelNode)
			start := func(c identity.Credentials) sessionOutput {
				return decodeInto[sessionOutput](t, r.json(c, "AmazonSSM.StartSession", map[string]any{"Target": channelNode}))
			}
			attached, waiting, untouched := start(alice), start(alice), start(other)
			client := r.open(identity.Credentials{}, path+attached.SessionID, wire.Opening{TokenValue: attached.TokenValue})
			if got := test.end(r, admin); got.status != 200 {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			if m := r.read(client, wire.TypeChannelClosed); !strings.Contains(string(m.Payload), test.text) {
				t.Errorf("channel_closed: got %s", m.Payload)
			}
			client.Abort()
			late := r.open(identity.Credentials{}, path+waiting.SessionID, wire.Opening{TokenValue: waiting.TokenValue})
			if m := r.read(late, wire.TypeChannelClosed); !strings.Contains(string(m.Payload), test.text) {
				t.Errorf("channel_closed to who comes late: got %s", m.Payload)
			}
			late.Abort()
			for _, id := range []string{attached.SessionID, waiting.SessionID} {
				r.describes(admin, "History", id, "Terminated")
			}
			if v, err := r.store.Session(context.Background(), untouched.SessionID); err != nil || v.State != session.StateConnecting {
				t.Errorf("another person's session: got %s, %v", v.State, err)
			}
		})
	}
}

// A session that was being started while its owner was disabled ends as well.
func TestSessionThatOvertakesItsOwnersEnd(t *testing.T) {
	r := newRelayed(t)
	r.node(channelNode, nil)
	admin, alice := r.user("admin", nil, allowAll), r.user("alice", nil, allowAll)
	r.role("Ops", trustAccount, allowAll)
	viaRole := r.assumed(alice, "Ops", "alice")
	r.connect(channelNode)
	for name, c := range map[string]identity.Credentials{"user": alice, "role": viaRole} {
		call := &Call{Server: r.server, Principal: r.principal(c)}
		started := decodeInto[sessionOutput](t, r.json(c, "AmazonSSM.StartSession", map[string]any{"Target": channelNode}))
		v, err := r.store.Session(context.Background(), started.SessionID)
		r.must(err)
		r.must(call.checkStillAllowed(context.Background(), r.gateway, v))
		disable := func(to bool) {
			r.must(r.store.UpdateUser(context.Background(), "alice", func(u *identity.User) error { u.Disabled = to; return nil }))
		}
		disable(true)
		if err := call.checkStillAllowed(context.Background(), r.gateway, v); err == nil {
			t.Errorf("%s: got no error", name)
		}
		r.describes(admin, "History", started.SessionID, "Terminated")
		disable(false)
	}
}

// noSender is a gateway whose nodes are all away.
type noSender struct{}

func (noSender) SendJob(context.Context, string, wire.ControlTask) error {
	return session.ErrNotConnected
}

// Commands that still wait for their nodes are cancelled with the role that they were
// sent through, and no others.
func TestCommandsEndWithTheirRole(t *testing.T) {
	var runner *command.Runner
	r := newRelayed(t, func(c *Config) {
		commands := c.Sessions.(command.Store)
		runner = command.New(command.Config{Store: commands, Cluster: &alone{}, Audit: c.Audit, Logger: slog.New(slog.DiscardHandler), Region: "us-east-1"})
		c.Commands, c.Runner = commands, runner
	})
	r.must(runner.Start(t.Context(), noSender{}))
	t.Cleanup(func() { r.must(runner.Close(context.Background())) })
	r.node(channelNode, nil)
	admin, alice := r.user("admin", nil, allowAll), r.user("alice", nil, allowAll)
	r.role("Ops", trustAccount, allowAll)
	r.role("OpsToo", trustAccount, allowAll)
	send := func(c identity.Credentials) string {
		return decodeInto[commandOutput](t, r.json(c, "AmazonSSM.SendCommand", map[string]any{
			"InstanceIds": []string{channelNode}, "DocumentName": "AWS-RunShellScript", "Parameters": map[string][]string{"commands": {"id"}},
		})).Command.CommandID
	}
	lost, kept := send(r.assumed(alice, "Ops", "alice")), send(r.assumed(alice, "OpsToo", "alice"))
	own := send(alice)
	r.must(r.store.DeleteInlinePolicy(context.Background(), identity.Owner{Kind: identity.OwnerRole, Name: "Ops"}, "p0"))
	if got := r.query(admin, "iam", "DeleteRole", "RoleName", "Ops"); got.status != http.StatusOK {
		t.Fatalf("DeleteRole: %d %s", got.status, got.body)
	}
	for id, want := range map[string]bool{lost: true, kept: false, own: false} {
		cmd, err := r.server.config.Commands.Command(context.Background(), id)
		r.must(err)
		if got := cmd.CancelledBy != ""; got != want {
			t.Errorf("command of %s: cancelled %v, want %v", cmd.Owner, got, want)
		}
	}
}
