package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/internal/pki"
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
	text, err := a.CreateToken(ctx, role, a.cfg.Now().Add(tokenFileLife))
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
// alone.
func (a *Authority) WriteAdminContext(path, name string, controllers []string) error {
	have, err := clientconfig.Load(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; to write the admin's context elsewhere: --write-admin-context FILE", err)
	}
	if err == nil {
		x, err := have.Context(name)
		if err == nil && a.adminLasts(x) {
			if slices.Equal(x.Controllers, controllers) {
				return nil
			}
			x.Controllers = controllers
			return clientconfig.Merge(path, x)
		}
	}
	b, err := a.issue(pki.Identity{Kind: pki.User, Name: adminName, Role: pki.Admin}, pki.UserValidity)
	if err != nil {
		return fmt.Errorf("make the admin's certificate: %w", err)
	}
	return clientconfig.Merge(path, clientconfig.Context{Name: name, Controllers: controllers,
		CA: string(b.CA), Certificate: string(b.Cert), Key: string(b.Key)})
}

func (a *Authority) adminLasts(x clientconfig.Context) bool {
	b := pki.Bundle{CA: []byte(x.CA), Cert: []byte(x.Certificate), Key: []byte(x.Key)}
	cert, err := b.Certificate()
	return err == nil && bytes.Equal(bytes.TrimSpace(b.CA), bytes.TrimSpace(a.ca.CertPEM)) &&
		a.cfg.Now().Add(adminLeft).Before(cert.Leaf.NotAfter)
}

// issue makes a key and a certificate for it.
func (a *Authority) issue(id pki.Identity, life time.Duration, hosts ...string) (pki.Bundle, error) {
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		return pki.Bundle{}, err
	}
	csr, err := pki.CSR(key, id)
	if err != nil {
		return pki.Bundle{}, err
	}
	cert, err := a.ca.Sign(csr, id, life, a.cfg.Now(), hosts...)
	if err != nil {
		return pki.Bundle{}, err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return pki.Bundle{}, err
	}
	return pki.Bundle{CA: a.ca.CertPEM, Cert: cert, Key: keyPEM}, nil
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
