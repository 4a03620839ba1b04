package server

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/notify"
	"sallyport.dev/wire"
)

// Chat accounts of people: linked by a code that the chat gave, listed, and unlinked.

// ChatStore knows who is who in chats.
type ChatStore = notify.Store

func chatOperations() []*Operation {
	return []*Operation{
		op("sallyport", "GetChatCode", nil, getChatCode, checksItself, quietly),
		op("sallyport", "LinkChat", nil, linkChat, checksItself),
		op("sallyport", "ListChatLinks", nil, listChatLinks, checksItself, quietly),
		op("sallyport", "UnlinkChat", nil, unlinkChat, checksItself, toEnd),
	}
}

// chats returns the store, or that there are no chats here.
func (c *Call) chats() (ChatStore, error) {
	if c.Server.config.Chats == nil {
		c.checked = true
		return nil, exception("ValidationException", "There are no chats here.")
	}
	return c.Server.config.Chats, nil
}

// SourceIP is where a request came from, by way of trusted proxies.
func (s *Server) SourceIP(r *http.Request) string { return s.origin(r).SourceIP }

type chatCodeInput struct {
	Code string `json:"Code" check:"required,min=1,max=64,secret"`
}

type chatAccount struct {
	Service  string    `json:"Service"`
	Team     string    `json:"Team"`
	TeamName string    `json:"TeamName,omitempty"`
	User     string    `json:"User"`
	Name     string    `json:"Name,omitempty"`
	UserName string    `json:"UserName,omitempty"` // whom it is linked to, here
	Linked   wire.Time `json:"Linked,omitzero"`
	Expires  wire.Time `json:"Expires,omitzero"`
}

// getChatCode tells who has a code whom it would link, so that nobody makes a stranger
// themselves.
func getChatCode(ctx context.Context, c *Call, in *chatCodeInput) (*chatAccount, error) {
	store, err := c.chats()
	if err != nil {
		return nil, err
	}
	if _, err := c.checkPerson(ctx, ""); err != nil {
		return nil, err
	}
	code, err := notify.CodeInfo(ctx, store, in.Code, c.Origin.Time)
	if err != nil {
		return nil, chatError(err)
	}
	return &chatAccount{
		Service: code.Service, Team: code.Account.Team, TeamName: code.In, User: code.User, Name: code.Name,
		Expires: wire.Time{Time: code.Expires},
	}, nil
}

type linkChatInput struct {
	Code string `json:"Code" check:"required,min=1,max=64,secret"`
	User string `json:"User" check:"required,min=1,max=64"` // of the chat: whom the caller has seen that the code is for
}

// linkChat makes a chat account the caller's. Nobody can do it for others, nor in a role.
func linkChat(ctx context.Context, c *Call, in *linkChatInput) (*chatAccount, error) {
	store, err := c.chats()
	if err != nil {
		return nil, err
	}
	if c.Principal.Kind != identity.KindUser {
		return nil, c.refuse(ctx, "because a chat account is linked by the user themselves, not in a role")
	}
	user, err := c.checkPerson(ctx, "")
	if err != nil {
		return nil, err
	}
	// The link outlasts whatever was stolen to make it, as a factor does.
	if c.Server.config.Factors != nil {
		if err := c.mayChangeFactors(ctx, user); err != nil {
			return nil, err
		}
	}
	code, err := notify.CodeInfo(ctx, store, in.Code, c.Origin.Time)
	if err != nil {
		return nil, chatError(err)
	}
	if code.User != in.User {
		return nil, exception("ValidationException", "The code is for another account than %s.", truncate(in.User, 64))
	}
	// The record is there before anybody can decide by it.
	if err := c.recordChat(ctx, "linked", user, code.Account); err != nil {
		return nil, err
	}
	link, err := notify.LinkAccount(ctx, store, in.Code, user.ID, c.Origin.Time)
	if err != nil {
		return nil, chatError(err)
	}
	return c.linkedAccount(ctx, link, map[string]string{user.ID: user.Name})
}

func (c *Call) recordChat(ctx context.Context, what string, user identity.User, a notify.Account) error {
	_, err := c.Server.config.Audit.Append(ctx, audit.Record{
		Time: c.Origin.Time, Event: audit.EventChange, Principal: c.Principal.ARN, Action: c.Operation.Action,
		Resources: []string{c.Server.userResource(user.Name, user).ARN}, Decision: "Allowed", Reason: "chat account " + what,
		SourceIP: c.Origin.SourceIP, UserAgent: c.Origin.UserAgent, RequestID: c.Origin.RequestID,
		Details: map[string]string{"service": a.Service, "team": a.Team, "account": a.User, "user": user.Name},
	})
	return err
}

