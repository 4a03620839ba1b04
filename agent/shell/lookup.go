package shell

import "context"

// Lookup finds a user of the operating system by name: in the local database, else
// through getent. ErrNoUser if there is none.
func Lookup(ctx context.Context, name string) (User, error) { return Options{}.lookup(ctx, name) }
