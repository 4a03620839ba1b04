package server

import (
	"errors"
	"net/http"
	"strings"

	"sallyport.dev/internal/bulk"
	"sallyport.dev/session"
)

// openBulk takes over a connection that one end of a Port session dialled beside the
// data channel (docs/protocol.md §28.11). Nothing but its proof says who dials.
func (c *channels) openBulk(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), bulk.Protocol) {
		w.Header().Set("Upgrade", bulk.Protocol)
		refuse(w, http.StatusUpgradeRequired, "This is the address of a session's bulk connections.")
		return
	}
	if c.elsewhere(w, r) {
		return
	}
	err := c.gateway.ServeBulk(w, r, r.PathValue("id"))
	switch {
	case err == nil:
	case errors.Is(err, session.ErrNoBulk):
		refuse(w, http.StatusNotFound, "The session has no bulk connections.")
	case errors.Is(err, bulk.ErrProof):
		refuse(w, http.StatusForbidden, "The proof is not valid.")
	case errors.Is(err, session.ErrBulkFull):
		refuse(w, http.StatusServiceUnavailable, "There are too many bulk connections. Try again later.")
	default:
		c.server.log.Error("bulk connection refused", "session", r.PathValue("id"), "error", err)
		refuse(w, http.StatusInternalServerError, "An internal error occurred. The server's log tells its cause.")
	}
}
