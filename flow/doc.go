// Package flow says what may be asked for and how it is decided: flows, the targets
// they offer, their forms, stages and clocks, written in HCL, and flow code in Starlark.
//
// The package knows no server. It reads files (Parse), checks what is asked against a
// flow's form, and runs a flow's code against facts that its caller gives (Env).
package flow
