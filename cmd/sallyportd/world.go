package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"sallyport.dev/agent"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/member"
	"sallyport.dev/node"
)

//go:embed world/*.json
var worldFiles embed.FS

const sampleRole = "FrontEndSSHAccess"

type userSpec struct {
	name, group string
	tags        identity.Tags
}

var sampleUsers = []userSpec{
	{name: "admin"},
	{name: "alice", group: "frontend", tags: identity.Tags{"Team": "payments"}},
	{name: "bob", group: "backend", tags: identity.Tags{"Team": "search"}},
	{name: "carol", group: supportGroup, tags: identity.Tags{"Team": "support"}},
}

// supportGroup has no policy: its people may ask for access, and have none.
const supportGroup = "support"

type nodeSpec struct {
	id   string
	tags identity.Tags
}

var sampleNodes = []nodeSpec{
	{"i-060ee0879f3ec4eb7", identity.Tags{"Name": "frontend-1", "Department": "FrontEnd", "Team": "payments", "Environment": "Development"}},
	{"i-05b7516a19f826be9", identity.Tags{"Name": "backend-1", "Department": "BackEnd", "Team": "search", "Environment": "Production"}},
}

// sampleNode returns the i-th node: the two of the sample world, then more of the
// same two kinds.
func sampleNode(i int) nodeSpec {
	if i < len(sampleNodes) {
		return sampleNodes[i]
	}
	like := sampleNodes[i%2]
	tags := identity.Tags{}
	for k, v := range like.tags {
		tags[k] = v
	}
	kind := [2]string{"frontend", "backend"}[i%2]
	tags["Name"] = fmt.Sprintf("%s-%d", kind, i/2+1)
	return nodeSpec{id: fmt.Sprintf("i-0000000000000%04x", i), tags: tags}
}

func worldFile(name string) string {
	b, err := worldFiles.ReadFile("world/" + name + ".json")
	if err != nil {
		panic(err) // embedded
	}
	return string(b)
}

// seed makes what is missing of the sample world and returns the users' keys,
// which live on in the credentials file. What people changed since is left alone.
func seed(ctx context.Context, m *member.Member, credentials string) (map[string]accessKey, error) {
	if err := makeWorld(ctx, m); err != nil {
		return nil, err
	}
	return sampleKeys(ctx, m, credentials)
}

// worldSteps make the sample world. A folder that has seen some of them, perhaps with an
// older program, gets those that came since.
var worldSteps = []func(context.Context, *member.Member) error{makePeople, makeSupport}

// worldMark is where the store keeps how many of the steps were done.
const worldMark = "dev-world"

func makeWorld(ctx context.Context, m *member.Member) error {
	mark, err := m.Store.Meta(ctx, worldMark)
	if err != nil {
		return err
	}
	done, _ := strconv.Atoi(mark) // nothing yet
	for i := done; i < len(worldSteps); i++ {
		if err := worldSteps[i](ctx, m); err != nil {
			return err
		}
		if err := m.Store.SetMeta(ctx, worldMark, strconv.Itoa(i+1)); err != nil {
			return err
		}
	}
	return nil
}

// makeSupport makes carol, who has no access, and the flow that she may ask.
func makeSupport(ctx context.Context, m *member.Member) error {
	if err := m.CreateGroup(ctx, supportGroup); fresh(err) != nil {
		return err
	}
	if err := makeUsers(ctx, m, func(u userSpec) bool { return u.group == supportGroup }); err != nil {
		return err
	}
	return addFlow(ctx, m.Access(), arn.Realm{Account: devAccount, Region: devRegion})
}

func makeUsers(ctx context.Context, m *member.Member, which func(userSpec) bool) error {
	for _, u := range sampleUsers {
		if !which(u) {
			continue
		}
		if err := m.CreateUser(ctx, u.name, u.tags, u.group); fresh(err) != nil {
			return err
		}
	}
	return nil
}

