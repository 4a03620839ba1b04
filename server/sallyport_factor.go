package server

import (
	"context"
	"errors"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/factor"
	"sallyport.dev/identity"
	"sallyport.dev/signin"
	"sallyport.dev/wire"
)

// Passwords and second factors.

// factorOperations are those about passwords and second factors that IAM has not, or not
// so.
func factorOperations() []*Operation {
	return []*Operation{
		op("sallyport", "ListFactors", nil, withFactors(listFactors), checksItself, quietly),
		op("sallyport", "AddFactor", nil, withFactors(addFactor), checksItself),
		op("sallyport", "EnableFactor", nil, withFactors(enableFactor), checksItself),
		op("sallyport", "RemoveFactor", nil, withFactors(removeFactor), checksItself),
		op("sallyport", "ResetPassword", nil, withFactors(resetPassword), checksItself),
		op("sallyport", "RemovePassword", nil, withFactors(removePassword), checksItself),
		op("sallyport", "ChangePassword", nil, withFactors(changePassword), checksItself),
		op("sallyport", "StepUp", nil, withFactors(stepUp), checksItself),
	}
}

// withFactors refuses what a server without factors cannot do.
func withFactors[In, Out any](run func(context.Context, *Call, *In) (*Out, error)) func(context.Context, *Call, *In) (*Out, error) {
	return func(ctx context.Context, c *Call, in *In) (*Out, error) {
		if c.Server.config.Factors == nil {
			return nil, exception("ValidationException", "This server keeps no passwords and second factors.")
		}
		return run(ctx, c, in)
	}
}

// factorError words errors of factors.
func factorError(err error) error {
	wait := (*factor.WaitError)(nil)
	switch {
	case errors.As(err, &wait):
		return exception("AccessDeniedException", "%s", sentence(err))
	case errors.Is(err, factor.ErrWrong), errors.Is(err, factor.ErrUsed):
		return exception("AccessDeniedException", "The code or password is not right, or was used before.")
	case errors.Is(err, factor.ErrBusy):
		return exception("ServiceUnavailable", "%s", sentence(err))
	}
	return err
}

// someone finds the user that an operation on a person names, or the caller's own where
// none is named. Own tells that it is the caller.
func (c *Call) someone(ctx context.Context, name string) (user identity.User, own bool, err error) {
	if name == "" {
		user, err = c.person(ctx)
		return user, true, err
	}
	user, err = c.Server.config.Identities.User(ctx, name)
	if errors.Is(err, identity.ErrNotFound) {
		if err := c.Check(ctx, c.Server.userResource(name, user)); err != nil {
			return user, false, err
		}
		return user, false, exception("ValidationException", "The user with name %s cannot be found.", name)
	}
	return user, user.ID == c.Principal.RootID(), err
}

// checkOn authorises an operation on a user: one's own needs no policy that allows.
func (c *Call) checkOn(ctx context.Context, user identity.User, own bool) error {
	resource := c.Server.userResource(user.Name, user)
	if own {
		return c.CheckOwn(ctx, resource)
	}
	return c.Check(ctx, resource)
}

// mayChange authorises a change of a user's password or factors. One's own need no policy
// that allows, but not in a role: those who hold its credentials have the role's rights.
func (c *Call) mayChange(ctx context.Context, user identity.User, own bool) error {
	return c.checkOn(ctx, user, own && c.Principal.Kind == identity.KindUser)
}

type onPersonInput struct {
	UserName string `json:"UserName" check:"max=64,pattern=[\\w+=,.@-]*"`
}

type factorShape struct {
	FactorID     string    `json:"FactorId"`
	Kind         string    `json:"Kind"`
	Name         string    `json:"Name"`
	SerialNumber string    `json:"SerialNumber"`
	Created      wire.Time `json:"Created"`
	Enabled      wire.Time `json:"Enabled,omitzero"`
	Used         wire.Time `json:"Used,omitzero"`
}

func (c *Call) factorShape(d factor.Device, user string) factorShape {
	return factorShape{
		d.ID, string(d.Kind), d.Name, d.Serial(c.Server.config.Realm, user),
		wire.Time{Time: d.Created}, wire.Time{Time: d.Enabled}, wire.Time{Time: d.Used},
	}
}

type listFactorsOutput struct {
	Factors     []factorShape `json:"Factors"`
	HasPassword bool          `json:"HasPassword"`
	MustChange  bool          `json:"MustChange,omitempty"`
	EnrolURL    string        `json:"EnrolUrl,omitempty"`
}

