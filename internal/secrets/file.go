package secrets

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/orchctl/orch/internal/pki"
)

const (
	pemKey = "ORCH SECRETS KEY"
	// keyIDBytes of a hash name a key: a file holds a few, and a damaged one must not
	// pass for another.
	keyIDBytes = 4
	headID     = "Id"
	headMade   = "Made"
)

// fileHead tells who finds the file what it is. Readers pass over it.
const fileHead = `# The keys that this cluster's Secrets are encrypted with, newest first.
#
# Without this file no Secret can be read again, whatever backup of the store there is:
# keep a copy of it with every backup of the store, as well protected as the Secrets
# themselves. Show it to nobody. Keys of an older copy may be appended below.

`

// key is one key of the file. Its prints show its id alone.
type key struct {
	id     string
	made   time.Time
	secret pki.SealKey
}

// String keeps the key out of prints, and GoString out of %#v.
func (k key) String() string { return "key " + k.id }

// GoString: see String.
func (k key) GoString() string { return k.String() }

func (k key) is(other key) bool { return k.id == other.id }

func newKey(now time.Time) (key, error) {
	k := key{made: now.UTC().Truncate(time.Second)}
	if _, err := rand.Read(k.secret[:]); err != nil {
		return key{}, fmt.Errorf("make a key for secrets: %w", err)
	}
	k.id = idOf(k.secret)
	return k, nil
}

// idOf names a key by a hash of it: what a key's block says of itself is checked so.
func idOf(secret pki.SealKey) string {
	sum := sha256.Sum256(append([]byte("orch secrets key id\n"), secret[:]...))
	return hex.EncodeToString(sum[:keyIDBytes])
}

// load reads the file; os.ErrNotExist where there is none.
func load(path string) ([]key, error) {
	data, err := pki.ReadSecret(path)
	if err != nil {
		return nil, err
	}
	keys, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: put the file back from a backup; it is not replaced, for without its keys no secret can be read", path, err)
	}
	return keys, nil
}

func parse(data []byte) ([]key, error) {
	var keys []key
	blocks := bytes.Count(data, []byte("-----BEGIN "))
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		blocks--
		if block.Type != pemKey {
			return nil, fmt.Errorf("found a %.40q block, want %q", block.Type, pemKey)
		}
		k := key{id: block.Headers[headID]}
		made, err := time.Parse(time.RFC3339, block.Headers[headMade])
		if len(block.Bytes) != len(k.secret) || err != nil {
			return nil, errors.New("a key is damaged")
		}
		k.made, k.secret = made, pki.SealKey(block.Bytes)
		if idOf(k.secret) != k.id {
			return nil, fmt.Errorf("key %.16q is damaged", k.id)
		}
		keys = append(keys, k)
	}
	if blocks != 0 {
		return nil, errors.New("a key is cut short")
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no key")
	}
	return ordered(keys), nil
}

// ordered gives keys newest first, each once: of a copy that was appended some are there
// twice.
func ordered(keys []key) []key {
	var out []key
	for _, k := range keys {
		if !slices.ContainsFunc(out, k.is) {
			out = append(out, k)
		}
	}
	slices.SortStableFunc(out, func(a, b key) int { return cmp.Compare(b.made.Unix(), a.made.Unix()) })
	return out
}

func save(path string, keys []key) error {
	out := bytes.NewBufferString(fileHead)
	for _, k := range keys {
		block := &pem.Block{Type: pemKey, Headers: map[string]string{headID: k.id, headMade: k.made.Format(time.RFC3339)}, Bytes: k.secret[:]}
		if err := pem.Encode(out, block); err != nil {
			return err
		}
	}
	return pki.WriteSecret(path, out.Bytes())
}

// OpenFile reads the key file at path, or makes one with a first key where there is
// none. It never replaces a file that it cannot read.
func OpenFile(path string, now time.Time) (*Keyring, error) {
	keys, err := load(path)
	if errors.Is(err, os.ErrNotExist) {
		first, kerr := newKey(now)
		if kerr != nil {
			return nil, kerr
		}
		keys, err = []key{first}, save(path, []key{first})
	}
	if err != nil {
		return nil, err
	}
	return &Keyring{path: path, keys: keys}, nil
}
