// Package identity knows who is calling: users, groups, roles and their keys,
// temporary credentials, and the signatures that requests carry.
package identity
