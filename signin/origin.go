package signin

import "net/http"

// SourceIP is the address that a request came from, as the API sees it: behind trusted
// proxies the one that they tell.
func (s *Service) SourceIP(r *http.Request) string { return s.sourceIP(r) }
