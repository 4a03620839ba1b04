package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/document"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/wire"
)

// plan is a session as it would be. It is worked out before the session is authorised:
// policies look at where it leads and as whom it runs.
type plan struct {
	node     node.Node
	named    string // the document's name as the caller gave it; "" for none
	document *document.Document
	params   map[string]json.RawMessage
	resolved *document.Resolved
	remote   *access.Remote // of Port sessions
	login    login
	because  string   // why it is refused whatever policies say
	grants   []string // ids of the grants without which it is refused
}

// name is the name of the session's document.
func (p *plan) name() string { return orElse(p.named, defaultDocument) }

// start is what the session is authorised on.
func (p *plan) start(s *Server) access.Start {
	start := s.startOf(p.node, p.named)
	start.Remote, start.Login, start.Because = p.remote, p.loginKey(), p.because
	return start
}

// plan works out a session of who on a node. Wrong is what keeps it from starting, of
// which the caller learns only when they may start one.
func (c *Call) plan(ctx context.Context, who identity.Principal, n node.Node, in StartInput) (p *plan, wrong, err error) {
	p = &plan{node: n}
	if p.named, err = c.Server.documentName(in.Document); err != nil {
		return nil, nil, err
	}
	err = c.fillGranted(ctx, who, in, p, c.fill(ctx, who, in, p))
	if e := (*wire.Exception)(nil); errors.As(err, &e) {
		return p, err, nil
	}
	return p, nil, err
}

// fill reads the document and puts in the parameters, the login and the destination.
func (c *Call) fill(ctx context.Context, who identity.Principal, in StartInput, p *plan) (err error) {
	if p.document, err = c.sessionDocument(ctx, p.named); err != nil {
		return err
	}
	if p.params, err = p.document.Fill(in.Parameters); err != nil {
		return parameterError(err)
	}
	if p.resolved, err = p.document.Resolve(p.params); err != nil {
		return parameterError(err)
	}
	if p.resolved.Port != nil {
		return c.fillRemote(p)
	}
	p.login, err = chooseLogin(who, p.resolved.Inputs, in.RunAs)
	if err == nil && in.RunAs != "" && p.elevated() {
		err = ssmError("ValidationException", "Document %s runs as root (runAsElevated), not as a login of the caller's choice.", p.document.Name)
	}
	return err
}

// parameterError words what is wrong with parameters, alone or in their place in the
// document, for the caller.
func parameterError(err error) error {
	if bad := (*document.ParameterError)(nil); errors.As(err, &bad) {
		return ssmError("InvalidParameters", "%s", sentence(bad))
	}
	if bad := (*document.Error)(nil); errors.As(err, &bad) {
		return ssmError("InvalidParameters", "With these parameters, %s: %s.", bad.Path, bad.Problem)
	}
	return err
}

// fillRemote says where a Port session leads.
func (c *Call) fillRemote(p *plan) error {
	if socket := p.resolved.Port.UnixSocket; socket != "" {
		p.remote = &access.Remote{Socket: socket}
		return p.needsOwnAgent("unix sockets")
	}
	r, err := access.ParseRemote(p.resolved.Port.Host, p.resolved.Port.PortNumber)
	if err != nil {
		return ssmError("InvalidParameters", "%s", sentence(err))
	}
	p.remote = &r
	p.because = c.Server.refuseRemote(r, p.node)
	return nil
}

// needsOwnAgent refuses what the node's agent is known not to have.
func (p *plan) needsOwnAgent(what string) error {
	if p.node.AgentName == "" || p.node.AgentName == ownAgent {
		return nil
	}
	return ssmError("InvalidDocument", "Document %s needs %s on the node: %s knows no %s.", p.document.Name, ownAgent, p.node.AgentName, what)
}

// refuseRemote applies the server's rules for forwards as far as they can be before a
// host is resolved. The node applies them to what it resolves to; an agent that does
// not know them gets no names.
func (s *Server) refuseRemote(r access.Remote, n node.Node) (because string) {
	rules := s.config.Forward
	if rules == nil || r.Host == localhost {
		return ""
	}
	if !r.Address.IsValid() {
		if n.AgentName == "" || n.AgentName == ownAgent {
			return ""
		}
		return "because the server has rules for forwards, which the node's agent cannot apply to the name " + r.Host + ": give its address instead"
	}
	if within(r.Address, rules.Deny) || len(rules.Allow) > 0 && !within(r.Address, rules.Allow) {
		return "because the server's rules for forwards do not allow the address " + r.Address.String()
	}
	return ""
}