// chatError words what is wrong with a code or a link.
func chatError(err error) error {
	switch {
	case errors.Is(err, notify.ErrNotFound):
		return exception("ValidationException", "There is no such code or link: a code is good for ten minutes and for one use. Ask the chat for a new one.")
	case errors.Is(err, notify.ErrLinked):
		return exception("ValidationException", "The account is linked already, or you have another one in that workspace: unlink it first.")
	}
	return err
}

type listChatLinksInput struct {
	UserName   string `json:"UserName" check:"max=64,pattern=[\\w+=,.@-]*"` // the caller unless given
	Everyone   bool   `json:"Everyone"`
	MaxResults int    `json:"MaxResults" check:"min=0,max=200"`
	NextToken  string `json:"NextToken" check:"max=512"`
}

type listChatLinksOutput struct {
	Links     []chatAccount `json:"Links"`
	NextToken string        `json:"NextToken,omitempty"`
}

// listChatLinks lists the caller's accounts, or by policy another user's or everybody's.
func listChatLinks(ctx context.Context, c *Call, in *listChatLinksInput) (*listChatLinksOutput, error) {
	store, err := c.chats()
	if err != nil {
		return nil, err
	}
	if !in.Everyone {
		user, err := c.checkPerson(ctx, in.UserName)
		if err != nil {
			return nil, err
		}
		links, err := store.LinksOf(ctx, user.ID)
		if err != nil {
			return nil, err
		}
		return c.chatLinks(ctx, links, "")
	}
	if err := c.Check(ctx, access.Resource{ARN: "*"}); err != nil {
		return nil, err
	}
	p := pages[notify.Link]{
		size: 100,
		key:  func(l notify.Link) string { return l.Service + " " + l.Team + " " + l.User },
		fetch: func(after string, n int) ([]notify.Link, error) {
			return store.Links(ctx, accountOf(after), n)
		},
	}
	page, next, err := p.page(c, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	return c.chatLinks(ctx, page, next)
}

func accountOf(key string) notify.Account {
	service, rest, _ := strings.Cut(key, " ")
	team, user, _ := strings.Cut(rest, " ")
	return notify.Account{Service: service, Team: team, User: user}
}

func (c *Call) chatLinks(ctx context.Context, links []notify.Link, next string) (*listChatLinksOutput, error) {
	out, names := &listChatLinksOutput{Links: []chatAccount{}, NextToken: next}, map[string]string{}
	for _, l := range links {
		account, err := c.linkedAccount(ctx, l, names)
		if err != nil {
			return nil, err
		}
		out.Links = append(out.Links, *account)
	}
	return out, nil
}

// linkedAccount is a link with the name of the user, which names remembers.
func (c *Call) linkedAccount(ctx context.Context, l notify.Link, names map[string]string) (*chatAccount, error) {
	if _, known := names[l.Person]; !known {
		user, err := c.Server.config.Identities.UserByID(ctx, l.Person)
		if err != nil && !errors.Is(err, identity.ErrNotFound) {
			return nil, err
		}
		names[l.Person] = user.Name
	}
	return &chatAccount{
		Service: l.Service, Team: l.Team, User: l.User, Name: l.Name, UserName: names[l.Person], Linked: wire.Time{Time: l.Made},
	}, nil
}

type unlinkChatInput struct {
	Service string `json:"Service" check:"required,min=1,max=32"`
	Team    string `json:"Team" check:"required,min=1,max=64"`
	User    string `json:"User" check:"required,min=1,max=64"`
}

// unlinkChat takes an account from whom it is linked to: the caller, or by policy anybody.
func unlinkChat(ctx context.Context, c *Call, in *unlinkChatInput) (*struct{}, error) {
	store, err := c.chats()
	if err != nil {
		return nil, err
	}
	account := notify.Account{Service: in.Service, Team: in.Team, User: in.User}
	link, err := store.LinkOf(ctx, account)
	if err != nil && !errors.Is(err, notify.ErrNotFound) {
		return nil, err
	}
	user := identity.User{}
	if err == nil {
		if user, err = c.Server.config.Identities.UserByID(ctx, link.Person); err != nil && !errors.Is(err, identity.ErrNotFound) {
			return nil, err
		}
	}
	// Whether there is such a link is for who may end it to know.
	if user.ID != "" && user.ID == c.Principal.RootID() {
		err = c.CheckOwn(ctx, c.Server.userResource(user.Name, user))
	} else {
		err = c.Check(ctx, c.Server.userResource("*", user))
	}
	if err != nil {
		return nil, err
	}
	if err := store.Unlink(ctx, account); err != nil {
		return nil, chatError(err)
	}
	return &struct{}{}, c.recordChat(ctx, "unlinked", user, account)
}
