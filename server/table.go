package server

import "slices"

// operations is the operation table: every service's rows, each list beside its
// handlers.
func operations() []*Operation {
	return slices.Concat(
		stsOperations(),
		ownOperations(),
		sshOperations(),
		signInOperations(),
		applyOperations(),
		factorOperations(),
		iamOperations(),
		ssmOperations(),
		ec2Operations(),
	)
}
