package keyring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"

	"sallyport.dev/archive"
	"sallyport.dev/internal/cloud"
)

type opener = cloud.Opener[service]

// open opens the key of a URL. One in a file that is not there is made if it may be.
func open(ctx context.Context, text, credentials string, mayMake func() error) (service, error) {
	u, open, err := find(text)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "file" {
		_, err := os.Stat(u.Path)
		if errors.Is(err, fs.ErrNotExist) {
			err = mayMake()
		}
		if err != nil {
			return nil, fmt.Errorf("opening the key of recordings %s: %w", u.Path, err)
		}
	}
	s, err := open(ctx, u, credentials)
	if err != nil {
		return nil, fmt.Errorf("opening the key of recordings %s: %w", cloud.Shown(u), err)
	}
	return s, nil
}

// Check finds out whether a URL may be one of a key, without opening it.
func Check(text string) error {
	_, _, err := find(text)
	return err
}

// find returns how the key of a URL is opened.
func find(text string) (*url.URL, opener, error) {
	u, open, err := cloud.Find(text, openers())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrURL, err)
	}
	return u, open, nil
}

// openers are how keys are opened; nil for what this build was made without.
func openers() map[string]opener {
	all := map[string]opener{"file": openFile, "awskms": openAWS, "hashivault": openVault, "gcpkms": nil, "azurekeyvault": nil}
	maps.Copy(all, cloudOpeners())
	return all
}

// file is a key in a file on this machine.
type file struct{ archive.Keeper }

func openFile(_ context.Context, u *url.URL, _ string) (service, error) {
	if _, err := cloud.ParseParams(u); err != nil {
		return nil, err
	}
	if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
		return nil, fmt.Errorf("want file:///ABSOLUTE/PATH")
	}
	k, err := archive.KeyFile(u.Path)
	if err != nil {
		return nil, err
	}
	return file{k}, nil
}

// Unwrap implements service.
func (f file) Unwrap(ctx context.Context, wrapped []byte) ([]byte, error) {
	key, err := f.Keeper.Unwrap(ctx, f.ID(), wrapped)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFinal, err)
	}
	return key, nil
}

func (file) local() bool { return true }
