package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store"
)

const (
	// tokenFileLife is the life of a token in a file, which only root can read.
	tokenFileLife = 30 * 24 * time.Hour
	// tokenFileLeft: a token in a file with less life than this is replaced.
	tokenFileLeft = 3 * 24 * time.Hour
	// adminLeft: an admin's certificate with less life than this is replaced.
	adminLeft = 30 * 24 * time.Hour
	// adminName is who the context file of the first start is for.
	adminName = "admin"
)

// WriteToken sees to it that the file holds a token for role that can be used
// for some days yet. It needs the lead.
func (a *Authority) WriteToken(ctx context.Context, path string, role pki.JoinRole) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read token file: %w", err)
	}
	if a.usable(string(bytes.TrimSpace(old)), role, tokenFileLeft) {
		return nil
	}
	text, err := a.CreateToken(ctx, role, a.cfg.Now().Add(tokenFileLife), 0)
	if err != nil {
		return err
	}
	if err := replace(path, []byte(text+"\n")); err != nil {
		return fmt.Errorf("write token file %s: %w", path, err)
	}
	return nil
}

// WriteAdminContext sees to it that the context file has a context of this
// cluster with an admin's certificate that lasts, and leaves the others in it
// alone. It needs the lead.
func (a *Authority) WriteAdminContext(ctx context.Context, path, name string, controllers []string) error {
	have, err := clientconfig.Load(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; to write the admin's context elsewhere: --write-admin-context FILE", err)
	}
	if err == nil {
		if x, err := have.Context(name); err == nil {
			if x, done, err := a.keepAdmin(ctx, path, x, controllers); err != nil || done {
				return err
			} else if x != nil {
				return clientconfig.Merge(path, *x)
			}
		}
	}
	b, err := a.issueAdmin(ctx)
	if err != nil {
		return fmt.Errorf("make the admin's certificate: %w", err)
	}
	return clientconfig.Merge(path, clientconfig.Context{Name: name, Controllers: controllers,
		CA: string(b.CA), Certificate: string(b.Cert), Key: string(b.Key)})
}

// keepAdmin looks at a context that is there: done if it is to stay as it is, else how it
// is to be with the key that it has; nil if it needs another key.
func (a *Authority) keepAdmin(ctx context.Context, path string, x clientconfig.Context, controllers []string) (_ *clientconfig.Context, done bool, err error) {
	stands, now := a.standing.Load(), a.cfg.Now()
	bundle := pki.Bundle{CA: []byte(x.CA), Cert: []byte(x.Certificate), Key: []byte(x.Key)}
	cert, err := bundle.Certificate()
	var by string // hash of the CA that signed it; empty: none that is trusted
	if err == nil {
		by, _ = pki.IssuerHash(stands.bundle, cert.Leaf)
	}
	known, removed, empty, err := a.knowsAdmin(cert)
	switch {
	case err != nil:
		return nil, false, err
	case empty && by != "":
		// A cluster of a version that had no book: what it wrote is what is in it.
		if err := a.adoptAdmin(ctx, cert.Leaf, by); err != nil {
			return nil, false, err
		}
	case empty:
		return nil, false, nil
	case removed, !known && (by == "" || now.Before(cert.Leaf.NotAfter)):
		a.cfg.Log.Warn("the admin's context is worth nothing: its user was removed, or has a newer certificate elsewhere; to get a new one, remove the context from the file and start the controller again", "file", path, "context", x.Name)
		return nil, true, nil
	}
	if by != stands.ca.Hash() || !now.Add(adminLeft).Before(cert.Leaf.NotAfter) {
		return nil, false, nil
	}
	// The signing CA alone: a copy of the file is not told when the other one is retired.
	ca := string(stands.ca.CertPEM)
	done = slices.Equal(x.Controllers, controllers) && x.CA == ca
	x.Controllers, x.CA = controllers, ca
	return &x, done, nil
}

// knowsAdmin tells whether the certificate is in the book as the admin's, whether others
// are in it but not the admin, and whether it has nobody.
func (a *Authority) knowsAdmin(cert *tls.Certificate) (known, removed, empty bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.book == nil {
		return false, false, false, ErrNotLeading
	}
	r, ok := a.book.users[adminName]
	empty = len(a.book.users) == 0
	return ok && cert != nil && r.has(pki.PublicKeyHash(cert.Leaf)), !ok && !empty, empty, nil
}

func (a *Authority) adoptAdmin(ctx context.Context, cert *x509.Certificate, by string) error {
	return a.changeUsers(ctx, func(b *book) ([]store.Op, error) {
		if len(b.users) > 0 {
			return nil, nil
		}
		r := userRecord{Role: pki.Admin, Created: cert.NotBefore.UTC(), Keys: []userKey{{Hash: pki.PublicKeyHash(cert), Expires: cert.NotAfter.UTC(), CA: by}}}
		b.users[adminName] = r
		return []store.Op{userOp(adminName, r)}, nil
	})
}

// issueAdmin makes another key for the admin. Those that there are stay good: a file may
// have been copied.
func (a *Authority) issueAdmin(ctx context.Context) (pki.Bundle, error) {
	id := pki.Identity{Kind: pki.User, Name: adminName, Role: pki.Admin}
	key, csr, err := newRequest(id)
	if err != nil {
		return pki.Bundle{}, err
	}
	req, err := pki.ParseCSR(csr)
	if err != nil {
		return pki.Bundle{}, err
	}
	b := pki.Bundle{Key: key}
	err = a.changeUsers(ctx, func(book *book) ([]store.Op, error) {
		u := NewUser{Name: adminName, Role: pki.Admin, CSR: csr}
		if have, known := book.users[adminName]; known && have.Role != pki.Admin {
			return nil, fmt.Errorf("%w: the user %s has the role %s", ErrRefused, adminName, have.Role)
		}
		cert, op, err := a.sign(book, u, req, pki.UserValidity, a.cfg.Now(), true)
		b.Cert, b.CA = cert, a.CA().CertPEM
		return []store.Op{op}, err
	})
	return b, err
}

// issue makes a key and a certificate of ca for it.
func issue(ca *pki.CA, id pki.Identity, life time.Duration, now time.Time, hosts ...string) (pki.Bundle, error) {
	key, csr, err := newRequest(id)
	if err != nil {
		return pki.Bundle{}, err
	}
	cert, err := ca.Sign(csr, id, life, now, hosts...)
	if err != nil {
		return pki.Bundle{}, err
	}
	return pki.Bundle{CA: ca.CertPEM, Cert: cert, Key: key}, nil
}

// newRequest makes a key, in PEM, and asks for a certificate for it.
func newRequest(id pki.Identity) (keyPEM, csr []byte, err error) {
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if csr, err = pki.CSR(key, id); err != nil {
		return nil, nil, err
	}
	keyPEM, err = pki.EncodeKey(key)
	return keyPEM, csr, err
}

// replace writes a secret whole or not at all, for its owner only.
func replace(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp") // 0600 from the start
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already if renamed
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
