package local_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"sallyport.dev/internal/browser"
	"sallyport.dev/internal/signintest"
)

// chromium is a browser with a security key of its own.
type chromium struct {
	t   *testing.T
	w   *signintest.World
	ctx context.Context
	key webauthn.AuthenticatorID
}

func newChromium(t *testing.T, w *signintest.World) *chromium {
	t.Helper()
	c := &chromium{t: t, w: w, ctx: browser.New(t)}
	_, err := chromedp.Call(c.ctx, webauthn.Enable, webauthn.EnableParams{})
	w.Must(err)
	made, err := chromedp.Call(c.ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{
		Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportUsb,
			HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
		}})
	w.Must(err)
	c.key = made.AuthenticatorID
	return c
}

func (c *chromium) do(steps ...chromedp.Action[chromedp.Void]) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, 20*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		page, _ := chromedp.Run(c.ctx, chromedp.OuterHTML("html"))
		c.t.Fatalf("%v on\n%s", err, page)
	}
}

func (c *chromium) text(selector string) string {
	c.t.Helper()
	text, err := chromedp.Run(c.ctx, chromedp.Text(css(selector)))
	c.w.Must(err)
	return text
}

func css(selector string) chromedp.CSS { return chromedp.CSS(selector) }

// password shows alice's password on a page that asks for it.
func (c *chromium) password(page string) {
	c.t.Helper()
	c.do(
		chromedp.Navigate(c.w.URL+page),
		chromedp.SendKeys(css(`input[name=user]`), "alice"),
		chromedp.SendKeys(css(`input[name=password]`), signintest.Password),
		chromedp.Click(css(`form button`)),
	)
}

// A real browser enrols a security key, and signs in with it beside the password.
func TestSecurityKeyInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	w := signintest.Start(t)
	c := newChromium(t, w)
	c.password("/sign-in/local?next=/sign-in/factors")
	c.do(
		chromedp.WaitVisible(css(`#enrol-key`)),
		chromedp.SetValue(css(`input[name=name]`), "yubikey"),
		chromedp.Click(css(`#enrol-key`)),
		chromedp.WaitVisible(css(`li`)),
	)
	if text := c.text(`main`); !strings.Contains(text, "yubikey: security key") {
		t.Errorf("after enrolling: got %s", text)
	}
	c.do(chromedp.Navigate(w.URL+"/sign-in"), chromedp.Click(css(`#out`)), chromedp.WaitVisible(css(`a[href="/sign-in/local"]`)))
	c.password("/sign-in/local")
	c.do(chromedp.Click(css(`form[data-webauthn=get] button`)), chromedp.WaitVisible(css(`#person`)))
	if text := c.text(`main`); !strings.Contains(text, "webauthn") {
		t.Errorf("after signing in: got %s", text)
	}
	w.Advance(20 * time.Minute)
	c.do(
		chromedp.Navigate(w.URL+"/sign-in/factors"), // it asks for the key again
		chromedp.Click(css(`form[data-webauthn=get] button`)),
		chromedp.WaitVisible(css(`#enrol-key`)),
	)
}

// Without the person's finger or PIN a key is not taken.
func TestSecurityKeyWithoutPerson(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	w := signintest.Start(t)
	c := newChromium(t, w)
	_, err := chromedp.Call(c.ctx, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: c.key})
	w.Must(err)
	c.password("/sign-in/local?next=/sign-in/factors")
	c.do(chromedp.Click(css(`#enrol-key`)), chromedp.WaitVisible(css(`form[data-webauthn] p.problem`)))
	if text := c.text(`form[data-webauthn] p.problem`); !strings.Contains(text, "did not answer") {
		t.Errorf("got %q", text)
	}
}
