package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Kind says what an identity is. The zero value is no kind.
type Kind string

const (
	Node       Kind = "node"
	Controller Kind = "controller"
	User       Kind = "user"
)

// Role is what a user may do. The zero value may do nothing.
type Role string

const (
	Viewer   Role = "viewer"
	Operator Role = "operator"
	Admin    Role = "admin"
)

// rank orders roles; 0 is no role.
func (r Role) rank() int {
	switch r {
	case Viewer:
		return 1
	case Operator:
		return 2
	case Admin:
		return 3
	}
	return 0
}

// Allows reports whether a holder of r may do what needs need:
// viewer < operator < admin. An unknown role allows nothing, and nobody is
// allowed what needs an unknown role.
func (r Role) Allows(need Role) bool {
	return need.rank() > 0 && r.rank() >= need.rank()
}

// Identity is who a certificate speaks for. Role is set for users only.
type Identity struct {
	Kind Kind
	Name string
	Role Role
}

// ServerName is the DNS name in every controller's certificate. Clients verify
// it instead of the address that they dialled.
const ServerName = "controller.orch.internal"

const (
	scheme     = "orch"
	nameMax    = 253 // bytes: a full DNS name, the longest hostname there is
	clusterMax = 63  // bytes: one DNS label, it is the host of the identity's URI
)

// Sentinels for decisions on a peer's certificate.
var (
	// ErrNoCertificate: the peer sent no certificate.
	ErrNoCertificate = errors.New("no certificate")
	// ErrNotVerified: the peer sent a certificate which nobody checked against the CA.
	ErrNotVerified = errors.New("certificate not verified")
	// ErrIdentity: the certificate or request carries no usable identity.
	ErrIdentity = errors.New("no valid identity")
)

// String is for people: "node n1", "user alice (admin)".
func (id Identity) String() string {
	s := string(id.Kind) + " " + id.Name
	if id.Role != "" {
		s += " (" + string(id.Role) + ")"
	}
	return s
}

// Validate refuses identities that no certificate may carry. Its errors wrap
// ErrIdentity.
func (id Identity) Validate() error {
	switch id.Kind {
	case Node, Controller:
		if id.Role != "" {
			return fmt.Errorf("%w: %s %q has role %q: only users have one", ErrIdentity, id.Kind, id.Name, id.Role)
		}
	case User:
		if id.Role.rank() == 0 {
			return fmt.Errorf("%w: user %q has role %q: want viewer, operator or admin", ErrIdentity, id.Name, id.Role)
		}
	default:
		return fmt.Errorf("%w: kind %q: want node, controller or user", ErrIdentity, id.Kind)
	}
	if why := nameFault(id.Name, nameMax, id.Kind == User); why != "" {
		// A stranger may bring a name of any length.
		return fmt.Errorf("%w: name %q of a %s %s", ErrIdentity, id.Name[:min(len(id.Name), nameMax)], id.Kind, why)
	}
	return nil
}

// nameFault says what is wrong with a name, or "". Every allowed byte stands for
// itself in a URI, so that an identity has one spelling only.
func nameFault(s string, limit int, user bool) string {
	if s == "" {
		return "is empty"
	}
	if len(s) > limit {
		return fmt.Sprintf("has %d bytes, at most %d", len(s), limit)
	}
	for i := range len(s) {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		inner := c == '-' || c == '.' || user && (c == '_' || c == '@')
		switch {
		case !alnum && !inner:
			return fmt.Sprintf("has %q at byte %d: want lower-case letters, digits, '-' and '.'", c, i)
		case !alnum && (i == 0 || i == len(s)-1):
			return "must begin and end with a letter or digit"
		}
	}
	if strings.Contains(s, "..") {
		return "has an empty part between two dots"
	}
	return ""
}

// uri is the identity's one spelling; cluster is empty in requests.
func (id Identity) uri(cluster string) *url.URL {
	u := &url.URL{Scheme: scheme, Host: cluster, Path: "/" + string(id.Kind) + "/" + id.Name}
	if id.Role != "" {
		u.RawQuery = "role=" + string(id.Role)
	}
	return u
}

// parseURI reads an identity and its cluster. Whatever is not the canonical
// spelling is refused: two spellings of one name would be two names to a map.
func parseURI(u *url.URL) (id Identity, cluster string, err error) {
	if u.Scheme != scheme {
		return Identity{}, "", fmt.Errorf("%w: %q does not begin with %s://", ErrIdentity, u, scheme)
	}
	kind, name, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	id = Identity{Kind: Kind(kind), Name: name, Role: Role(strings.TrimPrefix(u.RawQuery, "role="))}
	if err := id.Validate(); err != nil {
		return Identity{}, "", err
	}
	if u.Host != "" {
		if why := clusterFault(u.Host); why != "" {
			return Identity{}, "", fmt.Errorf("%w: cluster %q %s", ErrIdentity, u.Host, why)
		}
	}
	if got, want := u.String(), id.uri(u.Host).String(); got != want {
		return Identity{}, "", fmt.Errorf("%w: %q is not spelt %q", ErrIdentity, got, want)
	}
	return id, u.Host, nil
}

func clusterFault(s string) string {
	if strings.Contains(s, ".") {
		return "has a dot: want one label"
	}
	return nameFault(s, clusterMax, false)
}

// IdentityOf reads the identity of a certificate. It checks the form only: that
// the CA signed it is for TLS, see IdentityFromState. Errors wrap
// ErrNoCertificate or ErrIdentity.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	id, _, err := identityOf(cert)
	return id, err
}

func identityOf(cert *x509.Certificate) (Identity, string, error) {
	switch {
	case cert == nil:
		return Identity{}, "", ErrNoCertificate
	case cert.IsCA:
		return Identity{}, "", fmt.Errorf("%w: the certificate is a CA", ErrIdentity)
	case len(cert.URIs) != 1:
		return Identity{}, "", fmt.Errorf("%w: the certificate has %d URI names, want 1", ErrIdentity, len(cert.URIs))
	}
	id, cluster, err := parseURI(cert.URIs[0])
	if err != nil {
		return Identity{}, "", err
	}
	if cluster == "" {
		return Identity{}, "", fmt.Errorf("%w: %q names no cluster", ErrIdentity, cert.URIs[0])
	}
	return id, cluster, nil
}

// PublicKeyHash is the hex SHA-256 of the certificate's SubjectPublicKeyInfo. A
// node's name binds to that of its first certificate, and renewal keeps it.
func PublicKeyHash(cert *x509.Certificate) string { return spkiHash(cert.RawSubjectPublicKeyInfo) }

func spkiHash(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
