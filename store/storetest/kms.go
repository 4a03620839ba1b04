package storetest

import (
	"errors"
	"fmt"
	"testing"

	"sallyport.dev/kms"
	"sallyport.dev/store"
)

const kmsID = "00000000-0000-4000-8000-00000000000"

func kmsKey(n int) (kms.Key, kms.Material) {
	id := fmt.Sprint(kmsID, n)
	return kms.Key{ID: id, Description: "shells", State: kms.Enabled, Created: at(1), Version: 1, Rotated: at(1), Rotation: 365},
		kms.Material{KeyID: id, Version: 1, Sealed: []byte{0, 1, 255}, Created: at(1)}
}

func testKMSKeys(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	k, m := kmsKey(1)
	must(t, s.CreateKMSKey(ctx, k, m, 2))
	wantSame(t, "key", get[kms.Key](t)(s.KMSKey(ctx, k.ID)), k)
	wantSame(t, "material", get[kms.Material](t)(s.KMSMaterial(ctx, k.ID, 1)), m)
	_, err := s.KMSKey(ctx, kmsID+"9")
	wantErr(t, "no key", err, kms.ErrNotFound)
	_, err = s.KMSMaterial(ctx, k.ID, 2)
	wantErr(t, "no such version", err, kms.ErrNotFound)
	k2, m2 := kmsKey(2)
	must(t, s.CreateKMSKey(ctx, k2, m2, 2))
	k3, m3 := kmsKey(3)
	wantErr(t, "one too many", s.CreateKMSKey(ctx, k3, m3, 2), kms.ErrLimit)
	id := func(k kms.Key) string { return k.ID[len(k.ID)-1:] }
	wantSame(t, "all", names(get[[]kms.Key](t)(s.KMSKeys(ctx, "", 0)), id), "1 2")
	wantSame(t, "first page", names(get[[]kms.Key](t)(s.KMSKeys(ctx, "", 1)), id), "1")
	wantSame(t, "next page", names(get[[]kms.Key](t)(s.KMSKeys(ctx, k.ID, 1)), id), "2")

	must(t, s.UpdateKMSKey(ctx, k.ID, func(k *kms.Key) (*kms.Material, error) {
		k.State, k.Version, k.Rotated, k.OnDemand, k.Rotation, k.Description = kms.Disabled, 2, at(2), 1, 90, "other"
		return &kms.Material{KeyID: k.ID, Version: 2, Sealed: []byte{2}, Created: at(2)}, nil
	}))
	k.State, k.Version, k.Rotated, k.OnDemand, k.Rotation, k.Description = kms.Disabled, 2, at(2), 1, 90, "other"
	wantSame(t, "changed", get[kms.Key](t)(s.KMSKey(ctx, k.ID)), k)
	wantSame(t, "new material", get[kms.Material](t)(s.KMSMaterial(ctx, k.ID, 2)).Sealed, []byte{2})
	wantSame(t, "old material", get[kms.Material](t)(s.KMSMaterial(ctx, k.ID, 1)), m)
	refused := errors.New("no")
	err = s.UpdateKMSKey(ctx, k.ID, func(k *kms.Key) (*kms.Material, error) { k.State = kms.Enabled; return nil, refused })
	wantErr(t, "a change that is refused", err, refused)
	wantSame(t, "which changes nothing", get[kms.Key](t)(s.KMSKey(ctx, k.ID)), k)
	err = s.UpdateKMSKey(ctx, kmsID+"9", func(*kms.Key) (*kms.Material, error) { return nil, nil })
	wantErr(t, "changing nothing", err, kms.ErrNotFound)
}

