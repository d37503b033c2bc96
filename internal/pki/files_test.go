package pki

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSeal(t *testing.T) {
	key, other := SealKey{1}, SealKey{2}
	plain := []byte("the CA's key")
	sealed := ok(Seal(key, "ca.key", plain, rand.Reader))(t)
	if got := ok(Open(key, "ca.key", sealed))(t); !bytes.Equal(got, plain) {
		t.Errorf("opened %q", got)
	}
	if bytes.Contains(sealed, plain) || bytes.Equal(sealed, ok(Seal(key, "ca.key", plain, rand.Reader))(t)) {
		t.Error("sealed text shows the plain one, or repeats itself")
	}
	_, err := Open(other, "ca.key", sealed)
	wantErr(t, err, "open ca.key: cannot open: wrong key, passphrase or purpose, or damaged")
	_, err = Open(key, "secrets.key", sealed)
	wantErr(t, err, "open secrets.key: cannot open")
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := Open(key, "ca.key", bad); err == nil {
			t.Errorf("opens with byte %d changed", i)
		}
		if _, err := Open(key, "ca.key", sealed[:i]); err == nil {
			t.Errorf("opens when cut at byte %d", i)
		}
	}
	_, err = Open(key, "ca.key", plain)
	wantErr(t, err, "open ca.key: not sealed by a key file")
	_, err = Seal(SealKey{}, "ca.key", plain, rand.Reader)
	wantErr(t, err, "seal ca.key: the key is empty")
	_, err = Seal(key, "ca.key", plain, bytes.NewReader(nil))
	wantErr(t, err, "seal ca.key: draw nonce: EOF")
	if s := fmt.Sprintf("%v %+v %#v", key, key, key); strings.Count(s, "***") != 3 {
		t.Errorf("a key prints as %s", s)
	}
}

