package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
)

// sshFiles are the files of one profile in ~/.sallyport/ssh: a key of this program's
// own, its certificate, and how the front door is recognised.
type sshFiles struct{ dir string }

func (f sshFiles) key() string         { return filepath.Join(f.dir, "id_ed25519") }
func (f sshFiles) certificate() string { return f.key() + "-cert.pub" }
func (f sshFiles) knownHosts() string  { return filepath.Join(f.dir, "known_hosts") }
func (f sshFiles) config() string      { return filepath.Join(f.dir, "config") }
func (f sshFiles) note() string        { return filepath.Join(f.dir, "certificate.json") }

// notInFileNames is what is left out of a profile's name for a folder's.
var notInFileNames = regexp.MustCompile(`[^A-Za-z0-9_.-]+|^[.-]+`)

// profileName is the profile that is used, default if none is named.
func (p *program) profileName() string {
	for _, name := range []string{p.flags.profile, p.getenv("AWS_PROFILE"), p.getenv("AWS_DEFAULT_PROFILE")} {
		if name = notInFileNames.ReplaceAllString(name, ""); name != "" {
			return name
		}
	}
	return "default"
}

// sshFiles returns the profile's files; their folder is made if need be.
func (p *program) sshFiles() (sshFiles, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return sshFiles{}, fmt.Errorf("finding the home directory: %w", err)
	}
	dir := filepath.Join(home, ".sallyport", "ssh", p.profileName())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return sshFiles{}, fmt.Errorf("making the folder of SSH files: %w", err)
	}
	for _, d := range []string{filepath.Join(home, ".sallyport"), filepath.Dir(dir), dir} {
		if err := privateFolder(d); err != nil {
			return sshFiles{}, err
		}
	}
	return sshFiles{dir}, nil
}

// privateFolder refuses a folder in which others could put files.
func privateFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s can be written by others (mode %04o): chmod 700 %[1]s", dir, info.Mode().Perm())
	}
	return nil
}

// replaceFile writes a file in one step, unless it holds the same already.
func replaceFile(path string, text []byte, mode os.FileMode) (changed bool, err error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() { // a pipe would wait
		if old, err := os.ReadFile(path); err == nil && string(old) == string(text) {
			return false, nil
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // made with mode 0600
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("writing %s: %w", path, err)
	}
	return true, os.Rename(f.Name(), path)
}
