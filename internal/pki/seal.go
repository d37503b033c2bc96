package pki

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrSealed: the key, the purpose or the passphrase is not the one that sealed
// it, or it was changed since. Which one, nobody can tell.
var ErrSealed = errors.New("cannot open: wrong key, passphrase or purpose, or damaged")

// SealKey is an AES-256 key. The zero value seals nothing.
type SealKey [32]byte

// String keeps the key out of prints.
func (SealKey) String() string { return "SealKey(***)" }

// GoString keeps the key out of %#v too.
func (k SealKey) GoString() string { return k.String() }

const (
	sealMagic     = "orchseal1"
	byKey         = 'k'
	byPassphrase  = 'p'
	saltBytes     = 16
	nonceBytes    = 12      // of AES-GCM; drawn at random, far below 2^32 seals per key
	passRounds    = 600_000 // PBKDF2-HMAC-SHA-256: about 0.1 s a guess
	passphraseMin = 12      // bytes: below that the rounds do not help
)

// Seal encrypts and authenticates plaintext under key with AES-256-GCM. purpose,
// such as "ca.key", is authenticated with it: one sealed thing cannot be passed
// off as another.
func Seal(key SealKey, purpose string, plaintext []byte, rnd io.Reader) ([]byte, error) {
	if key == (SealKey{}) {
		return nil, fmt.Errorf("seal %s: the key is empty", purpose)
	}
	return seal(key, append([]byte(sealMagic), byKey), purpose, plaintext, rnd)
}

// Open gives back what Seal sealed, or ErrSealed.
func Open(key SealKey, purpose string, sealed []byte) ([]byte, error) {
	body, ok := bytes.CutPrefix(sealed, append([]byte(sealMagic), byKey))
	if !ok {
		return nil, fmt.Errorf("open %s: not sealed by a key file", purpose)
	}
	return open(key, sealed[:len(sealed)-len(body)], purpose, body)
}

// SealPassphrase is Seal under a passphrase of at least 12 bytes, for backups.
func SealPassphrase(passphrase, purpose string, plaintext []byte, rnd io.Reader) ([]byte, error) {
	if len(passphrase) < passphraseMin {
		return nil, fmt.Errorf("seal %s: the passphrase has %d bytes, want at least %d", purpose, len(passphrase), passphraseMin)
	}
	head := append([]byte(sealMagic), byPassphrase)
	salt := make([]byte, saltBytes)
	if _, err := io.ReadFull(rnd, salt); err != nil {
		return nil, fmt.Errorf("seal %s: draw salt: %w", purpose, err)
	}
	key, err := stretch(passphrase, salt)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", purpose, err)
	}
	return seal(key, append(head, salt...), purpose, plaintext, rnd)
}

// OpenPassphrase gives back what SealPassphrase sealed, or ErrSealed.
func OpenPassphrase(passphrase, purpose string, sealed []byte) ([]byte, error) {
	body, ok := bytes.CutPrefix(sealed, append([]byte(sealMagic), byPassphrase))
	if !ok {
		return nil, fmt.Errorf("open %s: not sealed by a passphrase", purpose)
	}
	if len(body) < saltBytes {
		return nil, fmt.Errorf("open %s: %w", purpose, ErrSealed)
	}
	key, err := stretch(passphrase, body[:saltBytes])
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", purpose, err)
	}
	body = body[saltBytes:]
	return open(key, sealed[:len(sealed)-len(body)], purpose, body)
}

func stretch(passphrase string, salt []byte) (SealKey, error) {
	k, err := pbkdf2.Key(sha256.New, passphrase, salt, passRounds, len(SealKey{}))
	if err != nil {
		return SealKey{}, err
	}
	return SealKey(k), nil
}

// seal writes head, nonce, ciphertext; head and purpose are authenticated.
func seal(key SealKey, head []byte, purpose string, plaintext []byte, rnd io.Reader) ([]byte, error) {
	nonce := make([]byte, nonceBytes)
	if _, err := io.ReadFull(rnd, nonce); err != nil {
		return nil, fmt.Errorf("seal %s: draw nonce: %w", purpose, err)
	}
	gcm, err := newGCM(key)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", purpose, err)
	}
	return gcm.Seal(bytes.Join([][]byte{head, nonce}, nil), nonce, plaintext, append(bytes.Clone(head), purpose...)), nil
}

func open(key SealKey, head []byte, purpose string, body []byte) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", purpose, err)
	}
	if len(body) < nonceBytes {
		return nil, fmt.Errorf("open %s: %w", purpose, ErrSealed)
	}
	plain, err := gcm.Open(nil, body[:nonceBytes], body[nonceBytes:], append(bytes.Clone(head), purpose...))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", purpose, ErrSealed)
	}
	return plain, nil
}

func newGCM(key SealKey) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// EnsureSealKey reads the key file at path, or makes one (0600) if there is
// none. It never replaces a key: what it sealed would be lost.
func EnsureSealKey(path string, rnd io.Reader) (SealKey, error) {
	data, err := readSecret(path)
	if errors.Is(err, os.ErrNotExist) {
		var key SealKey
		if _, err := io.ReadFull(rnd, key[:]); err != nil {
			return SealKey{}, fmt.Errorf("make seal key: %w", err)
		}
		fresh := pem.EncodeToMemory(&pem.Block{Type: pemSealKey, Bytes: key[:]})
		if err := createFile(filepath.Dir(path), filepath.Base(path), fresh); err != nil {
			return SealKey{}, err
		}
		data, err = readSecret(path) // another process may have been first
	}
	if err != nil {
		return SealKey{}, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemSealKey || len(block.Bytes) != len(SealKey{}) {
		return SealKey{}, fmt.Errorf("read %s: not a seal key", path)
	}
	return SealKey(block.Bytes), nil
}
