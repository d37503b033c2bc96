package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store"
)

var (
	// ErrNotLeading: this controller does not lead; another does, or soon will.
	ErrNotLeading = errors.New("this controller does not lead")
	// ErrRefused: the caller may not have what it asks for.
	ErrRefused = errors.New("refused")
	// ErrInvalid: what was asked can never work as it stands.
	ErrInvalid = errors.New("invalid")
	// ErrUnknown: there is nothing of that name.
	ErrUnknown = errors.New("there is no such thing")
	// ErrNameTaken: the name is bound to another key.
	ErrNameTaken = errors.New("the name belongs to another key")
)

// namesMax bounds the book, which every new leader reads: several times the largest fleet
// that was tried. Whoever has a token could fill the store otherwise.
const namesMax = 20_000

// makeToken is the remedy for a token that does not do.
const makeToken = "make another with \"orchctl token create --role node\""

func isRefusal(err error) bool { return errors.Is(err, ErrRefused) }

// Join exchanges a token for a node's certificate. A retry with the same key is
// answered again, even where the token has been used up since.
func (a *Authority) Join(ctx context.Context, token, name string, csr []byte) (certPEM []byte, err error) {
	tok, err := pki.ParseToken(token)
	if err != nil {
		return nil, fmt.Errorf("join: %w: %w", ErrInvalid, err)
	}
	if !a.standing.Load().trusts(tok.CAHash) {
		return nil, fmt.Errorf("join: %w: the token is of another cluster, or of a CA of this one that was retired: "+makeToken, ErrRefused)
	}
	req, err := pki.ParseCSR(csr)
	if err != nil {
		return nil, fmt.Errorf("join: %w: %w", ErrInvalid, err)
	}
	id := pki.Identity{Kind: pki.Node, Name: name}
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("join: %w: %w", ErrInvalid, err)
	}
	if name == liveness.LeaderObserver {
		return nil, fmt.Errorf("join: %w: %q means the leader itself: give the node another name", ErrInvalid, name)
	}
	err = a.change(ctx, func(b *book) ([]store.Op, error) {
		now, ca := a.cfg.Now(), a.CA()
		r, known := b.tokens[tok.ID]
		if !known {
			return nil, fmt.Errorf("join: %w: join token %s is not known: "+makeToken, ErrRefused, tok.ID)
		}
		have, bound := b.names[name]
		again := bound && have.KeyHash == req.KeyHash
		if err := r.Check(tok, now); err != nil && !(again && errors.Is(err, pki.ErrTokenUsedUp)) {
			return nil, fmt.Errorf("join: %w: %w: "+makeToken, ErrRefused, err)
		}
		if r.Role != pki.JoinNode {
			return nil, fmt.Errorf("join: %w: join token %s is for a %s, and this is a node: "+makeToken, ErrRefused, r.ID, r.Role)
		}
		if req.Identity != id {
			return nil, fmt.Errorf("join: %w: the request asks for %s, the call for %s", ErrInvalid, req.Identity, id)
		}
		if !bound && len(b.names) >= namesMax {
			return nil, fmt.Errorf("join as node %s: %w: %d nodes have joined already: revoke the token if that were too many, and remove nodes that are not there any more with \"orchctl node remove\"", name, ErrRefused, len(b.names))
		}
		if bound && !again {
			return nil, fmt.Errorf("join as node %s: %w: if that machine was made anew, say \"orchctl node remove %s\" first; else choose another name", name, ErrNameTaken, name)
		}
		if certPEM, err = ca.Sign(csr, id, pki.ServingValidity, now); err != nil {
			return nil, err
		}
		next := nameRecord{KeyHash: req.KeyHash, Token: r.ID, Joined: now.UTC(), Expires: now.Add(pki.ServingValidity).UTC(), CA: ca.Hash()}
		if again {
			next.Joined, next.Token = have.Joined, have.Token
		} else {
			r.Uses++
		}
		b.names[name], b.tokens[r.ID] = next, r
		return []store.Op{nameOp(name, next), tokenOp(r)}, nil
	})
	if err != nil {
		return nil, err
	}
	a.cfg.Log.Info("node joined", "node", name, "token", tok.ID)
	return certPEM, nil
}

// Renew gives a node its next certificate for the same key. Its proof is the
// key that signed the request: a node whose certificate ended within
// pki.RenewGrace comes without one.
func (a *Authority) Renew(ctx context.Context, csr []byte) (certPEM []byte, err error) {
	req, err := pki.ParseCSR(csr)
	if err != nil {
		return nil, fmt.Errorf("renew certificate: %w: %w", ErrInvalid, err)
	}
	id := req.Identity
	if id.Kind != pki.Node {
		return nil, fmt.Errorf("renew certificate: %w: the request is for %s, only nodes renew here", ErrRefused, id)
	}
	err = a.change(ctx, func(b *book) ([]store.Op, error) {
		now, ca := a.cfg.Now(), a.CA()
		have, bound := b.names[id.Name]
		switch {
		case !bound || have.KeyHash != req.KeyHash:
			return nil, fmt.Errorf("renew certificate of %s: %w: the name is not bound to this key: join again", id, ErrRefused)
		case now.After(have.Expires.Add(pki.RenewGrace)):
			return nil, fmt.Errorf("renew certificate of %s: %w: it expired at %s, more than %s ago: join again", id, ErrRefused, have.Expires.Format(time.RFC3339), pki.RenewGrace)
		}
		if certPEM, err = ca.Sign(csr, id, pki.ServingValidity, now); err != nil {
			return nil, err
		}
		have.Expires, have.CA = now.Add(pki.ServingValidity).UTC(), ca.Hash()
		b.names[id.Name] = have
		return []store.Op{nameOp(id.Name, have)}, nil
	})
	return certPEM, err
}

// Bound tells whether the node's name belongs to the key of its certificate: a
// removed node's certificate is worth nothing, however long it lasts.
func (a *Authority) Bound(node string, cert *x509.Certificate) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.book == nil {
		return ErrNotLeading
	}
	have, bound := a.book.names[node]
	switch {
	case !bound:
		return fmt.Errorf("node %s: %w: it was removed from the cluster: join again", node, ErrRefused)
	case have.KeyHash != pki.PublicKeyHash(cert):
		return fmt.Errorf("node %s: %w", node, ErrNameTaken)
	}
	return nil
}

// Forget frees the name of a removed node; false if it was not bound.
func (a *Authority) Forget(ctx context.Context, node string) (known bool, err error) {
	err = a.change(ctx, func(b *book) ([]store.Op, error) {
		if _, known = b.names[node]; !known {
			return nil, nil
		}
		delete(b.names, node)
		return []store.Op{store.Delete(namePrefix + node)}, nil
	})
	return known, err
}
