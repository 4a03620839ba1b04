package server

import (
	"context"
	"encoding/base64"
	"errors"

	"rsc.io/qr"

	"sallyport.dev/access"
	"sallyport.dev/factor"
	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

// MFA devices as IAM has them.

func iamMFAOperations() []*Operation {
	return []*Operation{
		op("iam", "CreateVirtualMFADevice", newMFAResource, withMFA(createVirtualMFADevice)),
		op("iam", "EnableMFADevice", onUserOrCaller[enableMFAInput], withMFA(enableMFADevice)),
		op("iam", "DeactivateMFADevice", onUserOrCaller[deactivateMFAInput], withMFA(deactivateMFADevice)),
		op("iam", "DeleteVirtualMFADevice", onSerial, withMFA(deleteVirtualMFADevice)),
		op("iam", "ListMFADevices", onUserOrCaller[listKeysInput], withMFA(listMFADevices), quietly),
		op("iam", "ListVirtualMFADevices", nil, withMFA(listVirtualMFADevices), quietly),
	}
}

// withMFA refuses what a server without factors cannot do.
func withMFA[In, Out any](run func(context.Context, *Call, *In) (*Out, error)) func(context.Context, *Call, *In) (*Out, error) {
	return func(ctx context.Context, c *Call, in *In) (*Out, error) {
		if c.Server.config.Factors == nil {
			return nil, validationError("This server keeps no MFA devices.")
		}
		return run(ctx, c, in)
	}
}

type createMFAInput struct {
	Path                 string `json:"Path" check:"min=1,max=512,pattern=/([\\x21-\\x7E]+/)?"`
	VirtualMFADeviceName string `json:"VirtualMFADeviceName" check:"required,min=1,max=128,pattern=[\\w+=,.@-]+"`
}

func newMFAResource(_ context.Context, c *Call, in *createMFAInput) ([]access.Resource, error) {
	return []access.Resource{{ARN: c.iamARN("mfa", rootPath(in.Path), in.VirtualMFADeviceName)}}, nil
}

type createMFAOutput struct {
	VirtualMFADevice struct {
		SerialNumber     string `xml:"SerialNumber"`
		Base32StringSeed string `xml:"Base32StringSeed"`
		QRCodePNG        string `xml:"QRCodePNG"`
	} `xml:"VirtualMFADevice"`
}

func (out *createMFAOutput) made() string { return out.VirtualMFADevice.SerialNumber }

// createVirtualMFADevice makes a device that is nobody's yet. Its answer is the only place
// where the seed ever appears.
func createVirtualMFADevice(ctx context.Context, c *Call, in *createMFAInput) (*createMFAOutput, error) {
	seed, err := c.Server.config.Factors.NewTOTP(ctx, identity.User{}, in.VirtualMFADeviceName, rootPath(in.Path))
	switch {
	case errors.Is(err, identity.ErrExists):
		return nil, exception("EntityAlreadyExists", "MFADevice entity at the same path and name already exists.")
	case errors.Is(err, identity.ErrLimit):
		return nil, overQuota("UnassignedVirtualMFADevices", factor.MaxUnassigned)
	case err != nil:
		return nil, err
	}
	code, err := qr.Encode(seed.URL, qr.M)
	if err != nil {
		return nil, err
	}
	out := &createMFAOutput{}
	out.VirtualMFADevice.SerialNumber = seed.Serial(c.Server.config.Realm, "")
	// Both are blobs: the first one is base32 in base64.
	out.VirtualMFADevice.Base32StringSeed = base64.StdEncoding.EncodeToString([]byte(seed.Secret))
	out.VirtualMFADevice.QRCodePNG = base64.StdEncoding.EncodeToString(code.PNG())
	return out, nil
}

type enableMFAInput struct {
	userRefInput
	SerialNumber        string `json:"SerialNumber" check:"required,min=9,max=256"`
	AuthenticationCode1 string `json:"AuthenticationCode1" check:"required,secret,min=6,max=6,pattern=\\d*"`
	AuthenticationCode2 string `json:"AuthenticationCode2" check:"required,secret,min=6,max=6,pattern=\\d*"`
}

func noMFADevice(serial string) error {
	return noSuchEntity("MFADevice with serial number %s does not exist.", truncate(serial, 256))
}

// enableMFADevice makes a device a user's, by two codes that follow each other.
func enableMFADevice(ctx context.Context, c *Call, in *enableMFAInput) (*nothing, error) {
	user, err := c.mfaUser(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	keeper := c.Server.config.Factors
	d, err := keeper.BySerial(ctx, in.SerialNumber)
	if errors.Is(err, identity.ErrNotFound) {
		return nil, noMFADevice(in.SerialNumber)
	}
	if err != nil {
		return nil, err
	}
	err = keeper.EnableTOTP(ctx, d, user, c.Origin.SourceIP, in.AuthenticationCode1, in.AuthenticationCode2)
	wait := (*factor.WaitError)(nil)
	switch {
	case errors.Is(err, factor.ErrWrong):
		return nil, c.factorRefused(ctx, in.SerialNumber, err, exception("InvalidAuthenticationCode", "Authentication code for device is not valid."))
	case errors.As(err, &wait):
		return nil, exception("InvalidAuthenticationCode", "%s", sentence(err))
	case errors.Is(err, identity.ErrConflict):
		return nil, exception("EntityAlreadyExists", "MFA Device is already in use.")
	case errors.Is(err, identity.ErrLimit):
		return nil, overQuota("MFADevicesPerUser", factor.MaxDevices)
	case err != nil:
		return nil, err
	}
	return &nothing{}, c.factorChanged(ctx, user, d, "second factor enrolled")
}

// mfaUser is the user whose devices an operation changes. One's own are not changed with
// a key alone, whatever policies say.
func (c *Call) mfaUser(ctx context.Context, name string) (identity.User, error) {
	user, err := c.Server.config.Identities.User(ctx, name)
	if err != nil {
		return user, userKind().error(err, name)
	}
	if user.ID == c.Principal.RootID() {
		return user, c.mayChangeFactors(ctx, user)
	}
	return user, nil
}

type deactivateMFAInput struct {
	userRefInput
	SerialNumber string `json:"SerialNumber" check:"required,min=9,max=256"`
}

// deactivateMFADevice takes a device from a user: a virtual one is nobody's then, a
// security key is gone.
func deactivateMFADevice(ctx context.Context, c *Call, in *deactivateMFAInput) (*nothing, error) {
	user, err := c.mfaUser(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	keeper := c.Server.config.Factors
	d, err := c.mfaOf(ctx, user, in.SerialNumber)
	if err != nil {
		return nil, err
	}
	if err := c.factorChanged(ctx, user, d, "second factor removed"); err != nil {
		return nil, err
	}
	if d.Kind == factor.WebAuthn {
		return &nothing{}, keeper.Remove(ctx, d)
	}
	return &nothing{}, keeper.Release(ctx, d)
}

// mfaOf finds a device of a user by its serial number.
func (c *Call) mfaOf(ctx context.Context, user identity.User, serial string) (factor.Device, error) {
	devices, err := c.Server.config.Factors.Devices(ctx, user.ID)
	for _, d := range devices {
		if d.Serial(c.Server.config.Realm, user.Name) == serial {
			return d, nil
		}
	}
	if err == nil {
		err = noMFADevice(serial)
	}
	return factor.Device{}, err
}

type serialInput struct {
	SerialNumber string `json:"SerialNumber" check:"required,min=9,max=256"`
}

func onSerial(_ context.Context, _ *Call, in *serialInput) ([]access.Resource, error) {
	return []access.Resource{{ARN: in.SerialNumber}}, nil
}

// deleteVirtualMFADevice deletes a device that is nobody's.
func deleteVirtualMFADevice(ctx context.Context, c *Call, in *serialInput) (*nothing, error) {
	keeper := c.Server.config.Factors
	d, err := keeper.BySerial(ctx, in.SerialNumber)
	switch {
	case errors.Is(err, identity.ErrNotFound):
		return nil, noMFADevice(in.SerialNumber)
	case err != nil:
		return nil, err
	case d.UserID != "":
		return nil, deleteConflict("deactivate the MFA device")
	}
	return &nothing{}, keeper.Remove(ctx, d)
}

type mfaShape struct {
	UserName     string    `xml:"UserName"`
	SerialNumber string    `xml:"SerialNumber"`
	EnableDate   wire.Time `xml:"EnableDate"`
}

type mfaDevicesOutput struct {
	MFADevices memberList[mfaShape] `xml:"MFADevices"`
	pageOutput
}

func listMFADevices(ctx context.Context, c *Call, in *listKeysInput) (*mfaDevicesOutput, error) {
	user, err := c.Server.config.Identities.User(ctx, in.UserName)
	if err != nil {
		return nil, userKind().error(err, in.UserName)
	}
	all, err := c.Server.config.Factors.Devices(ctx, user.ID)
	if err != nil {
		return nil, err
	}
	devices, more, err := pageOf(c, in.pageInput, all, func(d factor.Device) string { return d.ID })
	out := &mfaDevicesOutput{pageOutput: more}
	for _, d := range devices {
		out.MFADevices.add(mfaShape{user.Name, d.Serial(c.Server.config.Realm, user.Name), wire.Time{Time: d.Enabled}})
	}
	return out, err
}

type listVirtualMFAInput struct {
	pageInput
	AssignmentStatus string `json:"AssignmentStatus" check:"enum=Assigned|Unassigned|Any"`
}

type virtualMFAShape struct {
	SerialNumber string     `xml:"SerialNumber"`
	User         *userShape `xml:"User,omitempty"`
	EnableDate   *wire.Time `xml:"EnableDate,omitempty"`
}

type virtualMFADevicesOutput struct {
	VirtualMFADevices memberList[virtualMFAShape] `xml:"VirtualMFADevices"`
	pageOutput
}

func listVirtualMFADevices(ctx context.Context, c *Call, in *listVirtualMFAInput) (*virtualMFADevicesOutput, error) {
	all, err := c.Server.config.Factors.All(ctx)
	if err != nil {
		return nil, err
	}
	var virtual []factor.Device
	for _, d := range all {
		assigned := !d.Enabled.IsZero()
		if d.Kind == factor.TOTP && (assigned && in.AssignmentStatus != "Unassigned" || !assigned && in.AssignmentStatus != "Assigned") {
			virtual = append(virtual, d)
		}
	}
	devices, more, err := pageOf(c, in.pageInput, virtual, func(d factor.Device) string { return d.Key() })
	if err != nil {
		return nil, err
	}
	out := &virtualMFADevicesOutput{pageOutput: more}
	for _, d := range devices {
		shape := virtualMFAShape{SerialNumber: d.Serial(c.Server.config.Realm, "")}
		if !d.Enabled.IsZero() {
			user, err := c.Server.config.Identities.UserByID(ctx, d.UserID)
			if err != nil {
				return nil, err
			}
			shown := c.userShape(user)
			shape.User, shape.EnableDate = &shown, &wire.Time{Time: d.Enabled}
		}
		out.VirtualMFADevices.add(shape)
	}
	return out, nil
}
