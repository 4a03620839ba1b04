// Package sallyport is the root of the module; it holds nothing but the tests that
// keep the house in order. Start at docs/architecture.md.
package sallyport
