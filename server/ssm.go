package server

import "slices"

// ssmOperations are the rows of the services ssm and ec2messages but for sessions.
func ssmOperations() []*Operation {
	return slices.Concat(
		ssmNodeOperations(),
		ssmActivationOperations(),
		ssmTagOperations(),
		ssmDocumentOperations(),
		agentRegisterOperations(),
		agentReportOperations(),
		agentMessageOperations(),
	)
}
