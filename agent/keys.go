package agent

import (
	"context"
	"fmt"

	"sallyport.dev/agent/keysync"
	"sallyport.dev/agent/shell"
	"sallyport.dev/internal/authorizedkeys"
	"sallyport.dev/wire"
)

// newKeys makes the keeper of SSH keys, nil where the configuration wants none.
func (a *Agent) newKeys() (*keysync.Syncer, error) {
	if len(a.cfg.KeySync) == 0 {
		return nil, nil
	}
	return keysync.New(keysync.Options{
		Configs: a.cfg.KeySync, Source: keySource{a}, StateDir: a.cfg.StateDir,
		Lookup: lookupAccount, Logger: a.log, Now: a.cfg.now,
	})
}

func lookupAccount(ctx context.Context, login string) (keysync.Account, error) {
	u, err := shell.Lookup(ctx, login)
	return keysync.Account{UID: int(u.UID), GID: int(u.GID), Home: u.Home}, err
}

// keepKeys keeps SSH keys until ctx ends, if there are any to keep.
func (a *Agent) keepKeys(ctx context.Context) {
	if a.keys != nil {
		a.keys.Run(ctx)
	}
}

// askForKeys makes the keeper ask: the server hints at a change, or may have done so
// while the control channel was down.
func (a *Agent) askForKeys() {
	if a.keys != nil {
		a.keys.Wake()
	}
}

// features are what the agent tells the server that it understands.
func (a *Agent) features() []string {
	if a.keys == nil {
		return nil
	}
	return []string{wire.FeatureKeys}
}

// keySource asks the server for keys.
type keySource struct{ agent *Agent }

// Bounds of an answer: pages, and keys in all.
const (
	maxKeyPages  = 200
	maxGroupKeys = 5000
)

type listKeys struct {
	GroupName string `json:"GroupName"`
	NextToken string `json:"NextToken,omitempty"`
}

type listedKeys struct {
	Keys []struct {
		UserName       string `json:"UserName"`
		SSHPublicKeyID string `json:"SSHPublicKeyId"`
		PublicKey      string `json:"PublicKey"`
	} `json:"Keys"`
	NextToken string `json:"NextToken"`
}

// GroupKeys implements keysync.Source.
func (s keySource) GroupKeys(ctx context.Context, group string) ([]authorizedkeys.Key, error) {
	keys, err := s.pages(ctx, group)
	switch {
	case hasCode(err, "AccessDenied"), hasCode(err, "DoesNotExist"):
		return nil, fmt.Errorf("%w: %w", keysync.ErrRefused, err)
	case refused(err):
		s.agent.forget() // credentials that the server does not take any more
	}
	return keys, err
}

func (s keySource) pages(ctx context.Context, group string) ([]authorizedkeys.Key, error) {
	e := s.agent.endpoint()
	sign, err := s.agent.signWith(ctx, e)
	if err != nil {
		return nil, err
	}
	var keys []authorizedkeys.Key
	in := listKeys{GroupName: group}
	for range maxKeyPages {
		var out listedKeys
		if err := e.callService(ctx, "sallyport", "Sallyport.ListGroupSSHKeys", sign, in, &out); err != nil {
			return nil, err
		}
		for _, k := range out.Keys {
			keys = append(keys, authorizedkeys.Key{User: k.UserName, ID: k.SSHPublicKeyID, PublicKey: k.PublicKey})
		}
		if len(keys) > maxGroupKeys {
			break
		}
		if in.NextToken = out.NextToken; in.NextToken == "" {
			return keys, nil
		}
	}
	return nil, fmt.Errorf("group %s has more than %d keys", group, maxGroupKeys)
}
