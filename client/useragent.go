package client

import (
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
)

type middlewareStack = middleware.Stack

// userAgent names the program in the User-Agent of the SDK's calls, which audit
// records keep.
func userAgent(name, version string) func(*middlewareStack) error {
	return awsmiddleware.AddUserAgentKeyValue(name, version)
}
