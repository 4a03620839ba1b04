package server

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

const (
	// maxTokenNodes is how many nodes an access token may be for: its session policy
	// names them.
	maxTokenNodes = 100
	// longestToken bounds an access token, whatever is left of the grant; it is then to
	// be had again.
	longestToken = 12 * time.Hour
)

type accessCredentials struct {
	AccessKeyID     string    `json:"AccessKeyId"`
	SecretAccessKey string    `json:"SecretAccessKey"`
	SessionToken    string    `json:"SessionToken"`
	ExpirationTime  wire.Time `json:"ExpirationTime"`
}

type getAccessTokenOutput struct {
	Credentials         *accessCredentials `json:"Credentials,omitempty"`
	AccessRequestStatus string             `json:"AccessRequestStatus"`
}

// getAccessToken tells who asked for access what became of it and, while it lasts, gives
// them credentials for sessions on its nodes and for nothing else.
func getAccessToken(ctx context.Context, c *Call, in *accessRequestInput) (*getAccessTokenOutput, error) {
	engine, err := c.engine()
	if err != nil {
		return nil, err
	}
	r, err := c.ownRequest(ctx, engine, in.AccessRequestID)
	if err != nil {
		return nil, err
	}
	if r.State == grant.Approved {
		// Taking the token is the first use that the grant waits for.
		if r, err = engine.Activate(ctx, c.apiActor(), r.ID); err != nil {
			return nil, accessError(err, nil)
		}
	}
	life := c.tokenLife(r)
	out := &getAccessTokenOutput{AccessRequestStatus: accessStatus(r, r.Holds(c.Origin.Time) && life >= time.Second)}
	if r.State == grant.Active && out.AccessRequestStatus == "Approved" {
		out.Credentials, err = c.accessToken(ctx, r, life)
	}
	return out, err
}

// tokenLife is what is left of a grant, and of the credentials that the caller has: what
// comes from them does not outlive them.
func (c *Call) tokenLife(r grant.Request) time.Duration {
	life := min(r.EndsAt.Sub(c.Origin.Time), longestToken)
	if c.Principal.Temporary() {
		life = min(life, c.Principal.ExpiresAt.Sub(c.Origin.Time))
	}
	return life
}

// accessToken issues the credentials.
func (c *Call) accessToken(ctx context.Context, r grant.Request, life time.Duration) (*accessCredentials, error) {
	nodes, err := c.requestNodes(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, ssmError("ValidationException", "Access request %s gives no nodes that sessions could be started on.", r.ID)
	}
	text, err := json.Marshal(c.tokenPolicy(r, nodes))
	if err != nil {
		return nil, err
	}
	claims := c.sameClaims()
	claims.Policies = append(slices.Clone(claims.Policies), string(text))
	claims.Granted = append(slices.Clone(claims.Granted), identity.GrantedRole{Grants: []string{r.ID}})
	cred, err := c.issue(ctx, claims, life)
	if err != nil {
		return nil, err
	}
	return &accessCredentials{cred.AccessKeyID, cred.SecretAccessKey, cred.SessionToken, cred.Expiration}, nil
}

// sameClaims are those that make the caller whom they are now.
func (c *Call) sameClaims() identity.Claims {
	p := c.Principal
	id, _, _ := strings.Cut(p.UserID, ":")
	return identity.Claims{
		Kind: p.Kind, Name: p.Name, ID: id, SessionName: p.SessionName, Tags: maps.Clone(p.SessionTags), Transitive: p.Transitive,
		Policies: p.SessionPolicies, PolicyARNs: p.SessionPolicyARNs, MFA: p.MFA, MFAAt: p.MFAAt, Factor: p.Factor,
		Source: p.Source, SourceIdentity: p.SourceIdentity, Root: p.Root, SignIn: p.SignIn, Granted: p.Granted,
	}
}

// tokenStatement is a statement of a session policy.
type tokenStatement struct {
	Sid         string
	Effect      string
	Action      []string `json:",omitempty"`
	NotAction   []string `json:",omitempty"`
	Resource    []string `json:",omitempty"`
	NotResource []string `json:",omitempty"`
}

type tokenDocument struct {
	Version   string
	Statement []tokenStatement
}

// tokenPolicy is the session policy of an access token. It allows sessions on the nodes,
// as far as the caller's policies and grants do, and denies everything else: session
// policies add up, and the caller may have some already. These go on deciding what is
// allowed at all.
func (c *Call) tokenPolicy(r grant.Request, nodes []flow.Node) tokenDocument {
	start := []string{"ssm:StartSession", "sallyport:RunAs"}
	own := []string{"ssm:ResumeSession", "ssm:TerminateSession"}
	where := tokenDocuments(r)
	for _, n := range nodes {
		where = append(where, c.Server.config.Realm.Node(n.ID))
	}
	doc := tokenDocument{Version: "2012-10-17", Statement: []tokenStatement{
		{Sid: "Nothing", Effect: "Deny", NotAction: slices.Concat(start, own), Resource: []string{"*"}},
		{Sid: "Elsewhere", Effect: "Deny", Action: start, NotResource: where},
	}}
	if len(c.Principal.SessionPolicies)+len(c.Principal.SessionPolicyARNs) == 0 {
		doc.Statement = append(doc.Statement,
			tokenStatement{Sid: "Start", Effect: "Allow", Action: start, Resource: where},
			tokenStatement{Sid: "Own", Effect: "Allow", Action: own, Resource: []string{"arn:aws:ssm:*:*:session/*"}})
	}
	return doc
}

// tokenDocuments are the session documents of a request's targets.
func tokenDocuments(r grant.Request) []string {
	var names []string
	for _, t := range r.Frozen.Targets {
		if t.Nodes == nil {
			continue
		}
		if len(t.Nodes.Documents) == 0 {
			names = append(names, grant.Documents()...)
		}
		names = append(names, t.Nodes.Documents...)
	}
	slices.Sort(names)
	var arns []string
	for _, name := range slices.Compact(names) {
		arns = append(arns, "arn:aws:ssm:*:*:document/"+name)
	}
	return arns
}
