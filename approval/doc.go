// Package approval reads the documents by which AWS's just-in-time node access is
// decided, and decides by them: ManualApprovalPolicy documents become flows, the
// AutoApprovalPolicy and the deny-access policy are Cedar.
//
// It also asks the Cedar rules that flows have themselves, so that an engine has one
// place to ask (grant.Rules). Nothing is kept: documents are read when they are asked
// about, and the default version of each is in force.
package approval
