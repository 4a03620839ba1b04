package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"sallyport.dev/client"
)

// What the AWS CLI hands to the plugin (docs/protocol.md §30): the response of
// StartSession or the name of a variable that holds it, the region, the operation,
// the profile, the request, and the endpoint in use. The first three are always there.
const (
	pluginResponse = 1 + iota
	pluginRegion
	pluginOperation
	pluginProfile
	pluginRequest
	pluginEndpoint

	responseVariable = "AWS_SSM_START_SESSION_RESPONSE"
	// maxResponse bounds the response, in bytes.
	maxResponse = 64 << 10
)

// plugin behaves as AWS's session-manager-plugin does. It returns 0 for every session
// that was opened, however it ended: the AWS CLI takes anything else for a crash.
func (p *program) plugin(ctx context.Context, args []string) int {
	switch {
	case len(args) == 1:
		fmt.Fprint(p.stdout, "\nThe Session Manager plugin was installed successfully. Use the AWS CLI to start a session.\n\n")
		return statusDone
	case len(args) == 2 && args[1] == "--version":
		fmt.Fprintln(p.stdout, client.Version)
		return statusDone
	case len(args) < pluginOperation+1:
		fmt.Fprintf(p.stdout, "\nUnknown operation %s. \nUse session-manager-plugin --version to check the version.\n\n", args[1])
		return statusDone
	case args[pluginOperation] != "StartSession":
		fmt.Fprintf(p.stdout, "Invalid Operation %s\n", args[pluginOperation])
		return statusDone
	}
	stream, err := p.pluginStream(args[pluginResponse])
	if err != nil {
		return p.pluginFailed(err)
	}
	api, err := client.Connect(ctx, client.Options{
		Profile:     argument(args, pluginProfile),
		Region:      argument(args, pluginRegion),
		SSMEndpoint: argument(args, pluginEndpoint),
		UserAgent:   p.userAgent(),
	})
	if err != nil {
		return p.pluginFailed(err)
	}
	stream.Target = pluginTarget(argument(args, pluginRequest))
	return p.pluginSession(ctx, api, stream)
}

// pluginTarget is the node that the AWS CLI asked for, where it tells.
func pluginTarget(request string) string {
	var in struct{ Target string }
	if json.Unmarshal([]byte(request), &in) != nil {
		return ""
	}
	return in.Target
}

func argument(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}

// pluginStream reads the response, and takes it out of the environment so that
// nothing started from here inherits the token.
func (p *program) pluginStream(arg string) (client.Stream, error) {
	if strings.HasPrefix(arg, responseVariable) {
		name := arg
		arg = p.getenv(name)
		os.Unsetenv(name)
	}
	var s client.Stream
	if len(arg) > maxResponse {
		return s, fmt.Errorf("the response of StartSession exceeds %d bytes", maxResponse)
	}
	if err := json.Unmarshal([]byte(arg), &s); err != nil {
		return s, fmt.Errorf("decoding the response of StartSession: %w", err)
	}
	for member, value := range map[string]string{"SessionId": s.SessionID, "TokenValue": s.Token, "StreamUrl": s.URL} {
		if value == "" {
			return s, fmt.Errorf("the response of StartSession has no %s", member)
		}
	}
	return s, nil
}

func (p *program) pluginFailed(err error) int {
	fmt.Fprintf(p.stdout, "Cannot perform start session: %s\n", errorText(err))
	return statusRefused
}

func (p *program) pluginSession(ctx context.Context, api *client.API, stream client.Stream) int {
	defer holdHangups()()
	port := newPluginPort(p, stream)
	end, err := client.RunSession(ctx, client.ChannelConfig{
		Stream:  stream,
		Dial:    client.Dialer(api.TLS(), p.userAgent()),
		Resume:  api.ResumeSession,
		DataKey: api.DataKey,
		Notify:  port.notify,
	}, client.ShellConfig{
		Terminal: port.terminal, Escape: true, Plugin: true, Started: port.start,
	}, client.ForwardConfig{Event: port.event, Bulk: p.bulk(api, stream)}, port.run)
	leave := func() { port.leave(api, stream.SessionID) }
	if port.single {
		return p.pluginSingleEnd(leave, end, err)
	}
	port.greet() // if it ended before it started
	return p.pluginEnd(leave, stream, port, end, err)
}

// pluginEnd tells how a session ended, in the words of AWS's plugin.
func (p *program) pluginEnd(leave func(), stream client.Stream, port *pluginPort, end client.End, err error) int {
	id := client.CleanLine(stream.SessionID)
	var signalled *client.SignalError
	switch {
	case err == nil && end.Output != "":
		if !port.started.Load() && !p.onTerminal() { // below ssh, who may not show what is on standard output
			p.say("%s", client.CleanLine(end.Output))
		}
		fmt.Fprintf(p.stdout, "\n\nSessionId: %s : %s\n\n", id, client.Clean(end.Output))
	case errors.As(err, &signalled) && port.forwards:
		fmt.Fprintf(p.stdout, "Terminate signal received, exiting.\n")
		leave()
		fmt.Fprintf(p.stdout, "\n\nExiting session with sessionId: %s.\n\n", id)
		if signalled.Signal != os.Interrupt {
			return signalled.Status
		}
	case errors.As(err, &signalled):
		leave()
		return signalled.Status
	case errors.Is(err, client.ErrLeft), isUntaken(err):
		leave()
		fallthrough
	case err == nil:
		fmt.Fprintf(p.stdout, "\n\nExiting session with sessionId: %s.\n\n", id)
	case errors.Is(err, client.ErrTimedOut):
		fmt.Fprintf(p.stdout, "Session: %s timed out.\n", id)
	default:
		if port.forwards {
			leave()
		}
		return p.pluginFailed(err)
	}
	return statusDone
}
