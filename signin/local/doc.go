// Package local signs people in who have a password here, and lets everybody who is signed
// in enrol and show second factors: one-time codes and security keys.
//
// A password alone never reaches a sign-in where there is a second factor, or where the
// configuration demands one: then one is enrolled first. An initial password, which
// somebody else gave, is only good for setting another.
package local