func testKMSDeletion(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	for n := 1; n <= 3; n++ {
		k, m := kmsKey(n)
		if k.Deletion = at(n); n < 3 {
			k.State = kms.PendingDeletion
		}
		must(t, s.CreateKMSKey(ctx, k, m, 9))
		must(t, s.CreateKMSAlias(ctx, kms.Alias{Name: fmt.Sprint("alias/", n), KeyID: k.ID, Created: at(1), Updated: at(1)}, 9))
	}
	must(t, s.DeleteKMSKey(ctx, kmsID+"1", at(1)))
	wantErr(t, "deleted twice", s.DeleteKMSKey(ctx, kmsID+"1", at(1)), kms.ErrNotFound)
	wantErr(t, "before its time", s.DeleteKMSKey(ctx, kmsID+"2", at(1)), kms.ErrNotFound)
	wantErr(t, "one that is to stay", s.DeleteKMSKey(ctx, kmsID+"3", at(9)), kms.ErrNotFound)
	_, err := s.KMSKey(ctx, kmsID+"1")
	wantErr(t, "the key", err, kms.ErrNotFound)
	_, err = s.KMSMaterial(ctx, kmsID+"1", 1)
	wantErr(t, "its material", err, kms.ErrNotFound)
	_, err = s.KMSAlias(ctx, "alias/1")
	wantErr(t, "its alias", err, kms.ErrNotFound)
	get[kms.Material](t)(s.KMSMaterial(ctx, kmsID+"2", 1))
}

func testKMSAliases(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	for n := 1; n <= 2; n++ {
		k, m := kmsKey(n)
		must(t, s.CreateKMSKey(ctx, k, m, 9))
	}
	a := kms.Alias{Name: "alias/shell", KeyID: kmsID + "1", Created: at(1), Updated: at(2)}
	must(t, s.CreateKMSAlias(ctx, a, 2))
	wantSame(t, "alias", get[kms.Alias](t)(s.KMSAlias(ctx, "alias/shell")), a)
	wantErr(t, "taken", s.CreateKMSAlias(ctx, kms.Alias{Name: a.Name, KeyID: kmsID + "2"}, 2), kms.ErrExists)
	wantErr(t, "of nothing", s.CreateKMSAlias(ctx, kms.Alias{Name: "alias/x", KeyID: kmsID + "9"}, 2), kms.ErrNotFound)
	must(t, s.CreateKMSAlias(ctx, kms.Alias{Name: "alias/Shell", KeyID: kmsID + "1"}, 2)) // case counts
	wantErr(t, "one too many", s.CreateKMSAlias(ctx, kms.Alias{Name: "alias/x", KeyID: kmsID + "1"}, 2), kms.ErrLimit)
	must(t, s.CreateKMSAlias(ctx, kms.Alias{Name: "alias/b", KeyID: kmsID + "2"}, 2))
	name := func(a kms.Alias) string { return a.Name }
	wantSame(t, "all", names(get[[]kms.Alias](t)(s.KMSAliases(ctx, "", "", 0)), name), "alias/Shell alias/b alias/shell")
	wantSame(t, "of one key", names(get[[]kms.Alias](t)(s.KMSAliases(ctx, kmsID+"1", "", 0)), name), "alias/Shell alias/shell")
	wantSame(t, "page", names(get[[]kms.Alias](t)(s.KMSAliases(ctx, "", "alias/Shell", 1)), name), "alias/b")
	wantErr(t, "deleting another key's", s.DeleteKMSAlias(ctx, a.Name, kmsID+"2"), kms.ErrNotFound)
	must(t, s.DeleteKMSAlias(ctx, a.Name, a.KeyID))
	wantErr(t, "deleted twice", s.DeleteKMSAlias(ctx, a.Name, a.KeyID), kms.ErrNotFound)
}

// testKMSRace: of rotations at once each makes its own version.
func testKMSRace(t *testing.T, fresh Fresh) {
	url := fresh(t)
	members := []*store.Store{Open(t, url), Open(t, url)}
	ctx := t.Context()
	k, m := kmsKey(1)
	must(t, members[0].CreateKMSKey(ctx, k, m, 9))
	counts := atOnce(t, 20, func(i int) error {
		return members[i%2].UpdateKMSKey(ctx, k.ID, func(k *kms.Key) (*kms.Material, error) {
			k.Version++
			return &kms.Material{KeyID: k.ID, Version: k.Version, Sealed: []byte{byte(i)}, Created: at(2)}, nil
		})
	})
	wantSame(t, "rotations", counts[nil], 20)
	wantSame(t, "version", get[kms.Key](t)(members[1].KMSKey(ctx, k.ID)).Version, 21)
}
