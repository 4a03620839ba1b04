package local_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"sallyport.dev/internal/needs"
	"sallyport.dev/internal/signintest"
)

// chromium starts a browser with an authenticator of its own.
func chromium(t *testing.T) (context.Context, webauthn.AuthenticatorID) {
	t.Helper()
	path := needs.Program(t, "chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()))
	alloc, stopAlloc := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stopAlloc)
	ctx, stop := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // and waits for the browser to be gone
		stop()
	})
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	var id webauthn.AuthenticatorID
	do(t, ctx, webauthn.Enable(), chromedp.ActionFunc(func(ctx context.Context) (err error) {
		id, err = webauthn.AddVirtualAuthenticator(&webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportUsb,
			HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
		}).Do(ctx)
		return err
	}))
	return ctx, id
}

func do(t *testing.T, ctx context.Context, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(ctx, actions...); err != nil {
		var page string
		_ = chromedp.Run(ctx, chromedp.OuterHTML("html", &page, chromedp.ByQuery))
		t.Fatalf("%v on\n%s", err, page)
	}
}

// A real browser enrols a security key, and signs in with it beside the password.
func TestSecurityKeyInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	w := signintest.Start(t)
	ctx, id := chromium(t)
	password := func(page string) []chromedp.Action {
		return []chromedp.Action{
			chromedp.Navigate(w.URL + page),
			chromedp.SendKeys(`input[name=user]`, "alice", chromedp.ByQuery),
			chromedp.SendKeys(`input[name=password]`, signintest.Password, chromedp.ByQuery),
			chromedp.Click(`form button`, chromedp.ByQuery),
		}
	}
	var text string
	do(t, ctx, password("/sign-in/local?next=/sign-in/factors")...)
	do(t, ctx,
		chromedp.WaitVisible(`#enrol-key`, chromedp.ByQuery),
		chromedp.SetValue(`input[name=name]`, "yubikey", chromedp.ByQuery),
		chromedp.Click(`#enrol-key`, chromedp.ByQuery),
		chromedp.WaitVisible(`input[value=remove] ~ button`, chromedp.ByQuery),
		chromedp.Text(`main`, &text, chromedp.ByQuery),
	)
	if !strings.Contains(text, "yubikey: security key") {
		t.Errorf("after enrolling: got %s", text)
	}
	do(t, ctx, chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := webauthn.GetCredentials(id).Do(ctx)
		return err
	}))
	do(t, ctx, chromedp.Navigate(w.URL+"/sign-in"), chromedp.Click(`#out`, chromedp.ByQuery), chromedp.WaitVisible(`a.button`, chromedp.ByQuery))
	do(t, ctx, password("/sign-in/local")...)
	do(t, ctx,
		chromedp.WaitVisible(`form[data-webauthn=get]`, chromedp.ByQuery),
		chromedp.Click(`form[data-webauthn=get] button`, chromedp.ByQuery),
		chromedp.WaitVisible(`#person`, chromedp.ByQuery),
		chromedp.Text(`main`, &text, chromedp.ByQuery),
	)
	if !strings.Contains(text, "webauthn") {
		t.Errorf("after signing in: got %s", text)
	}
	w.Advance(20 * time.Minute)
	do(t, ctx, chromedp.Navigate(w.URL+"/sign-in/factors"),
		chromedp.WaitVisible(`form[data-webauthn=get]`, chromedp.ByQuery), // it asks for the key again
		chromedp.Click(`form[data-webauthn=get] button`, chromedp.ByQuery),
		chromedp.WaitVisible(`#enrol-key`, chromedp.ByQuery))
}

// Without the person's finger or PIN a key is not taken.
func TestSecurityKeyWithoutPerson(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	w := signintest.Start(t)
	ctx, id := chromium(t)
	var text string
	do(t, ctx, webauthn.SetUserVerified(id, false),
		chromedp.Navigate(w.URL+"/sign-in/local?next=/sign-in/factors"),
		chromedp.SendKeys(`input[name=user]`, "alice", chromedp.ByQuery),
		chromedp.SendKeys(`input[name=password]`, signintest.Password, chromedp.ByQuery),
		chromedp.Click(`form button`, chromedp.ByQuery),
		chromedp.WaitVisible(`#enrol-key`, chromedp.ByQuery),
		chromedp.Click(`#enrol-key`, chromedp.ByQuery),
		chromedp.WaitVisible(`form[data-webauthn] p.problem`, chromedp.ByQuery),
		chromedp.Text(`form[data-webauthn] p.problem`, &text, chromedp.ByQuery))
	if !strings.Contains(text, "did not answer") {
		t.Errorf("got %q", text)
	}
}
