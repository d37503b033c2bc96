package identity

import (
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

// Serving is a controller's own certificate. It lies in memory only: each start
// signs another.
type Serving struct {
	pki.Source
	authority *Authority
	name      string
	hosts     []string
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
	b, err := s.authority.issue(pki.Identity{Kind: pki.Controller, Name: s.name}, pki.ServingValidity, s.hosts...)
	if err != nil {
		return fmt.Errorf("make the certificate of controller %s: %w", s.name, err)
	}
	cert, err := b.Certificate()
	if err != nil {
		return fmt.Errorf("make the certificate of controller %s: %w", s.name, err)
	}
	s.Set(cert)
	return nil
}

// Run renews the certificate long before it ends, until ctx ends.
func (s *Serving) Run(ctx context.Context) error {
	for {
		wait := pki.RenewAt(s.Get().Leaf).Sub(s.authority.cfg.Now())
		t := time.NewTimer(max(wait, time.Second))
		select {
		case <-t.C:
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