func TestSealPassphrase(t *testing.T) {
	const pass = "correct horse battery"
	sealed := ok(SealPassphrase(pass, "backup", []byte("all"), rand.Reader))(t)
	if got := ok(OpenPassphrase(pass, "backup", sealed))(t); string(got) != "all" {
		t.Errorf("opened %q", got)
	}
	_, err := OpenPassphrase(pass+"x", "backup", sealed)
	if !errors.Is(err, ErrSealed) {
		t.Errorf("wrong passphrase: %v", err)
	}
	salted := bytes.Clone(sealed)
	salted[len(sealMagic)+1] ^= 1
	if _, err := OpenPassphrase(pass, "backup", salted); !errors.Is(err, ErrSealed) {
		t.Errorf("changed salt: %v", err)
	}
	for _, cut := range []int{len(sealMagic) + 1, len(sealMagic) + 1 + saltBytes} {
		if _, err := OpenPassphrase(pass, "backup", sealed[:cut]); !errors.Is(err, ErrSealed) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	_, err = Open(SealKey{1}, "backup", sealed)
	wantErr(t, err, "open backup: not sealed by a key file")
	_, err = OpenPassphrase(pass, "backup", ok(Seal(SealKey{1}, "backup", nil, rand.Reader))(t))
	wantErr(t, err, "open backup: not sealed by a passphrase")
	_, err = SealPassphrase("short", "backup", nil, rand.Reader)
	wantErr(t, err, "seal backup: the passphrase has 5 bytes, want at least 12")
	_, err = SealPassphrase(pass, "backup", nil, bytes.NewReader(nil))
	wantErr(t, err, "seal backup: draw salt: EOF")
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	return ok(os.Stat(path))(t).Mode().Perm()
}

func noLeftovers(t *testing.T, dir string, want int) {
	t.Helper()
	if entries := ok(os.ReadDir(dir))(t); len(entries) != want {
		t.Errorf("%s holds %v, want %d files", dir, entries, want)
	}
}

func TestEnsureSealKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	path := filepath.Join(dir, "seal.key")
	var wg sync.WaitGroup
	keys := make([]SealKey, 8)
	errs := make([]error, len(keys))
	for i := range keys {
		wg.Go(func() { keys[i], errs[i] = EnsureSealKey(path, rand.Reader) })
	}
	wg.Wait()
	for i := range keys {
		if errs[i] != nil || keys[i] != keys[0] || keys[i] == (SealKey{}) {
			t.Fatalf("starter %d has another key, %v", i, errs[i])
		}
	}
	if m := mode(t, path); m != 0o600 {
		t.Errorf("mode %o", m)
	}
	noLeftovers(t, dir, 1)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err := EnsureSealKey(path, rand.Reader)
	wantErr(t, err, "mode 0640 lets others read it: make it 0600")
	if err := errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chmod(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err = EnsureSealKey(path, rand.Reader)
	wantErr(t, err, "not a seal key")
	_, err = EnsureSealKey(filepath.Join(dir, "new"), bytes.NewReader(nil))
	wantErr(t, err, "make seal key: EOF")
}

func TestFiles(t *testing.T) {
	ca := newCA(t, "prod")
	f := Files{Dir: filepath.Join(t.TempDir(), "pki")}
	if _, err := f.Load(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	if err := f.SaveCert(ca.CertPEM, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no key there: %v", err)
	}
	key := ok(f.EnsureKey(rand.Reader))(t)
	if again := ok(f.EnsureKey(rand.Reader))(t); !again.Equal(key) {
		t.Error("the second join has another key")
	}
	cert := ok(ca.Sign(ok(CSR(key, node("n1")))(t), node("n1"), time.Hour, t0))(t)
	wantErr(t, f.SaveCert(ca.CertPEM, cert), "")
	b := ok(f.Load())(t)
	if !bytes.Equal(b.Cert, cert) || !bytes.Equal(b.CA, ca.CertPEM) {
		t.Error("other files come back")
	}
	for name, want := range map[string]os.FileMode{"tls.key": 0o600, "tls.crt": 0o644, "ca.crt": 0o644} {
		if m := mode(t, filepath.Join(f.Dir, name)); m != want {
			t.Errorf("%s has mode %o, want %o", name, m, want)
		}
	}
	if m := mode(t, f.Dir); m != 0o700 {
		t.Errorf("folder has mode %o", m)
	}
	tlsCert := ok(b.Certificate())(t)
	if len(tlsCert.Certificate) != 2 || !bytes.Equal(tlsCert.Certificate[1], ca.cert.Raw) || tlsCert.Leaf == nil {
		t.Error("the CA does not follow the certificate")
	}
	ok(b.Pool())(t)
	noLeftovers(t, f.Dir, 3)
	if s := fmt.Sprintf("%v %+v %#v", b, b, b); strings.Contains(s, "PRIVATE") || len(s) > 200 {
		t.Errorf("a bundle prints as %s", s)
	}
}

func TestFilesRefuse(t *testing.T) {
	ca, foreign := newCA(t, "prod"), newCA(t, "prod")
	f := Files{Dir: t.TempDir()}
	good := bundle(t, ca, node("n1"), t0)
	wantErr(t, f.Save(good), "")
	other := bundle(t, ca, node("n2"), t0)
	for _, c := range []struct {
		b    Bundle
		want string
	}{
		{Bundle{good.CA, other.Cert, good.Key}, "tls.crt does not belong to tls.key"},
		{Bundle{foreign.CertPEM, good.Cert, good.Key}, "tls.crt is not signed by ca.crt"},
		{Bundle{nil, good.Cert, good.Key}, `parse certificate: no "CERTIFICATE" block`},
		{Bundle{good.CA, nil, good.Key}, `parse certificate: no "CERTIFICATE" block`},
		{Bundle{good.CA, good.Cert, nil}, `parse key: no "PRIVATE KEY" block`},
	} {
		wantErr(t, f.Save(c.b), "save certificate in "+f.Dir+": "+c.want)
	}
	if b := ok(f.Load())(t); !bytes.Equal(b.Cert, good.Cert) || !bytes.Equal(b.Key, good.Key) {
		t.Error("a refused save changed the files")
	}
	// A crash between key and certificate is told, and mended by a certificate for the key.
	wantErr(t, replaceFile(f.Dir, keyFile, other.Key, secretMode), "")
	_, err := f.Load()
	wantErr(t, err, "load certificate from "+f.Dir+": tls.crt does not belong to tls.key")
	wantErr(t, f.SaveCert(ca.CertPEM, other.Cert), "")
	ok(f.Load())(t)

	path := filepath.Join(f.Dir, keyFile)
	wantErr(t, os.Chmod(path, 0o644), "")
	for _, try := range []func() error{
		func() error { _, err := f.Load(); return err },
		func() error { _, err := f.EnsureKey(rand.Reader); return err },
	} {
		wantErr(t, try(), "read "+path+": mode 0644 lets others read it: make it 0600, and the secret anew if they did")
	}
	wantErr(t, errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chmod(path, 0o600)), "")
	_, err = f.EnsureKey(rand.Reader)
	wantErr(t, err, "read "+path+": parse key")
	noLeftovers(t, f.Dir, 3)
}

// TestReplaceFails: what cannot be published leaves the old file and no rubbish.
func TestReplaceFails(t *testing.T) {
	dir := t.TempDir()
	wantErr(t, os.Mkdir(filepath.Join(dir, "tls.crt"), 0o700), "")
	wantErr(t, replaceFile(dir, "tls.crt", []byte("x"), publicMode), "write "+filepath.Join(dir, "tls.crt")+": rename")
	noLeftovers(t, dir, 1)
	wantErr(t, replaceFile(dir, "a", []byte("old"), publicMode), "")
	wantErr(t, createFile(dir, "a", []byte("new")), "")
	if got := ok(os.ReadFile(filepath.Join(dir, "a")))(t); string(got) != "old" {
		t.Errorf("createFile replaced a file by %q", got)
	}
	wantErr(t, replaceFile(filepath.Join(dir, "a"), "b", nil, publicMode), "not a directory")
}

func TestFilesCA(t *testing.T) {
	ca := newCA(t, "prod")
	f := Files{Dir: filepath.Join(t.TempDir(), "ca")}
	key := SealKey{7}
	if _, err := f.LoadCA(key); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	wantErr(t, f.SaveCA(ca, key, rand.Reader), "")
	if back := ok(f.LoadCA(key))(t); back.Hash() != ca.Hash() || !bytes.Equal(back.KeyPEM, ca.KeyPEM) {
		t.Error("another CA comes back")
	}
	_, err := f.LoadCA(SealKey{8})
	wantErr(t, err, "read CA from "+f.Dir+": open ca.key: cannot open: wrong key")
	sealed := ok(os.ReadFile(filepath.Join(f.Dir, "ca.key.sealed")))(t)
	if bytes.Contains(sealed, []byte("PRIVATE")) || mode(t, filepath.Join(f.Dir, "ca.key.sealed")) != 0o600 {
		t.Error("the CA's key lies open")
	}
	wantErr(t, f.SaveCA(ca, SealKey{}, rand.Reader), "seal ca.key: the key is empty")
	// Another cluster's certificate beside the key is noticed.
	wantErr(t, replaceFile(f.Dir, caFile, newCA(t, "prod").CertPEM, publicMode), "")
	_, err = f.LoadCA(key)
	wantErr(t, err, "the key does not belong to the certificate")
	noLeftovers(t, f.Dir, 2)
}
