// Package build tells which version this program is.
package build

import "runtime/debug"

// version is set by release builds: -ldflags "-X sallyport.dev/internal/build.version=v1.2.3".
var version string

// Version returns the release's version, or what the toolchain knows of the source.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}
