// Package apply makes a deployment what its configuration files say: users, groups,
// roles, policies, documents and flows, written in HCL (*.sallyport.hcl).
//
// Parse reads the files, NewPlan compares them with what there is and with the files that
// were applied last, and the plan's calls are operations of the API, so that each is
// authorised, checked and audited like any other.
package apply
