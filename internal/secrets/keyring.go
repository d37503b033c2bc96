package secrets

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/pki"
)

// ErrNoKey: what is to be opened was sealed by a key that the key file does not have.
var ErrNoKey = errors.New("the key that it was encrypted with is not in the key file")

// ErrDamaged: it was changed since it was sealed, or sealed for another Secret.
var ErrDamaged = errors.New("it is damaged, or was encrypted as another secret")

const (
	// magic begins every payload; its number rises with the format.
	magic = "orchsecret1"
	// digestInfo tells the key for digests from what else may be derived one day.
	digestInfo = "orch secrets digest"
	// keysMax in a file: each rotation that was cut short leaves one, and the next takes
	// them all away.
	keysMax = 16
)

// Keyring holds the keys that Secrets are sealed by. Make it with OpenFile. It may be
// used by many at once; one process writes a file.
type Keyring struct {
	path string

	mu   sync.RWMutex
	keys []key // newest first, at least one
}

// String shows ids alone.
func (k *Keyring) String() string {
	return fmt.Sprintf("Keyring(%s)", strings.Join(k.IDs(), " "))
}

// GoString keeps keys out of %#v too, LogValue out of logs.
func (k *Keyring) GoString() string { return k.String() }

// LogValue implements slog.LogValuer.
func (k *Keyring) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Path of the key file.
func (k *Keyring) Path() string { return k.path }

// IDs of the keys, newest first.
func (k *Keyring) IDs() []string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var out []string
	for _, x := range k.keys {
		out = append(out, x.id)
	}
	return out
}

// Newest is the id of the key that Seal uses.
func (k *Keyring) Newest() string { return k.newest().id }

func (k *Keyring) newest() key {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.keys[0]
}

func (k *Keyring) find(id string) (key, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	i := slices.IndexFunc(k.keys, key{id: id}.is)
	if i < 0 {
		return key{}, false
	}
	return k.keys[i], true
}

// Sealed is what may leave this package of a Secret's values.
type Sealed struct {
	Payload []byte
	// By is the id of the key that it is sealed by.
	By string
	// Digest is the same for the same Secret, values and key, and tells nothing to whoever
	// lacks the key.
	Digest string
}

// Seal encrypts plain as the values of the Secret named so: under a data key of its own,
// which the newest key wraps.
func (k *Keyring) Seal(name api.Key, plain []byte) (Sealed, error) {
	by := k.newest()
	var data pki.SealKey
	if _, err := rand.Read(data[:]); err != nil {
		return Sealed{}, fmt.Errorf("encrypt secret %s: draw a key: %w", name, err)
	}
	defer clear(data[:])
	wrapped, err := pki.Seal(by.secret, purpose("key", name), data[:], rand.Reader)
	if err != nil {
		return Sealed{}, fmt.Errorf("encrypt secret %s: %w", name, err)
	}
	body, err := pki.Seal(data, purpose("values", name), plain, rand.Reader)
	if err != nil {
		return Sealed{}, fmt.Errorf("encrypt secret %s: %w", name, err)
	}
	digest, err := by.digest(name, plain)
	if err != nil {
		return Sealed{}, fmt.Errorf("encrypt secret %s: %w", name, err)
	}
	return Sealed{Payload: pack(by.id, wrapped, body), By: by.id, Digest: digest}, nil
}

// Open gives back what Seal encrypted as this Secret's. The error is ErrNoKey or
// ErrDamaged.
func (k *Keyring) Open(name api.Key, payload []byte) ([]byte, error) {
	id, wrapped, body, ok := unpack(payload)
	if !ok {
		return nil, fmt.Errorf("decrypt secret %s: %w", name, ErrDamaged)
	}
	by, ok := k.find(id)
	if !ok {
		return nil, fmt.Errorf("decrypt secret %s: %w (key %.16q, file %s)", name, ErrNoKey, id, k.path)
	}
	data, err := pki.Open(by.secret, purpose("key", name), wrapped)
	if err != nil || len(data) != len(pki.SealKey{}) {
		return nil, fmt.Errorf("decrypt secret %s: %w", name, ErrDamaged)
	}
	defer clear(data)
	plain, err := pki.Open(pki.SealKey(data), purpose("values", name), body)
	if err != nil {
		return nil, fmt.Errorf("decrypt secret %s: %w", name, ErrDamaged)
	}
	return plain, nil
}

