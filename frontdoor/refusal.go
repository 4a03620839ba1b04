package frontdoor

import (
	"context"
	"errors"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/client"
	"sallyport.dev/server"
	"sallyport.dev/wire"
)

// statusRefused is the exit status of what was not started, as the AWS CLI has it.
const statusRefused = 254

var errClosed = errors.New("the SSH client closed the channel")

// explain tells a person why something was not started. Of a node that they may not
// use, they read what they would read of one that does not exist: that it does not, only
// those do whose policies let them use one without tags.
func (c *connection) explain(err error) string {
	name := c.proven.target.node
	denied := (*access.DeniedError)(nil)
	exception := (*wire.Exception)(nil)
	unknown := (*server.UnknownNodeError)(nil)
	ambiguous := (*server.AmbiguousNodeError)(nil)
	helped := (*helpedError)(nil)
	undecided := (*undecidedError)(nil)
	switch {
	case errors.As(err, &helped):
		return c.explain(helped.error) + "\n" + helped.hint()
	case errors.As(err, &undecided), errors.Is(err, errNotAsked), errors.Is(err, errLeftAsking), errors.Is(err, errSlowAnswer):
		return err.Error()
	case errors.As(err, &denied):
		return "AccessDenied: " + deniedText(denied, name)
	case errors.As(err, &ambiguous):
		return ambiguous.Error()
	case errors.As(err, &unknown):
		return "There is no node " + name + "."
	case errors.As(err, &exception) && exception.Code == "TargetNotConnected":
		return "TargetNotConnected: node " + name + " is not connected."
	case errors.As(err, &exception):
		return exception.Code + ": " + exception.Message
	case errors.Is(err, errForwards):
		return err.Error()
	case errors.Is(err, errExpired), errors.Is(err, errEnded), errors.Is(err, errShutdown):
		return err.Error()
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx).Error()
	}
	c.log.Error("starting a session", "node", name, "error", err)
	return "the session could not be started; the server's log tells the cause"
}

const actionStart = "ssm:StartSession"

// deniedText is a refusal's text. Which policy denies a node explicitly would tell that
// the node exists, so that this is left to the audit log.
func deniedText(e *access.DeniedError, node string) string {
	if e.Action != actionStart || strings.Contains(e.Resource, ":document/") {
		return e.Error()
	}
	because := e.Because
	if because == "" {
		because = "because no identity-based policy allows the " + e.Action + " action, or a policy denies it"
	}
	return "User: " + e.Principal + " is not authorized to perform: " + e.Action + " on node " + node + " " + because
}

// line makes a text of the server's fit for a terminal.
func line(text string) string { return "sallyport: " + client.Clean(text) + "\r\n" }
