package pki

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// JoinRole is what the bearer of a token may become.
type JoinRole string

const (
	JoinNode       JoinRole = "node"
	JoinController JoinRole = "controller"
)

// JoinRoles are all roles, in the order in which the first start makes their tokens.
func JoinRoles() []JoinRole { return []JoinRole{JoinNode, JoinController} }

// Identity is what a bearer called name is to be signed as. Unknown roles give
// ErrTokenRole.
func (r JoinRole) Identity(name string) (Identity, error) {
	var kind Kind
	switch r {
	case JoinNode:
		kind = Node
	case JoinController:
		kind = Controller
	default:
		return Identity{}, fmt.Errorf("%w %q", ErrTokenRole, string(r))
	}
	id := Identity{Kind: kind, Name: name}
	return id, id.Validate()
}

// Reasons for which a token is refused.
var (
	ErrTokenForm    = errors.New("not a join token")
	ErrTokenSecret  = errors.New("wrong secret")
	ErrTokenRevoked = errors.New("revoked")
	ErrTokenExpired = errors.New("expired")
	ErrTokenUsedUp  = errors.New("used up")
	ErrTokenRole    = errors.New("unknown join role")
)

const (
	tokenPrefix      = "orch1"
	tokenIDBytes     = 5  // 8 characters: only names a record
	tokenSecretBytes = 20 // 160 bits: no guessing, so that a plain keyed hash of it may be stored
)

var tokenCoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Token is a parsed join token. Its secret shows in no print, log or JSON.
type Token struct {
	CAHash string // pin for PinnedJoinTLS
	ID     string // key of its TokenRecord
	secret []byte
}

// String is the token without its secret, for logs.
func (t Token) String() string { return tokenPrefix + "." + t.CAHash + "." + t.ID + ".***" }

// GoString keeps the secret out of %#v too.
func (t Token) GoString() string { return t.String() }

func (t Token) reveal() string {
	return tokenPrefix + "." + t.CAHash + "." + t.ID + "." + tokenCoding.EncodeToString(t.secret)
}

// TokenRecord is what the cluster stores of a token; the secret is not in it.
type TokenRecord struct {
	ID         string    `json:"id"`
	SecretHash string    `json:"secretHash"` // hex HMAC-SHA-256 over the ID under the secret
	Role       JoinRole  `json:"role"`
	Created    time.Time `json:"created"`
	Expires    time.Time `json:"expires"`
	Uses       int       `json:"uses"`
	MaxUses    int       `json:"maxUses,omitempty"` // 0: no limit
	Revoked    time.Time `json:"revoked,omitzero"`  // zero: not revoked
}

// NewToken makes a token for role, valid from now until expires, for so many uses; 0 is
// any number. The string is all that ever holds the secret: print it, store the record.
func NewToken(ca *CA, role JoinRole, now, expires time.Time, maxUses int, rnd io.Reader) (string, TokenRecord, error) {
	if _, err := role.Identity("any"); err != nil {
		return "", TokenRecord{}, fmt.Errorf("make join token: %w", err)
	}
	if maxUses < 0 {
		return "", TokenRecord{}, fmt.Errorf("make join token for %s: %d uses: want 1 or more, or 0 for any number", role, maxUses)
	}
	if !expires.After(now) {
		return "", TokenRecord{}, fmt.Errorf("make join token for %s: it would expire at %s, before it is made", role, stamp(expires))
	}
	buf := make([]byte, tokenIDBytes+tokenSecretBytes)
	if _, err := io.ReadFull(rnd, buf); err != nil {
		return "", TokenRecord{}, fmt.Errorf("make join token for %s: %w", role, err)
	}
	tok := Token{CAHash: ca.Hash(), ID: tokenCoding.EncodeToString(buf[:tokenIDBytes]), secret: buf[tokenIDBytes:]}
	return tok.reveal(), TokenRecord{
		ID: tok.ID, SecretHash: hex.EncodeToString(tok.hash(tok.ID)), Role: role, Created: now.UTC(), Expires: expires.UTC(), MaxUses: maxUses,
	}, nil
}

// hash commits to the secret; the ID in it is the salt.
func (t Token) hash(id string) []byte {
	mac := hmac.New(sha256.New, t.secret)
	mac.Write([]byte("orch join token\n" + id))
	return mac.Sum(nil)
}

// ParseToken reads a token as printed; space around it is ignored, and nothing
// else is. Errors wrap ErrTokenForm and never repeat what was read: it may be a
// secret with a slip in it.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	if parts[0] != tokenPrefix {
		return Token{}, fmt.Errorf("%w: it does not begin with %q", ErrTokenForm, tokenPrefix+".")
	}
	if len(parts) != 4 {
		return Token{}, fmt.Errorf("%w: it has %d parts between dots, want 4", ErrTokenForm, len(parts))
	}
	if b, err := hex.DecodeString(parts[1]); err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != parts[1] {
		return Token{}, fmt.Errorf("%w: the CA hash is not %d lower-case hex digits", ErrTokenForm, 2*sha256.Size)
	}
	if _, ok := decodePart(parts[2], tokenIDBytes); !ok {
		return Token{}, fmt.Errorf("%w: the token's id is damaged", ErrTokenForm)
	}
	secret, ok := decodePart(parts[3], tokenSecretBytes)
	if !ok {
		return Token{}, fmt.Errorf("%w: the secret is damaged", ErrTokenForm)
	}
	return Token{CAHash: parts[1], ID: parts[2], secret: secret}, nil
}

// decodePart takes one spelling only: the decoder itself skips line breaks.
func decodePart(s string, size int) ([]byte, bool) {
	b, err := tokenCoding.DecodeString(s)
	return b, err == nil && len(b) == size && tokenCoding.EncodeToString(b) == s
}

// Check decides whether tok may be used now. The secret comes first, in constant
// time: who does not know it learns nothing of the record. Errors wrap
// ErrTokenSecret, ErrTokenRevoked, ErrTokenExpired, ErrTokenUsedUp or ErrTokenRole.
func (r TokenRecord) Check(tok Token, now time.Time) error {
	want, err := hex.DecodeString(r.SecretHash)
	// A zero Token has an empty secret, whose hash anyone can compute.
	if err != nil || len(tok.secret) != tokenSecretBytes || !hmac.Equal(want, tok.hash(r.ID)) || tok.ID != r.ID {
		return fmt.Errorf("join token %s: %w", tok.ID, ErrTokenSecret)
	}
	switch {
	case !r.Revoked.IsZero():
		return fmt.Errorf("join token %s: %w at %s", r.ID, ErrTokenRevoked, stamp(r.Revoked))
	case !now.Before(r.Expires):
		return fmt.Errorf("join token %s: %w at %s", r.ID, ErrTokenExpired, stamp(r.Expires))
	case r.MaxUses > 0 && r.Uses >= r.MaxUses:
		return fmt.Errorf("join token %s: %w: %d of %d uses", r.ID, ErrTokenUsedUp, r.Uses, r.MaxUses)
	}
	if _, err := r.Role.Identity("any"); err != nil {
		return fmt.Errorf("join token %s: %w", r.ID, err)
	}
	return nil
}
