package notify

import (
	"context"
	"errors"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/flow"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/signin"
	"sallyport.dev/signin/page"
)

const (
	// pathRequests is where the pages of requests are.
	pathRequests = "/requests/"
	// channelWeb is what the engine knows the page as.
	channelWeb = "web"
)

// Pages are the pages of people who are signed in in a browser. *signin.Service has them.
type Pages interface {
	Page(h http.Handler) http.Handler
	Visitor(r *http.Request) (identity.Principal, error)
	SignInURL(next string) string
	StepUpURL(next string) string // empty where there are no second factors
	FormToken(r *http.Request) string
	CheckForm(r *http.Request) error
}

// showRequest shows a request to who may see it. That somebody has its address means
// nothing: the page asks who they are.
func (s *Service) showRequest(w http.ResponseWriter, r *http.Request) {
	p, found := s.visitor(w, r)
	if !found {
		return
	}
	req, err := s.visible(r.Context(), p, r.PathValue("id"))
	if err != nil {
		s.noRequest(w, r, err)
		return
	}
	s.drawRequest(w, r, http.StatusOK, p, req, "")
}

// visitor is who is signed in. Who is not is sent to do so, and comes back.
func (s *Service) visitor(w http.ResponseWriter, r *http.Request) (identity.Principal, bool) {
	p, err := s.config.Pages.Visitor(r)
	switch {
	case err == nil:
		return p, true
	case errors.Is(err, signin.ErrNotSignedIn):
		page.Header(w.Header())
		http.Redirect(w, r, s.config.Pages.SignInURL(r.URL.Path), http.StatusSeeOther)
	default:
		s.note(w, r, http.StatusForbidden, "You cannot be let in", "You are signed in no more, or your user is disabled.")
	}
	return identity.Principal{}, false
}

// visible finds a request that somebody may see: their own, or one that they decide on,
// decided on, or review.
func (s *Service) visible(ctx context.Context, p identity.Principal, id string) (grant.Request, error) {
	r, err := s.config.Access.Request(ctx, id)
	if err != nil {
		return r, err
	}
	me := func(who flow.Person) bool { return who.ID != "" && who.ID == p.RootID() }
	if me(r.Frozen.Person) || slices.ContainsFunc(r.Decisions, func(d grant.Decision) bool { return me(d.By) }) {
		return r, nil
	}
	// Whether one lacks a second factor is no reason not to see what it is needed for.
	concerns, err := s.config.Access.Concerns(ctx, p, r)
	if concerns {
		return r, nil
	}
	if err == nil && r.Frozen.Flow.BreakGlass != nil {
		var reviewers []flow.Person
		if reviewers, err = s.config.Access.Persons(ctx, r.Frozen.Flow.BreakGlass.Review, maxReviewers); slices.ContainsFunc(reviewers, me) {
			return r, nil
		}
	}
	if err != nil {
		s.log.Warn("finding who may see a request", "request", r.ID, "error", err)
	}
	return grant.Request{}, grant.ErrNotFound
}

// maxReviewers bounds the reviewers among whom somebody is looked for.
const maxReviewers = 1000

func (s *Service) noRequest(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(err, grant.ErrNotFound) {
		s.log.Error("showing a request", "error", err)
		s.note(w, r, http.StatusInternalServerError, "Something went wrong", "The server's log says what.")
		return
	}
	s.note(w, r, http.StatusNotFound, "No such request", "There is none, or it is not for you to see.")
}

// pageView is what the page shows.
type pageView struct {
	Message
	Facts  []fact
	Notice string // what came of a decision
	Form   *pageForm
	StepUp string // where to show a second factor first
	Why    string // why the visitor may not decide
}

type pageForm struct{ Field, Token, Comment string }