// Reseal seals anew, by the newest key, what an older one sealed.
func (k *Keyring) Reseal(name api.Key, payload []byte) (Sealed, error) {
	plain, err := k.Open(name, payload)
	if err != nil {
		return Sealed{}, err
	}
	defer clear(plain)
	return k.Seal(name, plain)
}

// Reread takes in keys that were put back into the file since it was read.
func (k *Keyring) Reread() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reread()
}

// reread comes before everything that writes the file: a key that somebody put back into
// it must not be overwritten unseen. One that is not there any more is written anew. The
// caller holds mu.
func (k *Keyring) reread() error {
	there, err := load(k.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	k.keys = ordered(append(slices.Clone(k.keys), there...))
	return nil
}

// Rotate makes a new key, which is on the disk when it returns. The older ones stay until
// they are retired.
func (k *Keyring) Rotate(now time.Time) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.reread(); err != nil {
		return "", err
	}
	if len(k.keys) >= keysMax {
		return "", fmt.Errorf("%s has %d keys, at most %d are kept: secrets that cannot be decrypted hold them, see the log", k.path, len(k.keys), keysMax)
	}
	fresh, err := newKey(now)
	if err != nil {
		return "", err
	}
	if newest := k.keys[0].made; !fresh.made.After(newest) {
		fresh.made = newest.Add(time.Second) // the file is read in the order of times
	}
	next := append([]key{fresh}, k.keys...)
	if err := save(k.path, next); err != nil {
		return "", fmt.Errorf("keep the new key: %w", err)
	}
	k.keys = next
	return fresh.id, nil
}

// Retire takes all keys out of the file but the newest, those of keep, and those that
// were put there since it was read. It is for the caller to know that nothing is sealed by
// the others.
func (k *Keyring) Retire(keep ...string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	known, newest := k.keys, k.keys[0].id
	if err := k.reread(); err != nil {
		return fmt.Errorf("take old keys away: %w", err)
	}
	next := slices.DeleteFunc(slices.Clone(k.keys), func(x key) bool {
		return x.id != newest && !slices.Contains(keep, x.id) && slices.ContainsFunc(known, x.is)
	})
	if len(next) == len(k.keys) {
		return nil
	}
	if err := save(k.path, next); err != nil {
		return fmt.Errorf("take old keys away: %w", err)
	}
	k.keys = next
	return nil
}

// purpose is authenticated with what is sealed. Names have no "/" and no line breaks, so
// that no two Secrets share one.
func purpose(what string, name api.Key) string {
	return fmt.Sprintf("orch secret %s\n%s/%s/%s", what, name.Namespace, name.Name, api.KindSecret)
}

func (k key) digest(name api.Key, plain []byte) (string, error) {
	secret, err := hkdf.Key(sha256.New, k.secret[:], nil, digestInfo, sha256.Size)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(purpose("digest", name) + "\n"))
	mac.Write(plain)
	return k.id + ":" + hex.EncodeToString(mac.Sum(nil)), nil
}

// pack writes magic, the key's id and the wrapped data key with their lengths, then the
// values. Whoever changes the id changes which key is tried, and that fails.
func pack(id string, wrapped, body []byte) []byte {
	out := append([]byte(magic), byte(len(id)))
	out = append(out, id...)
	out = binary.BigEndian.AppendUint16(out, uint16(len(wrapped)))
	return append(append(out, wrapped...), body...)
}

func unpack(payload []byte) (id string, wrapped, body []byte, ok bool) {
	rest, ok := bytes.CutPrefix(payload, []byte(magic))
	if !ok || len(rest) < 1 || len(rest) < 1+int(rest[0])+2 {
		return "", nil, nil, false
	}
	id, rest = string(rest[1:1+rest[0]]), rest[1+int(rest[0]):]
	n := int(binary.BigEndian.Uint16(rest))
	if rest = rest[2:]; len(rest) < n {
		return "", nil, nil, false
	}
	return id, rest[:n], rest[n:], true
}
