package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"

	"sallyport.dev/flow"
)

// Load loads the AWS configuration of a profile and a region, empty for the defaults of
// the environment.
type Load func(ctx context.Context, profile, region string) (aws.Config, error)

// LoadDefault is the Load of servers: the AWS SDK's own chain.
func LoadDefault(ctx context.Context, profile, region string) (aws.Config, error) {
	var options []func(*config.LoadOptions) error
	if profile != "" {
		options = append(options, config.WithSharedConfigProfile(profile))
	}
	if region != "" {
		options = append(options, config.WithRegion(region))
	}
	return config.LoadDefaultConfig(ctx, options...)
}

// Giver gives and takes targets in AWS. It is safe for concurrent use.
type Giver struct {
	load  Load
	pause time.Duration // between looks at something that AWS does in its own time

	mu      sync.Mutex
	configs map[[2]string]aws.Config // by profile and region; of flows, so few
}

// New returns a Giver.
func New(load Load) *Giver {
	return &Giver{load: load, pause: time.Second, configs: map[[2]string]aws.Config{}}
}

// holding is the handle of what somebody is given.
type holding struct {
	// Principal is the id of the user in Identity Center, or the name of the IAM user.
	Principal string `json:"principal"`
	// Before tells that they had it before they asked: it is not ours to take.
	Before bool `json:"before,omitempty"`
}

// Errors of targets.
var (
	errKind   = errors.New("target is not one in AWS")
	errHandle = errors.New("handle of a target in AWS cannot be read")
)

// Prepare finds out whom a person is in AWS, and whether they have the target already. It
// changes nothing. The handle is to be kept before Give is called: a Give that nobody
// remembers could not be told from what the person had before.
func (g *Giver) Prepare(ctx context.Context, t flow.Target, p flow.Person) (handle string, err error) {
	api, err := g.target(ctx, t)
	if err != nil {
		return "", err
	}
	name, err := userName(t, p)
	if err != nil {
		return "", err
	}
	var h holding
	if h.Principal, err = api.find(ctx, name); err != nil {
		return "", fmt.Errorf("finding %s in AWS: %w", name, err)
	}
	if h.Before, err = api.has(ctx, h.Principal); err != nil {
		return "", fmt.Errorf("looking for what %s has in AWS: %w", name, err)
	}
	text, err := json.Marshal(h)
	return string(text), err
}

// Give gives the target to whom Prepare found.
func (g *Giver) Give(ctx context.Context, t flow.Target, handle string) error {
	api, h, err := g.held(ctx, t, handle)
	if err != nil || h.Before {
		return err
	}
	if err := api.give(ctx, h.Principal); err != nil {
		return fmt.Errorf("giving %s: %w", t.Name, err)
	}
	return nil
}

// errStill is returned where AWS says that it took something which is still there.
var errStill = errors.New("AWS still shows it")

// Take takes the target back, and looks whether it is gone.
func (g *Giver) Take(ctx context.Context, t flow.Target, handle string) error {
	api, h, err := g.held(ctx, t, handle)
	if err != nil || h.Before {
		return err
	}
	if err := api.take(ctx, h.Principal); err != nil {
		return fmt.Errorf("taking %s: %w", t.Name, err)
	}
	still, err := api.has(ctx, h.Principal)
	if err == nil && still {
		err = errStill
	}
	if err != nil {
		return fmt.Errorf("taking %s: %w", t.Name, err)
	}
	return nil
}

// target is one target in AWS, by those who may have it.
type target interface {
	find(ctx context.Context, name string) (principal string, err error)
	has(ctx context.Context, principal string) (bool, error)
	give(ctx context.Context, principal string) error
	take(ctx context.Context, principal string) error
}

func (g *Giver) held(ctx context.Context, t flow.Target, handle string) (target, holding, error) {
	var h holding
	if err := json.Unmarshal([]byte(handle), &h); err != nil || h.Principal == "" {
		return nil, h, errHandle
	}
	api, err := g.target(ctx, t)
	return api, h, err
}

func (g *Giver) target(ctx context.Context, t flow.Target) (target, error) {
	switch {
	case t.PermissionSet != nil:
		cfg, err := g.config(ctx, t.PermissionSet.Profile, t.PermissionSet.Region)
		return newAssignment(cfg, *t.PermissionSet, g.pause), err
	case t.AWSGroup != nil:
		cfg, err := g.config(ctx, t.AWSGroup.Profile, "")
		return newMembership(cfg, t.AWSGroup.Group), err
	}
	return nil, errKind
}

func (g *Giver) config(ctx context.Context, profile, region string) (aws.Config, error) {
	key := [2]string{profile, region}
	g.mu.Lock()
	cfg, ok := g.configs[key]
	g.mu.Unlock()
	if ok {
		return cfg, nil
	}
	cfg, err := g.load(ctx, profile, region)
	if err != nil {
		return cfg, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1" // where IAM is, whatever the region
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.configs[key] = cfg
	return cfg, nil
}

// userName is what a person is called in AWS, by the target's UserField.
func userName(t flow.Target, p flow.Person) (string, error) {
	field := "name"
	if t.PermissionSet != nil && t.PermissionSet.UserField != "" {
		field = t.PermissionSet.UserField
	}
	if t.AWSGroup != nil && t.AWSGroup.UserField != "" {
		field = t.AWSGroup.UserField
	}
	if field == "name" {
		return p.Name, nil
	}
	key, ok := strings.CutPrefix(field, "tag:")
	if !ok {
		return "", fmt.Errorf(`user_field %q of target %s: want "name" or "tag:KEY"`, field, t.Name)
	}
	if values := p.Tags.Values(key); len(values) == 1 && values[0] != "" {
		return values[0], nil
	}
	return "", fmt.Errorf("%s has no single tag %s, which says who they are in AWS", p.Name, key)
}
