package identity

import (
	"crypto/x509"
	"sync"

	"github.com/orchctl/orch/internal/pki"
)

// holds are the calls of users that are under way: those of a user who is removed end
// at once.
type holds struct {
	mu  sync.Mutex
	all map[*hold]struct{}
}

type hold struct {
	id   pki.Identity
	cert *x509.Certificate
	end  func(error)
}

// Hold has end called if the user, or that certificate, is taken away until release is
// called. It may be called more than once.
func (a *Authority) Hold(id pki.Identity, cert *x509.Certificate, end func(error)) (release func()) {
	h := &hold{id, cert, end}
	a.holds.mu.Lock()
	defer a.holds.mu.Unlock()
	if a.holds.all == nil {
		a.holds.all = map[*hold]struct{}{}
	}
	a.holds.all[h] = struct{}{}
	return func() {
		a.holds.mu.Lock()
		defer a.holds.mu.Unlock()
		delete(a.holds.all, h)
	}
}

// endStrangers ends the calls that would not be let in now for good. One that cannot be
// judged goes on: without a leader nothing new is learnt of a user.
func (x *holds) endStrangers(admit func(pki.Identity, *x509.Certificate) error) {
	x.mu.Lock()
	var gone []func()
	for h := range x.all {
		if err := admit(h.id, h.cert); err != nil && isRefusal(err) {
			gone = append(gone, func() { h.end(err) })
		}
	}
	x.mu.Unlock()
	for _, end := range gone {
		end()
	}
}
