package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	caFile       = "ca.crt"
	certFile     = "tls.crt"
	keyFile      = "tls.key"
	sealedCAFile = "ca.key.sealed"
	caPurpose    = "ca.key"

	dirMode    = 0o700
	secretMode = 0o600
	publicMode = 0o644
)

// Files is a folder with ca.crt, tls.crt and tls.key, and on controllers
// ca.key.sealed. Every file is replaced whole or not at all, and is on the disk
// when a call returns. One process writes a folder.
type Files struct{ Dir string }

// Bundle is one holder's credentials in PEM: the CA, its certificate and its key.
type Bundle struct{ CA, Cert, Key []byte }

// String keeps the key out of prints.
func (b Bundle) String() string {
	return fmt.Sprintf("Bundle(%d+%d bytes, key ***)", len(b.CA), len(b.Cert))
}

// GoString keeps the key out of %#v too.
func (b Bundle) GoString() string { return b.String() }

// EnsureKey reads tls.key, or makes one if there is none. A joiner calls it
// before it asks: a join that broke off is repeated with the same key, to which
// its name may be bound already.
func (f Files) EnsureKey(rnd io.Reader) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(f.Dir, keyFile)
	data, err := readSecret(path)
	if errors.Is(err, os.ErrNotExist) {
		key, err := NewKey(rnd)
		if err != nil {
			return nil, err
		}
		fresh, err := EncodeKey(key)
		if err != nil {
			return nil, err
		}
		if err := createFile(f.Dir, keyFile, fresh); err != nil {
			return nil, err
		}
		if data, err = readSecret(path); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	key, err := ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return key, nil
}

// SaveCert writes ca.crt and tls.crt for the key that lies there: the end of a
// join and of every renewal. What does not fit together is refused.
func (f Files) SaveCert(caPEM, certPEM []byte) error {
	keyPEM, err := readSecret(filepath.Join(f.Dir, keyFile))
	if err != nil {
		return err
	}
	return f.Save(Bundle{CA: caPEM, Cert: certPEM, Key: keyPEM})
}

// Save writes all three files; what does not fit together is refused. The key
// goes first: after a crash in between, Load says that the certificate does not
// belong to it, and a join with that key mends it.
func (f Files) Save(b Bundle) error {
	if _, err := b.Certificate(); err != nil {
		return fmt.Errorf("save certificate in %s: %w", f.Dir, err)
	}
	for _, file := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{{keyFile, b.Key, secretMode}, {caFile, b.CA, publicMode}, {certFile, b.Cert, publicMode}} {
		if err := replaceFile(f.Dir, file.name, file.data, file.mode); err != nil {
			return err
		}
	}
	return nil
}

// Load reads the three files and checks that they fit together. The error is
// os.ErrNotExist where one is missing: not joined yet. An expired certificate
// loads: its holder may renew.
func (f Files) Load() (Bundle, error) {
	var b Bundle
	var err error
	if b.CA, err = os.ReadFile(filepath.Join(f.Dir, caFile)); err != nil {
		return Bundle{}, fmt.Errorf("read CA: %w", err)
	}
	if b.Cert, err = os.ReadFile(filepath.Join(f.Dir, certFile)); err != nil {
		return Bundle{}, fmt.Errorf("read certificate: %w", err)
	}
	if b.Key, err = readSecret(filepath.Join(f.Dir, keyFile)); err != nil {
		return Bundle{}, err
	}
	if _, err := b.Certificate(); err != nil {
		return Bundle{}, fmt.Errorf("load certificate from %s: %w", f.Dir, err)
	}
	return b, nil
}

// Certificate is the bundle as TLS presents it: with the CA that signed it, which
// PinnedJoinTLS needs to see. Leaf is set.
func (b Bundle) Certificate() (*tls.Certificate, error) {
	leaf, err := ParseCert(b.Cert)
	if err != nil {
		return nil, err
	}
	key, err := ParseKey(b.Key)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("%s does not belong to %s", certFile, keyFile)
	}
	cas, err := parseCerts(b.CA)
	if err != nil {
		return nil, err
	}
	ca, err := issuer(leaf, cas)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func issuer(leaf *x509.Certificate, cas []*x509.Certificate) (*x509.Certificate, error) {
	for _, ca := range cas {
		if leaf.CheckSignatureFrom(ca) == nil {
			return ca, nil
		}
	}
	return nil, fmt.Errorf("%s is not signed by %s", certFile, caFile)
}

// Pool trusts the bundle's CA and nothing else.
func (b Bundle) Pool() (*x509.CertPool, error) { return Pool(b.CA) }

// SaveCA writes ca.crt, and the CA's key sealed under key as ca.key.sealed.
func (f Files) SaveCA(ca *CA, key SealKey, rnd io.Reader) error {
	sealed, err := Seal(key, caPurpose, ca.KeyPEM, rnd)
	if err != nil {
		return err
	}
	if err := replaceFile(f.Dir, sealedCAFile, sealed, secretMode); err != nil {
		return err
	}
	return replaceFile(f.Dir, caFile, ca.CertPEM, publicMode)
}

// LoadCA reads what SaveCA wrote; os.ErrNotExist where there is none.
func (f Files) LoadCA(key SealKey) (*CA, error) {
	certPEM, err := os.ReadFile(filepath.Join(f.Dir, caFile))
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	sealed, err := readSecret(filepath.Join(f.Dir, sealedCAFile))
	if err != nil {
		return nil, err
	}
	keyPEM, err := Open(key, caPurpose, sealed)
	if err != nil {
		return nil, fmt.Errorf("read CA from %s: %w", f.Dir, err)
	}
	return ParseCA(certPEM, keyPEM)
}

// ReadSecret reads a file that only its owner may read; os.ErrNotExist where there is
// none.
func ReadSecret(path string) ([]byte, error) { return readSecret(path) }

// WriteSecret puts data in place of the file at once, for its owner alone, or leaves it
// as it was; what it returned of is on the disk. A folder that is missing is made.
func WriteSecret(path string, data []byte) error {
	return replaceFile(filepath.Dir(path), filepath.Base(path), data, secretMode)
}

// readSecret reads a file that only its owner may read.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("read %s: mode %04o lets others read it: make it %04o, and the secret anew if they did", path, mode, secretMode)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	return data, nil
}

// replaceFile puts data in place of name at once, or leaves it as it was.
func replaceFile(dir, name string, data []byte, mode os.FileMode) error {
	return writeFile(dir, name, data, mode, os.Rename)
}

// createFile is replaceFile for a secret that must never be overwritten: where
// name exists it stays as it is, and that is no error.
func createFile(dir, name string, data []byte) error {
	return writeFile(dir, name, data, secretMode, func(tmp, path string) error {
		if err := os.Link(tmp, path); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return os.Remove(tmp)
	})
}

// writeFile writes beside the target, brings the bytes to the disk, publishes
// them under the name and brings the name to the disk.
func writeFile(dir, name string, data []byte, mode os.FileMode, publish func(tmp, path string) error) (err error) {
	path := filepath.Join(dir, name)
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, "."+name+".*.tmp") // 0600 from the start
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already if published
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := publish(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