func (s *Service) drawRequest(w http.ResponseWriter, r *http.Request, status int, p identity.Principal, req grant.Request, notice string) {
	m := s.render(r.Context(), req)
	v := pageView{Message: m, Facts: facts(m), Notice: notice}
	if stage, waits := stageOf(req); waits {
		s.offer(r, p, req, stage, &v)
	}
	if err := page.Render(w, r, status, "Request "+req.ID, requestPage, v); err != nil {
		s.log.Error("drawing a page", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}

// offer says whether the visitor may decide, or what they must do first.
func (s *Service) offer(r *http.Request, p identity.Principal, req grant.Request, stage flow.Stage, v *pageView) {
	because, err := s.config.Access.MayDecide(r.Context(), p, req)
	switch {
	case err != nil:
		s.log.Error("finding whether somebody may decide", "request", req.ID, "error", err)
		v.Why = "it cannot be found out now"
	case !allows(req.Frozen.Flow.Channels, channelWeb):
		v.Why = "the flow takes no decisions in the browser"
	case stage.SecondFactor && !fresh(p, s.config.Now()) && p.RootID() != req.Frozen.Person.ID:
		v.Why, v.StepUp = "a second factor is needed", s.config.Pages.StepUpURL(r.URL.Path)
	case because != "":
		v.Why = strings.TrimPrefix(line(because, maxComment), "because ")
	default:
		v.Form = &pageForm{signin.FormField, s.config.Pages.FormToken(r), commentRule(stage)}
	}
}

// factorLife is how long a second factor counts in a browser.
const factorLife = 15 * time.Minute

// fresh reports whether somebody has shown a second factor lately.
func fresh(p identity.Principal, now time.Time) bool {
	return p.MFA && now.Sub(p.MFAAt) < factorLife
}

func commentRule(s flow.Stage) string {
	switch s.Comment {
	case flow.CommentAlways:
		return "needed"
	case flow.CommentOnDeny:
		return "needed to deny"
	}
	return "if you like"
}

// decideRequest takes a decision by the page's form.
func (s *Service) decideRequest(w http.ResponseWriter, r *http.Request) {
	p, found := s.visitor(w, r)
	if !found {
		return
	}
	if err := s.config.Pages.CheckForm(r); err != nil {
		s.note(w, r, http.StatusForbidden, "Nothing was decided", "The form was not made for you here, or is too old. Open the request again.")
		return
	}
	req, err := s.visible(r.Context(), p, r.PathValue("id"))
	if err != nil {
		s.noRequest(w, r, err)
		return
	}
	decision := r.PostForm.Get("decision")
	if decision != "approve" && decision != "deny" {
		s.note(w, r, http.StatusBadRequest, "Nothing was decided", "A decision is approve or deny.")
		return
	}
	status, notice := http.StatusOK, ""
	after, err := s.decideWeb(r, p, req, decision == "approve")
	if err != nil {
		status, notice = http.StatusConflict, s.pageWords(err)
		if after, err = s.visible(r.Context(), p, req.ID); err != nil {
			after = req
		}
	}
	s.drawRequest(w, r, status, p, after, notice)
}

func (s *Service) decideWeb(r *http.Request, p identity.Principal, req grant.Request, approve bool) (grant.Request, error) {
	a := grant.Actor{Principal: p, Channel: channelWeb, SourceIP: s.config.SourceIP(r), UserAgent: line(r.UserAgent(), 200)}
	after, err := s.config.Access.Decide(r.Context(), a, req.ID, r.PostForm.Get("hash"), approve, r.PostForm.Get("comment"))
	if err == nil {
		s.wake(wakeOutbox)
	}
	return after, err
}

// pageWords say why nothing was decided.
func (s *Service) pageWords(err error) string {
	refused, denied := (*grant.RefusedError)(nil), (*access.DeniedError)(nil)
	field := (*flow.FieldError)(nil)
	switch {
	case errors.As(err, &refused):
		return "Nothing was decided, " + line(refused.Because, maxComment) + "."
	case errors.As(err, &denied):
		return "Nothing was decided: your policies deny it."
	case errors.As(err, &field):
		return "Nothing was decided: " + line(field.Error(), maxComment)
	case errors.Is(err, grant.ErrState):
		return "Nothing was decided by you: it was decided already, or is over."
	case errors.Is(err, grant.ErrHash):
		return "Nothing was decided: this is not the request that the form showed."
	}
	s.log.Error("deciding by the page", "error", err)
	return "Nothing was decided: something went wrong here; the server's log says what."
}

// note is a page that only says something.
func (s *Service) note(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	if err := page.Render(w, r, status, title, notePage, struct{ Title, Text string }{title, text}); err != nil {
		http.Error(w, title, http.StatusInternalServerError)
	}
}

var notePage = template.Must(template.New("note").Parse(`<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
`))

var requestPage = template.Must(template.New("request").Parse(`<h1>{{.Headline}}</h1>
{{if .Notice}}<p class="bad">{{.Notice}}</p>{{end}}
<table>
{{range .Facts}}<tr><th>{{.Name}}</th><td>{{.Value}}</td></tr>
{{end}}</table>
{{with .Form}}<form method="post">
<input type="hidden" name="{{.Field}}" value="{{.Token}}">
<input type="hidden" name="hash" value="{{$.Hash}}">
<p><label for="comment">Comment ({{.Comment}})</label>
<input id="comment" name="comment" maxlength="500" autocomplete="off"></p>
<p><button name="decision" value="approve">Approve</button>
<button class="plain" name="decision" value="deny">Deny</button></p>
</form>{{end}}
{{if .Why}}<p class="dim">You cannot decide here: {{.Why}}.</p>{{end}}
{{if .StepUp}}<p><a class="button" href="{{.StepUp}}">Show a second factor</a></p>{{end}}
<p class="dim">Hash <code>{{.Hash}}</code></p>
`))
