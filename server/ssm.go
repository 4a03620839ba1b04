package server

import "slices"

// ssmOperations are the rows of the services ssm and ec2messages.
func ssmOperations() []*Operation {
	return slices.Concat(
		ssmNodeOperations(),
		ssmSessionOperations(),
		ssmCommandOperations(),
		ssmActivationOperations(),
		ssmTagOperations(),
		ssmDocumentOperations(),
		ssmAccessOperations(),
		agentRegisterOperations(),
		agentReportOperations(),
		agentMessageOperations(),
	)
}
