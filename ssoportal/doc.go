// Package ssoportal speaks the two services by which AWS's command line and SDKs use IAM
// Identity Center: sso-oidc (a program becomes signed in) and the portal sso (accounts,
// roles, credentials of a role). Both are REST with JSON; paths and shapes are those of
// botocore's models sso-oidc 2019-06-10 and sso 2019-06-10.
//
// It decides nothing by itself: sign-ins are those of package signin, and a role's
// credentials are what sts:AssumeRole gives that person, checked and recorded the same
// way. Tokens are sealed and name a sign-in, with whose end they are worth nothing.
package ssoportal
