package signin

import (
	"net/http"

	"sallyport.dev/signin/page"
)

// Paths of pages and endpoints.
const (
	pathSignIn    = "/sign-in"
	pathOut       = "/sign-in/out"
	pathWith      = "/sign-in/with/"     // and the provider's name
	pathCallback  = "/sign-in/callback/" // likewise
	pathAuthorize = "/sign-in/authorize"
	pathDevice    = "/sign-in/device"
	pathNewDevice = "/sign-in/device_authorization"
	pathToken     = "/sign-in/token"
)

// Handlers are the service's pages and endpoints by patterns of http.ServeMux.
func (s *Service) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		"GET " + page.StylePath: http.HandlerFunc(page.ServeStyle),
	}
}
