package client

import (
	"context"

	"sallyport.dev/wire"
)

// ChatAccount is an account in a chat service, and whose it is.
type ChatAccount struct {
	Service  string    `json:"Service"` // slack
	Team     string    `json:"Team"`    // id of the workspace
	TeamName string    `json:"TeamName,omitempty"`
	User     string    `json:"User"` // id there
	Name     string    `json:"Name,omitempty"`
	UserName string    `json:"UserName,omitempty"` // the user here whom it is linked to
	Linked   wire.Time `json:"Linked,omitzero"`
	Expires  wire.Time `json:"Expires,omitzero"` // of a code
}

// ChatCodeInput names a code that a chat gave. User is the id of the account that the
// caller has seen it is for; GetChatCode needs none.
type ChatCodeInput struct {
	Code string `json:"Code"`
	User string `json:"User,omitempty"`
}

// GetChatCode says whom a code would link.
func (a *API) GetChatCode(ctx context.Context, in ChatCodeInput) (*ChatAccount, error) {
	return call[ChatAccount](ctx, a, "GetChatCode", in)
}

// LinkChat makes the account that a code is for the caller's. The code is spent.
func (a *API) LinkChat(ctx context.Context, in ChatCodeInput) (*ChatAccount, error) {
	return call[ChatAccount](ctx, a, "LinkChat", in)
}

// ListChatLinksInput selects accounts: the caller's, unless another user or everyone is
// asked for.
type ListChatLinksInput struct {
	UserName  string `json:"UserName,omitempty"`
	Everyone  bool   `json:"Everyone,omitempty"`
	NextToken string `json:"NextToken,omitempty"`
}

// ListChatLinksOutput is a page of accounts.
type ListChatLinksOutput struct {
	Links     []ChatAccount `json:"Links"`
	NextToken string        `json:"NextToken,omitempty"`
}

// ListChatLinks lists linked accounts.
func (a *API) ListChatLinks(ctx context.Context, in ListChatLinksInput) (*ListChatLinksOutput, error) {
	return call[ListChatLinksOutput](ctx, a, "ListChatLinks", in)
}

// UnlinkChatInput names an account.
type UnlinkChatInput struct {
	Service string `json:"Service"`
	Team    string `json:"Team"`
	User    string `json:"User"`
}

// UnlinkChat takes an account from whom it is linked to.
func (a *API) UnlinkChat(ctx context.Context, in UnlinkChatInput) error {
	_, err := call[struct{}](ctx, a, "UnlinkChat", in)
	return err
}
