package ssoportal

import (
	"net/http"
	"slices"
	"strconv"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/signin"
)

// The portal, service sso.

// headerToken carries the access token.
const headerToken = "X-Amz-Sso_bearer_token"

// bearer returns who a request of the portal is of.
func (p *Portal) bearer(r *http.Request) (identity.Principal, signin.SignIn, error) {
	values := r.Header.Values(headerToken)
	if len(values) != 1 {
		return identity.Principal{}, signin.SignIn{}, errToken
	}
	_, in, who, err := p.holder(r.Context(), purposeAccess, values[0])
	return who, in, err
}

type account struct {
	AccountID   string `json:"accountId"`
	AccountName string `json:"accountName"`
}

type accountsOutput struct {
	AccountList []account `json:"accountList"`
}

// accounts is ListAccounts: the one account, if there is a role in it for the person.
func (p *Portal) accounts(r *http.Request) (any, error) {
	who, _, err := p.bearer(r)
	if err != nil {
		return nil, err
	}
	roles, err := p.roles.AssumableBy(r, who)
	if err != nil {
		return nil, err
	}
	out := accountsOutput{AccountList: []account{}}
	if len(roles) > 0 {
		out.AccountList = append(out.AccountList, account{p.config.Account, "Sallyport"})
	}
	return out, nil
}

type role struct {
	RoleName  string `json:"roleName"`
	AccountID string `json:"accountId"`
}

type rolesOutput struct {
	RoleList  []role `json:"roleList"`
	NextToken string `json:"nextToken,omitempty"`
}

// maxRoles is the longest page of ListAccountRoles.
const maxRoles = 100

// accountRoles is ListAccountRoles: those that the person may assume now. The token of
// the next page is the last name of this one.
func (p *Portal) accountRoles(r *http.Request) (any, error) {
	who, _, err := p.bearer(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	size, err := pageSize(q.Get("max_result"))
	if err != nil {
		return nil, err
	}
	out := rolesOutput{RoleList: []role{}}
	if q.Get("account_id") != p.config.Account {
		return out, nil
	}
	names, err := p.roles.AssumableBy(r, who)
	if err != nil {
		return nil, err
	}
	if after := q.Get("next_token"); after != "" {
		at := slices.Index(names, after)
		if at < 0 {
			return nil, badRequest("next_token: there is no such page any more")
		}
		names = names[at+1:]
	}
	if len(names) > size {
		names = names[:size]
		out.NextToken = names[size-1]
	}
	for _, name := range names {
		out.RoleList = append(out.RoleList, role{name, p.config.Account})
	}
	return out, nil
}

func pageSize(text string) (int, error) {
	if text == "" {
		return maxRoles, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxRoles {
		return 0, badRequest("max_result: want 1 to 100")
	}
	return n, nil
}

type credentialsOutput struct {
	RoleCredentials roleCredentials `json:"roleCredentials"`
}

type roleCredentials struct {
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
	SessionToken    string `json:"sessionToken"`
	Expiration      int64  `json:"expiration"` // milliseconds since 1970
}

// credentials is GetRoleCredentials. What is not allowed is refused as AssumeRole refuses
// it; another account is as a role that does not exist.
func (p *Portal) credentials(r *http.Request) (any, error) {
	who, _, err := p.bearer(r)
	if err != nil {
		return nil, err
	}
	name := r.URL.Query().Get("role_name")
	if !roleName.MatchString(name) {
		return nil, badRequest("role_name: want letters, digits and _+=,.@- only, 64 at most")
	}
	if r.URL.Query().Get("account_id") != p.config.Account {
		return nil, &fault{http.StatusForbidden, "ForbiddenException", "", "No access: this is account " + p.config.Account}
	}
	cred, err := p.roles.AssumeRole(r, who, name, who.Name)
	if err != nil {
		return nil, err
	}
	return credentialsOutput{roleCredentials{cred.AccessKeyID, cred.SecretAccessKey, cred.SessionToken, cred.Expires.UnixMilli()}}, nil
}

// logout ends the sign-in of the token.
func (p *Portal) logout(r *http.Request) (any, error) {
	who, in, err := p.bearer(r)
	if err != nil {
		return nil, err
	}
	err = p.record(r, audit.Record{
		Principal: who.ARN, Action: "sign-in:End", Reason: "signed out", Details: map[string]string{"sign_in": in.ID, "kind": string(in.Kind)},
	})
	if err != nil {
		return nil, err
	}
	return struct{}{}, p.config.SignIns.End(r.Context(), in.ID, "signed out")
}