func makePeople(ctx context.Context, m *member.Member) error {
	for _, group := range []string{"frontend", "backend"} {
		if err := m.CreateGroup(ctx, group); fresh(err) != nil {
			return err
		}
		if err := m.PutInlinePolicy(ctx, identity.Owner{Kind: identity.OwnerGroup, Name: group}, "team-access", worldFile("team-access")); err != nil {
			return err
		}
	}
	if err := makeUsers(ctx, m, func(u userSpec) bool { return u.group != supportGroup }); err != nil {
		return err
	}
	if err := m.PutInlinePolicy(ctx, identity.Owner{Kind: identity.OwnerUser, Name: "admin"}, "everything", worldFile("admin")); err != nil {
		return err
	}
	if err := m.PutInlinePolicy(ctx, identity.Owner{Kind: identity.OwnerGroup, Name: "frontend"}, "assume-frontend-ssh-access", worldFile("assume-frontend-ssh-access")); err != nil {
		return err
	}
	if err := m.CreateRole(ctx, sampleRole, worldFile("frontend-ssh-trust")); fresh(err) != nil {
		return err
	}
	return m.PutInlinePolicy(ctx, identity.Owner{Kind: identity.OwnerRole, Name: sampleRole}, "frontend-ssh-access", worldFile("frontend-ssh-access"))
}

// fresh forgives that something exists already: an earlier start that was cut short
// made it.
func fresh(err error) error {
	if errors.Is(err, identity.ErrExists) {
		return nil
	}
	return err
}

// sampleKeys returns the keys in the credentials file, making new ones for users
// that have none there.
func sampleKeys(ctx context.Context, m *member.Member, credentials string) (map[string]accessKey, error) {
	have, err := readCredentials(credentials)
	if err != nil {
		return nil, err
	}
	keys := map[string]accessKey{}
	for _, u := range sampleUsers {
		if k, ok := have[u.name]; ok {
			if _, err := m.Store.AccessKey(ctx, k.id); err == nil {
				keys[u.name] = k
				continue
			}
		}
		id, secret, err := m.CreateAccessKey(ctx, u.name)
		if errors.Is(err, identity.ErrNotFound) {
			continue // somebody deleted the user; that is theirs to decide
		}
		if err != nil {
			return nil, err
		}
		keys[u.name] = accessKey{id, secret}
	}
	return keys, nil
}

// activationFor returns what the node registers with, or nothing if its agent
// already has a registration that the server knows.
func activationFor(ctx context.Context, m *member.Member, spec nodeSpec, state string) (agent.Activation, error) {
	status, err := agent.ReadStatus(state)
	if err == nil && status.SameMachine {
		if _, err := m.Store.Node(ctx, status.InstanceID); err == nil {
			return agent.Activation{}, nil
		}
	}
	// A registration that the server has forgotten, or another machine's.
	if err := os.RemoveAll(state); err != nil {
		return agent.Activation{}, err
	}
	if err := m.Store.DeleteNode(ctx, spec.id); err != nil && !errors.Is(err, node.ErrNotFound) {
		return agent.Activation{}, err
	}
	id, code, err := m.CreateActivation(ctx, spec.tags["Name"], spec.tags, []string{spec.id})
	if err != nil {
		return agent.Activation{}, err
	}
	return agent.Activation{ID: id, Code: code}, nil
}

// readCredentials reads the keys in an AWS credentials file that this program wrote.
func readCredentials(path string) (map[string]accessKey, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	keys, profile := map[string]accessKey{}, ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "["); ok {
			profile = strings.TrimSuffix(name, "]")
			continue
		}
		k := keys[profile]
		switch name, value, _ := strings.Cut(line, "="); strings.TrimSpace(name) {
		case "aws_access_key_id":
			k.id = strings.TrimSpace(value)
		case "aws_secret_access_key":
			k.secret = strings.TrimSpace(value)
		}
		keys[profile] = k
	}
	return keys, nil
}
