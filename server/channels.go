package server

import (
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// The channels of agents and clients (docs/protocol.md §3, §8): POST gives an agent
// a token, GET upgrades to a websocket whose opening message carries it.

// hopHeader marks a request that another member has passed on, so that two members
// who disagree about a session's home do not pass it back and forth.
const hopHeader = "X-Sallyport-Hop"

// channels serves /v1/.
type channels struct {
	server  *Server
	gateway *session.Gateway
	peers   http.RoundTripper // to other members
}

// newChannels returns the handler of /v1/.
func newChannels(s *Server, peerTLS *tls.Config) http.Handler {
	c := &channels{server: s, gateway: s.config.Gateway, peers: &http.Transport{
		TLSClientConfig:       peerTLS,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		DisableCompression:    true,
		IdleConnTimeout:       time.Minute,
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/control-channel/{id}", c.createControl)
	mux.HandleFunc("GET /v1/control-channel/{id}", c.openControl)
	mux.HandleFunc("POST /v1/data-channel/{id}", c.createData)
	mux.HandleFunc("GET /v1/data-channel/{id}", c.openData)
	mux.HandleFunc("GET /v1/bulk/{id}", c.openBulk)
	return mux
}

// refuse answers with a plain text. Agents take the status as an error and log the
// text.
func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	// The client may have gone; nobody else is to be told.
	_ = reply(w, status, "text/plain; charset=utf-8", fmt.Appendf(nil, format+"\n", args...))
}

// node authenticates the node that made a request, and answers it where that fails.
func (c *channels) node(w http.ResponseWriter, r *http.Request, body []byte) (id string, ok bool) {
	p, err := c.server.authenticate(r, body)
	var auth *identity.AuthError
	switch {
	case errors.As(err, &auth):
		refuse(w, http.StatusForbidden, "%s", auth.Message)
		return "", false
	case err != nil:
		c.server.log.Error("channel refused", "path", r.URL.Path, "error", err)
		refuse(w, http.StatusInternalServerError, "An internal error occurred. The server's log tells its cause.")
		return "", false
	case !p.IsNode():
		refuse(w, http.StatusForbidden, "Only the agents of nodes may do that.")
		return "", false
	}
	return p.Name, true
}

// signedNode is node for a POST, whose body is signed, too.
func (c *channels) signedNode(w http.ResponseWriter, r *http.Request) (id string, ok bool) {
	body, release, err := c.server.receive(w, r, c.server.origin(r).SourceIP, maxUnsigned)
	defer release()
	if errors.Is(err, errBusy) {
		refuse(w, http.StatusServiceUnavailable, "Too many requests are arriving. Try again in a moment.")
		return "", false
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "The request did not arrive as a whole.")
		return "", false
	}
	return c.node(w, r, body)
}

// ownControl authenticates a node at its own control channel.
func (c *channels) ownControl(w http.ResponseWriter, r *http.Request, node func(http.ResponseWriter, *http.Request) (string, bool)) (string, bool) {
	id, ok := node(w, r)
	if ok && id != r.PathValue("id") {
		refuse(w, http.StatusForbidden, "A node may open its own control channel only.")
		return "", false
	}
	return id, ok
}

func (c *channels) createControl(w http.ResponseWriter, r *http.Request) {
	if id, ok := c.ownControl(w, r, c.signedNode); ok {
		giveToken(w, c.gateway.ControlToken(id))
	}
}

func (c *channels) openControl(w http.ResponseWriter, r *http.Request) {
	id, ok := c.ownControl(w, r, func(w http.ResponseWriter, r *http.Request) (string, bool) {
		return c.node(w, r, nil)
	})
	if ok && c.upgrades(w, r) {
		c.gateway.ServeControl(w, r, id)
	}
}

// upgrades answers requests that do not ask for a websocket.
func (c *channels) upgrades(w http.ResponseWriter, r *http.Request) bool {
	if websocket.IsUpgrade(r) {
		return true
	}
	w.Header().Set("Upgrade", "websocket")
	refuse(w, http.StatusUpgradeRequired, "This is the address of a websocket.")
	return false
}

// giveToken answers as agents expect it: XML with status 201.
func giveToken(w http.ResponseWriter, token string) {
	body, err := xml.Marshal(wire.CreateChannelResult{MessageSchemaVersion: "1.0", TokenValue: token})
	if err != nil {
		panic(err) // two strings always encode
	}
	_ = reply(w, http.StatusCreated, "text/xml", body) // an agent that has gone asks again
}

// createData gives a node the token for the data channel of one of its sessions.
func (c *channels) createData(w http.ResponseWriter, r *http.Request) {
	if c.elsewhere(w, r) {
		return
	}
	node, ok := c.signedNode(w, r)
	if !ok {
		return
	}
	token, err := c.gateway.AgentToken(r.Context(), r.PathValue("id"), node)
	switch {
	case errors.Is(err, session.ErrEnded), errors.Is(err, session.ErrNotFound):
		// Agents stop asking when they read these words, whatever the case.
		refuse(w, http.StatusBadRequest, "Session is already terminated")
	case err != nil:
		c.server.log.Error("data channel refused", "session", r.PathValue("id"), "error", err)
		refuse(w, http.StatusInternalServerError, "An internal error occurred. The server's log tells its cause.")
	default:
		giveToken(w, token)
	}
}

// openData upgrades to a data channel: an agent's, whose request is signed, or a
// client's, who has nothing but the token in the opening message.
func (c *channels) openData(w http.ResponseWriter, r *http.Request) {
	if !c.upgrades(w, r) || c.elsewhere(w, r) {
		return
	}
	node := ""
	if r.Header.Get("Authorization") != "" || identity.Presigned(r) {
		id, ok := c.node(w, r, nil)
		if !ok {
			return
		}
		node = id
	}
	c.gateway.ServeData(w, r, r.PathValue("id"), node)
}

// elsewhere passes a request on to the member that relays its session, if that is
// another one, and answers requests for sessions that are nowhere.
func (c *channels) elsewhere(w http.ResponseWriter, r *http.Request) bool {
	home, err := c.gateway.Home(r.Context(), r.PathValue("id"))
	switch {
	case errors.Is(err, session.ErrNotFound):
		refuse(w, http.StatusNotFound, "There is no such session.")
		return true
	case err != nil:
		c.server.log.Error("data channel refused", "session", r.PathValue("id"), "error", err)
		refuse(w, http.StatusServiceUnavailable, "The session's server cannot be found now.")
		return true
	case home == "":
		return false
	}
	u, err := url.Parse(home)
	if err != nil || r.Header.Get(hopHeader) != "" {
		refuse(w, http.StatusServiceUnavailable, "The session's server cannot be found now.")
		return true
	}
	c.pass(w, r, u)
	return true
}

// pass is a reverse proxy to another member. The host stays: signatures cover it.
func (c *channels) pass(w http.ResponseWriter, r *http.Request, home *url.URL) {
	proxy := &httputil.ReverseProxy{
		Transport: c.peers,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = home.Scheme, home.Host
			p.Out.Host = p.In.Host
			p.Out.Header.Set(hopHeader, "1")
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			c.server.log.Warn("passing on a channel", "session", r.PathValue("id"), "member", home.Host, "error", err)
			refuse(w, http.StatusBadGateway, "The session's server does not answer.")
		},
	}
	proxy.ServeHTTP(w, r)
}