func listFactors(ctx context.Context, c *Call, in *onPersonInput) (*listFactorsOutput, error) {
	user, own, err := c.someone(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	if err := c.checkOn(ctx, user, own); err != nil {
		return nil, err
	}
	keeper := c.Server.config.Factors
	devices, err := keeper.Devices(ctx, user.ID)
	if err != nil {
		return nil, err
	}
	out := &listFactorsOutput{Factors: []factorShape{}, EnrolURL: keeper.EnrolURL()}
	for _, d := range devices {
		out.Factors = append(out.Factors, c.factorShape(d, user.Name))
	}
	p, err := keeper.Password(ctx, user.ID)
	if errors.Is(err, identity.ErrNotFound) {
		return out, nil
	}
	out.HasPassword, out.MustChange = err == nil, p.Initial
	return out, err
}

type addFactorInput struct {
	Name string `json:"Name" check:"max=128,pattern=[\\w+=,.@-]*"`
}

type addFactorOutput struct {
	Factor factorShape `json:"Factor"`
	Secret string      `json:"Secret"`
	URL    string      `json:"Url"`
}

func (out *addFactorOutput) made() string { return out.Factor.SerialNumber }

// addFactor makes a device of one-time codes for the caller. It counts once EnableFactor
// has seen a code of it.
func addFactor(ctx context.Context, c *Call, in *addFactorInput) (*addFactorOutput, error) {
	user, err := c.ownChange(ctx)
	if err != nil {
		return nil, err
	}
	if in.Name == "" {
		in.Name = user.Name
	}
	seed, err := c.Server.config.Factors.AddTOTP(ctx, user, in.Name)
	switch {
	case errors.Is(err, identity.ErrExists):
		return nil, exception("AlreadyExistsException", "There is a second factor named %s; give another name.", in.Name)
	case errors.Is(err, identity.ErrLimit):
		return nil, exception("LimitExceededException", "There are %d second factors, which is the most; remove one first.", factor.MaxDevices)
	case err != nil:
		return nil, err
	}
	return &addFactorOutput{c.factorShape(seed.Device, user.Name), seed.Secret, seed.URL}, nil
}

// ownChange authorises the caller to change their own factors.
func (c *Call) ownChange(ctx context.Context) (identity.User, error) {
	user, err := c.person(ctx)
	if err != nil {
		return user, err
	}
	if err := c.mayChange(ctx, user, true); err != nil {
		return user, err
	}
	return user, c.mayChangeFactors(ctx, user)
}

type enableFactorInput struct {
	FactorID string `json:"FactorId" check:"required,min=1,max=64"`
	Code     string `json:"Code" check:"required,secret,min=6,max=6"`
}

func enableFactor(ctx context.Context, c *Call, in *enableFactorInput) (*struct{}, error) {
	user, err := c.ownChange(ctx)
	if err != nil {
		return nil, err
	}
	keeper := c.Server.config.Factors
	d, err := keeper.Device(ctx, in.FactorID)
	if errors.Is(err, identity.ErrNotFound) || err == nil && d.UserID != user.ID {
		return nil, c.noFactor(in.FactorID)
	}
	if err != nil {
		return nil, err
	}
	err = keeper.EnableTOTP(ctx, d, user, c.Origin.SourceIP, in.Code)
	if errors.Is(err, identity.ErrConflict) {
		return nil, exception("ValidationException", "The second factor %s is enabled already.", in.FactorID)
	}
	if err != nil {
		return nil, factorError(err)
	}
	return &struct{}{}, c.factorChanged(ctx, user, d, "second factor enrolled")
}

func (c *Call) noFactor(id string) error {
	return exception("ValidationException", "There is no second factor %s.", truncate(id, 100))
}

// factorChanged records a change of somebody's factors.
func (c *Call) factorChanged(ctx context.Context, user identity.User, d factor.Device, what string) error {
	return c.record(ctx, audit.Record{
		Event: audit.EventSignIn, Principal: c.Principal.ARN, Reason: what,
		Resources: []string{c.iamARN("user", user.Path, user.Name)},
		Details:   map[string]string{"factor": string(d.Kind), "serial_number": d.Serial(c.Server.config.Realm, user.Name)},
	})
}

type removeFactorInput struct {
	onPersonInput
	FactorID string `json:"FactorId" check:"required,min=1,max=256"`
}

// removeFactor removes a factor by its id or its name.
func removeFactor(ctx context.Context, c *Call, in *removeFactorInput) (*struct{}, error) {
	user, own, err := c.someone(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	if err := c.mayChange(ctx, user, own); err != nil {
		return nil, err
	}
	keeper := c.Server.config.Factors
	d, err := keeper.Find(ctx, user.ID, in.FactorID)
	if errors.Is(err, identity.ErrNotFound) {
		return nil, c.noFactor(in.FactorID)
	}
	if err == nil && own && !d.Enabled.IsZero() {
		err = c.mayChangeFactors(ctx, user)
	}
	if err == nil {
		err = c.factorChanged(ctx, user, d, "second factor removed")
	}
	if err != nil {
		return nil, err
	}
	return &struct{}{}, keeper.Remove(ctx, d)
}

type resetPasswordOutput struct {
	InitialPassword string `json:"InitialPassword"`
}

// resetPassword gives somebody an initial password. Nobody gives one to themselves: the
// present password is what shows that it is them.
func resetPassword(ctx context.Context, c *Call, in *onPersonInput) (*resetPasswordOutput, error) {
	user, _, err := c.someone(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	if err := c.Check(ctx, c.Server.userResource(user.Name, user)); err != nil {
		return nil, err
	}
	out := &resetPasswordOutput{factor.NewInitialPassword()}
	if err := c.Server.config.Factors.SetPassword(ctx, user, out.InitialPassword, true); err != nil {
		return nil, factorError(err)
	}
	return out, errors.Join(c.passwordChanged(ctx, user, "initial password given"),
		c.endOtherSignIns(ctx, user, "the password was reset by "+c.Principal.ARN))
}

// endOtherSignIns ends a person's sign-ins but the one that the call comes from: who had
// their password has it no more.
func (c *Call) endOtherSignIns(ctx context.Context, user identity.User, because string) error {
	service := c.Server.config.SignIns
	if service == nil {
		return nil
	}
	live, err := service.List(ctx, signin.Filter{User: user.ID, Live: true, Now: c.Origin.Time})
	if err != nil {
		return err
	}
	for _, in := range live {
		if in.ID == c.Principal.SignIn {
			continue
		}
		if err := service.End(ctx, in.ID, because); err != nil {
			return err
		}
	}
	return nil
}

func (c *Call) passwordChanged(ctx context.Context, user identity.User, what string) error {
	return c.record(ctx, audit.Record{
		Event: audit.EventSignIn, Principal: c.Principal.ARN, Reason: what, Resources: []string{c.iamARN("user", user.Path, user.Name)},
	})
}

func removePassword(ctx context.Context, c *Call, in *onPersonInput) (*struct{}, error) {
	user, own, err := c.someone(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	if err := c.mayChange(ctx, user, own); err != nil {
		return nil, err
	}
	if own {
		if err := c.mayChangeFactors(ctx, user); err != nil {
			return nil, err
		}
	}
	err = c.Server.config.Factors.RemovePassword(ctx, user.ID)
	if errors.Is(err, identity.ErrNotFound) {
		return nil, exception("ValidationException", "The user %s has no password.", user.Name)
	}
	if err != nil {
		return nil, err
	}
	return &struct{}{}, errors.Join(c.passwordChanged(ctx, user, "password removed"),
		c.endOtherSignIns(ctx, user, "the password was removed by "+c.Principal.ARN))
}

type changePasswordInput struct {
	OldPassword string `json:"OldPassword" check:"required,secret,min=1,max=1024"`
	NewPassword string `json:"NewPassword" check:"required,secret,min=1,max=1024"`
}

// changePassword sets the caller's own password by the present one, which a key alone does
// not stand for.
func changePassword(ctx context.Context, c *Call, in *changePasswordInput) (*struct{}, error) {
	user, err := c.person(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.mayChange(ctx, user, true); err != nil {
		return nil, err
	}
	err = c.Server.config.Factors.ChangePassword(ctx, user, in.OldPassword, in.NewPassword, c.Origin.SourceIP)
	weak := (*factor.WeakError)(nil)
	switch {
	case errors.As(err, &weak):
		return nil, exception("ValidationException", "%s", sentence(err))
	case errors.Is(err, factor.ErrWrong):
		return nil, c.factorRefused(ctx, "", errors.New("present password is wrong"), factorError(err))
	case err != nil:
		return nil, factorError(err)
	}
	return &struct{}{}, errors.Join(c.passwordChanged(ctx, user, "password changed"),
		c.endOtherSignIns(ctx, user, "the password was changed"))
}

type stepUpInput struct {
	Code string `json:"Code" check:"required,secret,min=6,max=6"`
}

type stepUpOutput struct {
	Credentials struct {
		AccessKeyID     string    `json:"AccessKeyId"`
		SecretAccessKey string    `json:"SecretAccessKey"`
		SessionToken    string    `json:"SessionToken"`
		Expiration      wire.Time `json:"Expiration"`
	} `json:"Credentials"`
	Factor factorShape `json:"Factor"`
}

// stepUpLife is how long credentials last that a second factor was given for.
const stepUpLife = time.Hour

// stepUp gives the caller, whoever they are at this moment (a user, or in a role), the
// same credentials with a second factor. They end with those that the caller has.
func stepUp(ctx context.Context, c *Call, in *stepUpInput) (*stepUpOutput, error) {
	user, err := c.person(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.CheckOwn(ctx, c.Server.userResource(user.Name, user)); err != nil {
		return nil, err
	}
	d, err := c.Server.config.Factors.CheckTOTP(ctx, user, "", in.Code, c.Origin.SourceIP)
	if err := c.showed(ctx, "", d, err); err != nil {
		return nil, err
	}
	claims, err := claimsOf(c.Principal)
	if err != nil {
		return nil, err
	}
	life := stepUpLife
	if c.Principal.Temporary() {
		life = min(life, c.Principal.ExpiresAt.Sub(c.Origin.Time))
	}
	cred, err := c.issue(ctx, claims, life)
	if err != nil {
		return nil, err
	}
	out := &stepUpOutput{Factor: c.factorShape(d, user.Name)}
	out.Credentials.AccessKeyID, out.Credentials.SecretAccessKey = cred.AccessKeyID, cred.SecretAccessKey
	out.Credentials.SessionToken, out.Credentials.Expiration = cred.SessionToken, cred.Expiration
	return out, nil
}
