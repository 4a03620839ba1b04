package server

import "slices"

// operations is the operation table: every service's rows, each list beside its
// handlers.
func operations() []*Operation {
	return slices.Concat(
		stsOperations(),
		ownOperations(),
		operationsOfSearch(),
		auditOperations(),
		watchOperations(),
		recordingOperations(),
		requestOperations(),
		sshOperations(),
		signInOperations(),
		chatOperations(),
		applyOperations(),
		factorOperations(),
		ssoTokenOperations(),
		iamOperations(),
		ssmOperations(),
		ec2Operations(),
		kmsOperations(),
	)
}
