package notify

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
)

// codeLife is how long a code is good for.
const codeLife = 10 * time.Minute

// slackUser is who, in Slack, did something.
type slackUser struct {
	Team string // where it was done
	Home string // the user's own workspace, as far as Slack says
	ID   string
	Name string // as Slack says, only for people to read
}

// foreign reports whether somebody is of another workspace: shared channels bring those.
func (u slackUser) foreign(team string) bool {
	return u.Team != team || u.Home != "" && u.Home != team
}

// Refusals of people in Slack.
var (
	errForeign  = errors.New("this app answers members of its own workspace only")
	errDisabled = errors.New("the user whom your Slack account is linked to is disabled or gone")
)

// who finds out which person somebody in Slack is. ErrNotFound means that nobody said so
// yet.
func (a *slackApp) who(ctx context.Context, u slackUser) (identity.Principal, error) {
	team, err := a.workspace(ctx)
	if err != nil {
		return identity.Principal{}, err
	}
	if u.foreign(team.id) {
		a.strays.refuse(ctx, "WrongTeam", "a click from another workspace", a.record(u))
		return identity.Principal{}, errForeign
	}
	p, err := a.principal(ctx, u.ID)
	if errors.Is(err, identity.ErrNotFound) {
		a.strays.refuse(ctx, "Disabled", "a click by a person who is disabled or gone", a.record(u))
		return identity.Principal{}, errDisabled
	}
	return p, err
}

// record begins an audit record of something that was done in Slack.
func (a *slackApp) record(u slackUser) audit.Record {
	return audit.Record{
		Action: "slack", UserAgent: userAgent(u),
		Details: map[string]string{"slack_team": line(u.Team, maxName), "slack_user": line(u.ID, maxName), "channel": channelSlack},
	}
}

func userAgent(u slackUser) string {
	return "slack/" + line(u.Team, maxName) + "/" + line(u.ID, maxName)
}

func actor(p identity.Principal, u slackUser) grant.Actor {
	return grant.Actor{Principal: p, Channel: channelSlack, UserAgent: userAgent(u)}
}

// codeHash is the form in which a code is kept. A code has eighty random bits and lives
// for minutes, so that a plain hash hides it.
func codeHash(code string) string {
	code = strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(code))
	sum := sha256.Sum256([]byte("sallyport chat code " + code))
	return hex.EncodeToString(sum[:])
}

// newCode makes a code in groups that people can read.
func newCode() string {
	t := rand.Text()[:16]
	return t[:4] + "-" + t[4:8] + "-" + t[8:12] + "-" + t[12:]
}

// introduce gives somebody whom nobody knows a code, and returns the words for it.
func (a *slackApp) introduce(ctx context.Context, u slackUser) (string, error) {
	team, err := a.workspace(ctx)
	if err != nil {
		return "", err
	}
	code := newCode()
	err = a.config.Store.PutLinkCode(ctx, LinkCode{
		Account: Account{serviceSlack, team.id, u.ID}, Hash: codeHash(code),
		Name: a.nameOf(ctx, u), In: team.name, Expires: a.config.Now().Add(codeLife),
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("Sallyport does not know who you are yet. Run this in your terminal, signed in as yourself, within %s:\n"+
		"`sallyport chat link %s`\nNever run a code that somebody else gave you: it would make them you.", words(codeLife), code), nil
}

// nameOf is a name for people to read, by which they tell their own account.
func (a *slackApp) nameOf(ctx context.Context, u slackUser) string {
	ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	info, err := a.api.GetUserInfoContext(ctx, u.ID)
	if err != nil || info == nil {
		return line(u.Name, maxName)
	}
	name := line(info.RealName, maxName)
	if handle := line(info.Name, maxName); handle != "" && handle != name {
		name = strings.TrimSpace(name + " @" + handle)
	}
	return name
}

// CodeInfo says whom a code would link. ErrNotFound stands for one that was not given out,
// was used or has expired.
func CodeInfo(ctx context.Context, s Store, code string, now time.Time) (LinkCode, error) {
	return s.LinkCode(ctx, codeHash(code), now)
}

// LinkAccount spends a code and links its account to a person.
func LinkAccount(ctx context.Context, s Store, code, person string, now time.Time) (Link, error) {
	return s.Link(ctx, codeHash(code), person, now)
}
