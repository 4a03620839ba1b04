package member

import (
	"context"
	"fmt"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/kms"
	"sallyport.dev/session"
)

// tendEvery is how often it is looked for keys whose rotation or deletion is due.
const tendEvery = time.Minute

// tendKeys does what is due with keys, now and then, until the member closes.
func (m *Member) tendKeys(ctx context.Context) {
	ctx, m.stopKeys = context.WithCancel(context.WithoutCancel(ctx))
	m.running.Go(func() {
		ticker := time.NewTicker(tendEvery)
		defer ticker.Stop()
		for {
			if err := m.keys.Tend(ctx, m.noteKey); err != nil && ctx.Err() == nil {
				m.log.Error("tending keys", "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
}

// noteKey records a change of a key that nobody asks for at that moment.
func (m *Member) noteKey(ctx context.Context, action string, k kms.Key) error {
	_, err := m.Audit.Append(ctx, audit.Record{
		Event: audit.EventChange, Principal: "server", Action: action, Resources: []string{m.cfg.Realm().Key(k.ID)},
		Reason: "it was due",
	})
	return err
}

// dataKey decrypts the data key of a session that its ends encrypt, to record it.
func (m *Member) dataKey(ctx context.Context, s session.Session, text []byte, encryptionContext map[string]string) ([]byte, error) {
	blob, err := kms.ParseBlob(text)
	if err != nil {
		return nil, err
	}
	k, err := m.keys.Key(ctx, s.KMSKey)
	if err != nil {
		return nil, err
	}
	return m.keys.Decrypt(ctx, k, blob, encryptionContext)
}

// Values of sessions.encrypted.
const (
	encryptedRefuse     = "refuse"
	encryptedRecord     = "record"
	encryptedUnrecorded = "unrecorded"
)

// encryption is what becomes of sessions that their ends encrypt.
func (s *Sessions) encryption() session.Encryption {
	switch s.Encrypted {
	case encryptedRecord:
		return session.EncryptionRecorded
	case encryptedUnrecorded:
		return session.EncryptionUnrecorded
	}
	return session.EncryptionNone
}

func (s *Sessions) checkEncrypted() error {
	switch s.Encrypted {
	case "", encryptedRefuse, encryptedRecord, encryptedUnrecorded:
		return nil
	}
	return fmt.Errorf("sessions.encrypted: %q is not %s, %s or %s", s.Encrypted, encryptedRefuse, encryptedRecord, encryptedUnrecorded)
}
