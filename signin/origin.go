package signin

import "net/http"

// AuthorizePath is the page where people confirm that a program on their machine may sign
// in as them (RFC 6749, 4.1.1, with PKCE).
const AuthorizePath = pathAuthorize

// SourceIP is the address that a request came from, as the API sees it: behind trusted
// proxies the one that they tell.
func (s *Service) SourceIP(r *http.Request) string { return s.sourceIP(r) }

// LoopbackRedirect reports whether a redirect URI is one of a program on the person's own
// machine (RFC 8252, 7.3).
func LoopbackRedirect(redirect string) bool { return loopbackRedirect(redirect) }
