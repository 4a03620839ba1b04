package signin

import (
	"embed"
	"html/template"
	"net/http"

	"sallyport.dev/signin/page"
)

//go:embed pages/*.html
var pageFiles embed.FS

var (
	pageChoice    = pageTemplate("choice")
	pageSignedIn  = pageTemplate("signedin")
	pageAuthorize = pageTemplate("authorize")
	pageDevice    = pageTemplate("device")
	pageCode      = pageTemplate("code")
	pageDone      = pageTemplate("done")
	pageError     = pageTemplate("error")
)

func pageTemplate(name string) *template.Template {
	return template.Must(template.ParseFS(pageFiles, "pages/"+name+".html"))
}

func (s *Service) show(w http.ResponseWriter, r *http.Request, status int, title string, body *template.Template, data any) {
	if err := page.Render(w, r, status, title, body, data); err != nil {
		s.config.Logger.Error("drawing a page", "page", body.Name(), "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}

// showError says to a person what went wrong.
func (s *Service) showError(w http.ResponseWriter, r *http.Request, status int, text string) {
	s.show(w, r, status, "That did not work", pageError, map[string]any{"Text": text, "Again": pathSignIn})
}

func (s *Service) badForm(w http.ResponseWriter, r *http.Request) {
	s.showError(w, r, http.StatusForbidden, "The form is too old, or was not made for this browser. Go back, load the page again, and retry.")
}

func (s *Service) serverError(w http.ResponseWriter, r *http.Request, err error) {
	s.config.Logger.Error("signing in", "path", r.URL.Path, "error", err)
	s.showError(w, r, http.StatusInternalServerError, "An internal error. The server's log tells more.")
}
