// Package signin lets people sign in: at an OpenID provider or by another Method, in a
// browser, and from there for programs that run elsewhere (a command line asks to be
// let in, the person confirms that in the browser). It keeps who is signed in where, and
// ends it.
package signin
