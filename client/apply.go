package client

import "context"

// ConfigurationStep is one thing that configuration files make, change or take away.
type ConfigurationStep struct {
	Verb  string   `json:"Verb"` // create, change, delete, disable
	Kind  string   `json:"Kind"` // user, group, role, policy, document, files
	Name  string   `json:"Name"`
	Lines []string `json:"Lines,omitempty"`
}

// ConfigurationPlan is what there is to do to make a deployment what files say.
type ConfigurationPlan struct {
	Steps []ConfigurationStep `json:"Steps"`
	Hash  string              `json:"Hash"`
}

// ConfigurationResult is what came of a plan.
type ConfigurationResult struct {
	Steps []ConfigurationStep `json:"Steps"`
	Done  int                 `json:"Done"`
	Error string              `json:"Error,omitempty"`
}

// PlanConfiguration compares files, by their names, with what there is.
func (a *API) PlanConfiguration(ctx context.Context, files map[string]string) (*ConfigurationPlan, error) {
	return call[ConfigurationPlan](ctx, a, "PlanConfiguration", map[string]any{"Files": files})
}

// ApplyConfiguration does a plan, if it is still the one of that hash.
func (a *API) ApplyConfiguration(ctx context.Context, files map[string]string, hash string) (*ConfigurationResult, error) {
	return call[ConfigurationResult](ctx, a, "ApplyConfiguration", map[string]any{"Files": files, "Hash": hash})
}