// localhost is the host of a forward to the node itself.
const localhost = "localhost"

// ownAgent is what our agent calls itself.
const ownAgent = "sallyport-agent"

// within reports whether an address is in one of the networks, which were checked when
// the configuration was read.
func within(addr netip.Addr, networks []string) bool {
	return slices.ContainsFunc(networks, func(text string) bool {
		prefix, err := netip.ParsePrefix(text)
		return err == nil && prefix.Contains(addr)
	})
}

// platform is what the document calls the node's platform.
func (p *plan) platform() string { return orElse(strings.ToLower(p.node.PlatformType), "linux") }

// commands are what a command session runs on the node; nil where there is nothing for
// its platform.
func (p *plan) commands() *document.CommandProperties {
	if p.resolved == nil {
		return nil
	}
	return p.resolved.Commands[p.platform()]
}

// commandLine is what the session runs; empty for shells and ports.
func (p *plan) commandLine() string {
	if commands := p.commands(); commands != nil {
		return commands.Commands
	}
	return ""
}

// elevated reports whether the document makes the session run as root.
func (p *plan) elevated() bool {
	commands := p.commands()
	return commands != nil && commands.RunAsElevated
}

// loginKey is the login as policies see it; empty for sessions that run as none.
func (p *plan) loginKey() string {
	switch {
	case p.document == nil || p.document.SessionType == document.Port:
		return ""
	case p.elevated():
		return root
	}
	return orElse(p.login.name, access.DefaultLogin)
}

// commandDocument is the document of commands without a terminal, which the caller
// chooses as a whole. Nobody can store another of that name.
const commandDocument = "AWS-StartNonInteractiveCommand"

// takesInput reports whether the session's command may have input from a client of the
// API. Those of other documents may not: their commands, root's perhaps, were written
// to be run without, and whoever may only start them is to give them nothing to read.
func (p *plan) takesInput() bool {
	return p.document.Name == commandDocument && p.document.SessionType == document.NonInteractiveCommands &&
		p.node.AgentName == ownAgent && p.commandLine() != ""
}

// fileTransfer is the document of file transfers through the SSH front door.
const fileTransfer = "Sallyport-FileTransfer"

// exec is what the agent is to run for the front door: the document's command, whatever
// the front door was told.
func (p *plan) exec(asked *wire.Exec) (*wire.Exec, error) {
	transfer := p.document.Name == fileTransfer
	if asked == nil {
		if transfer {
			return nil, ssmError("InvalidDocument", "Document %s is for file transfer by SSH (sftp, scp) through the gateway.", fileTransfer)
		}
		return nil, nil
	}
	if transfer != (asked.Subsystem == "sftp") || !transfer && asked.Subsystem != "" {
		return nil, ssmError("ValidationException", "The subsystem %q does not belong to document %s.", asked.Subsystem, p.document.Name)
	}
	e := *asked
	switch p.document.SessionType {
	case document.Port:
		return nil, ssmError("ValidationException", "Document %s opens a port and runs nothing.", p.document.Name)
	case document.StandardStream:
		e.Command = ""
	default:
		commands := p.commands()
		if commands == nil {
			return nil, ssmError("InvalidDocument", "Document %s has no command for %s.", p.document.Name, p.platform())
		}
		if e.Command = commands.Commands; transfer {
			e.Command = ""
		}
	}
	return &e, nil
}

// sessionDocument finds the document of a session, with the preferences of the
// deployment where it has none of its own.
func (c *Call) sessionDocument(ctx context.Context, name string) (*document.Document, error) {
	d, err := c.findDocument(ctx, orElse(name, defaultDocument), "")
	if err != nil {
		return nil, err
	}
	if d.parsed.Type != document.TypeSession {
		return nil, ssmError("InvalidDocument", "Document %s is of type %s; sessions need one of type Session.", d.stored.Name, d.parsed.Type)
	}
	if d.parsed.SessionType == document.StandardStream {
		return d.parsed, nil
	}
	prefs, err := c.findDocument(ctx, defaultDocument, "")
	if err != nil || prefs.builtin { // nobody's preferences: an idle timeout would count as one
		return d.parsed, err
	}
	return d.parsed.WithPreferences(prefs.parsed), nil
}
