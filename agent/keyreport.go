package agent

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"time"

	"sallyport.dev/agent/keyscan"
	"sallyport.dev/wire"
)

const (
	// keyScanEvery is how often authorized_keys files are read, and keyReportEvery how
	// often they are reported although nothing has changed.
	keyScanEvery   = 15 * time.Minute
	keyReportEvery = 24 * time.Hour
)

// reportKeys tells the server which keys the node's authorized_keys files let in, until
// ctx ends: now, and whenever that has changed. A server that does not want to know is
// not told again.
func (a *Agent) reportKeys(ctx context.Context) {
	if !a.cfg.ReportKeys {
		return
	}
	var told [sha256.Size]byte
	var at time.Time
	for {
		report, sum, err := a.scanKeys()
		switch {
		case err != nil:
			a.log.Info("reading authorized keys", "error", err)
		case sum != told || a.cfg.now().Sub(at) >= keyReportEvery:
			err := a.tellKeys(ctx, report)
			if hasCode(err, "UnknownOperation") {
				return
			}
			if err != nil && ctx.Err() == nil {
				a.log.Info("reporting authorized keys", "error", err)
				break
			}
			told, at = sum, a.cfg.now()
		}
		if !a.pause(ctx, keyScanEvery) {
			return
		}
	}
}

func (a *Agent) scanKeys() (report wire.ReportAuthorizedKeys, sum [sha256.Size]byte, err error) {
	keys, more, err := keyscan.Scan(a.cfg.keyPlaces)
	if err != nil {
		return report, sum, err
	}
	report.More = more
	for _, k := range keys {
		report.Keys = append(report.Keys, wire.AuthorizedKey{
			Login: k.Login, File: k.File, Fingerprint: k.Fingerprint, Type: k.Type, Comment: k.Comment, Authority: k.Authority,
		})
	}
	text, err := json.Marshal(report)
	return report, sha256.Sum256(text), err
}

func (a *Agent) tellKeys(ctx context.Context, report wire.ReportAuthorizedKeys) error {
	e := a.endpoint()
	sign, err := a.signWith(ctx, e)
	if err != nil {
		return err
	}
	return e.callService(ctx, "sallyport", "Sallyport.ReportAuthorizedKeys", sign, report, &struct{}{})
}
