package identity

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/orchctl/orch/internal/pki"
)

// retryRenewal is how soon a renewal that failed is tried again; there are ten
// days left at the first try.
const retryRenewal = time.Hour

// clockLook is how often a controller looks whether its certificate is due: a timer does not
// follow a clock that is set, nor count while the machine is suspended.
const clockLook = time.Minute

// vouchLife is how long a controller's certificate lasts, and the new CA vouches for the
// one that signed it, while there are two: as long is one who knows only the new CA open to
// whoever has the key of one that was retired.
const vouchLife = 24 * time.Hour

// Serving is a controller's own certificate. It lies in memory only: each start
// signs another.
type Serving struct {
	pki.Source
	authority *Authority
	name      string
	hosts     []string
	with      []byte // the CAs that it was made under
}

// Serve makes the certificate of the controller called name. Clients verify
// pki.ServerName; hosts are for other tools that look at the address.
func (a *Authority) Serve(name string, hosts []string) (*Serving, error) {
	s := &Serving{authority: a, name: name}
	for _, h := range hosts {
		h = strings.ToLower(h)
		if net.ParseIP(h) != nil || (pki.Identity{Kind: pki.Node, Name: h}).Validate() == nil {
			s.hosts = append(s.hosts, h)
		}
	}
	return s, s.renew()
}

func (s *Serving) renew() error {
	stands, now := s.authority.standing.Load(), s.authority.cfg.Now()
	life := pki.ServingValidity
	if stands.older != nil {
		life = vouchLife
	}
	b, err := issue(stands.serving(now), pki.Identity{Kind: pki.Controller, Name: s.name}, life, now, s.hosts...)
	if err != nil {
		return fmt.Errorf("make the certificate of controller %s: %w", s.name, err)
	}
	cert, err := b.Certificate()
	if err != nil {
		return fmt.Errorf("make the certificate of controller %s: %w", s.name, err)
	}
	chain, err := stands.chain(life, now)
	if err != nil {
		return fmt.Errorf("make the certificate of controller %s: %w", s.name, err)
	}
	cert.Certificate = append([][]byte{cert.Leaf.Raw}, chain...)
	s.Set(cert)
	s.with = stands.bundle
	return nil
}

// Run renews the certificate long before it ends, and when the cluster's CAs change,
// until ctx ends.
func (s *Serving) Run(ctx context.Context) error {
	for {
		trust, changed := s.authority.Trust()
		wait, look := time.Duration(0), false
		if bytes.Equal(trust.CA, s.with) {
			wait = max(pki.RenewAt(s.Get().Leaf).Sub(s.authority.cfg.Now()), time.Second)
			look = wait > clockLook
			wait = min(wait, clockLook)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
			if look {
				continue
			}
		case <-changed:
			t.Stop()
			continue
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		if err := s.renew(); err != nil {
			s.authority.cfg.Log.Error("renew certificate", "error", err, "retry_in", retryRenewal)
			select {
			case <-time.After(retryRenewal):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}
