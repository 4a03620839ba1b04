package local

import (
	_ "embed"
	"errors"
	"html/template"
	"net/http"

	"sallyport.dev/signin"
	"sallyport.dev/signin/page"
)

//go:embed pages.html
var pagesText string

//go:embed factor.js
var script []byte

var (
	pages        = template.Must(template.New("pages").Parse(pagesText))
	passwordPage = pages.Lookup("password")
	setPage      = pages.Lookup("set")
	factorPage   = pages.Lookup("factor")
	factorsPage  = pages.Lookup("factors")
	codesPage    = pages.Lookup("codes")
	errorPage    = pages.Lookup("error")
)

// render answers with a page that may run our script and show a QR code.
func (m *Method) render(w http.ResponseWriter, r *http.Request, status int, title string, t *template.Template, f form) error {
	page.Header(w.Header())
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "+
		"frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
	return page.Render(w, r, status, title, t, f)
}

func serveScript(w http.ResponseWriter, _ *http.Request) {
	page.Header(w.Header())
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(script) // whoever asked has gone
}

// showError answers with what went wrong; of our own faults only our log tells.
func (m *Method) showError(w http.ResponseWriter, r *http.Request, err error) {
	refused, large := (*signin.RefusedError)(nil), (*http.MaxBytesError)(nil)
	status, problem := http.StatusInternalServerError, "Something went wrong here. The server's log tells what."
	switch {
	case errors.Is(err, signin.ErrBadForm), errors.As(err, &large):
		status, problem = http.StatusBadRequest, "That form is too old, or was not made for this browser. Begin again."
	case errors.Is(err, signin.ErrNotSignedIn):
		status, problem = http.StatusForbidden, "You are not signed in any more. Begin again."
	case errors.Is(err, errStale):
		status, problem = http.StatusForbidden, "You signed in a while ago. Sign out and in again to change your second factors."
	case errors.As(err, &refused):
		status, problem = http.StatusForbidden, capital(refused.Error())
	default:
		m.config.Logger.Error("signing in", "path", r.URL.Path, "error", err)
	}
	f := form{Problem: problem}
	if err := m.render(w, r, status, "Not possible", errorPage, f); err != nil {
		m.config.Logger.Error("drawing a page", "error", err)
	}
}
