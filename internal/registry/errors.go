package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

// What a registry's no can mean. Every error of this package wraps one of them.
var (
	// ErrMissing: it has no such image.
	ErrMissing = errors.New("image is missing")
	// ErrDenied: it wants a login, or another one.
	ErrDenied = errors.New("login is missing or refused")
	// ErrUnreachable: it cannot be asked now: no connection, no trust, a fault of its own,
	// or too many requests. Later may be better.
	ErrUnreachable = errors.New("registry cannot be asked")
	// ErrUnknownHost is an ErrUnreachable that waiting hardly mends: its name leads nowhere.
	ErrUnknownHost = fmt.Errorf("%w: its name is not known", ErrUnreachable)
	// ErrFaulty: what it gave is no image.
	ErrFaulty = errors.New("registry's answer is no image")
)

// Error is a registry's no: which one, to what, and what to do. Its text holds no
// password, and it wraps nothing but the kind: the library's errors hold addresses with
// signatures in them.
type Error struct {
	// Kind is ErrMissing, ErrDenied, ErrUnreachable, ErrUnknownHost or ErrFaulty.
	Kind error
	// Host is the registry as the image names it.
	Host string
	// RetryAfter is what the registry said of when to come again; 0: nothing.
	RetryAfter time.Duration
	// Status is that of HTTP where it says more than Kind; 0: it does not.
	Status int
	text   string
}

func (e *Error) Error() string { return e.text }

// Unwrap gives the kind.
func (e *Error) Unwrap() error { return e.Kind }

// explain turns the library's error into ours. It leaves an error of this package, and the
// end of the caller's own context, as they are.
func (a *asker) explain(ctx context.Context, err error, s *seen) error {
	var ours *Error
	if err == nil || errors.As(err, &ours) {
		return err
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	what, after, kind := a.judge(ctx, err, s)
	out := &Error{Kind: kind, Host: a.host, RetryAfter: after, text: a.scrub(what)}
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		out.Status = status.StatusCode
	}
	return out
}

func (a *asker) judge(ctx context.Context, err error, s *seen) (what string, after time.Duration, kind error) {
	var late *throttled
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &late) {
		when := "later"
		if late.after > 0 {
			when = "in " + late.after.String()
		}
		return fmt.Sprintf("registry %s refuses more requests (429): it can be asked again %s; a login may allow more", a.host, when), late.after, ErrUnreachable
	}
	if host, code := s.deniedBy(); host != "" {
		return a.denied(host, code), 0, ErrDenied
	}
	hasStatus := errors.As(err, &status)
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return a.denied(a.host, http.StatusUnauthorized), 0, ErrDenied
	case errdefs.IsNotFound(err):
		return fmt.Sprintf("registry %s does not have %s: is the name right, and was it pushed?", a.host, a.image), 0, ErrMissing
	case hasStatus && status.StatusCode >= http.StatusInternalServerError:
		return fmt.Sprintf("registry %s has a fault of its own (%s) when asked for %s: see its log", a.host, status.Status, a.image), 0, ErrUnreachable
	case hasStatus && status.StatusCode == http.StatusBadRequest && strings.HasPrefix(status.RequestURL, "http://"): // all that a server of TLS says
		return fmt.Sprintf("registry %s says %s to plain HTTP; if it speaks TLS, leave --insecure-registry out, and put its authority's certificate into %s", a.host, status.Status, a.caPath()), 0, ErrUnreachable
	case hasStatus:
		return fmt.Sprintf("registry %s says %s when asked for %s", a.host, status.Status, a.image), 0, ErrFaulty
	}
	var dns *net.DNSError
	if what := a.unreachable(ctx, err); what != "" {
		kind := ErrUnreachable
		if errors.As(err, &dns) && dns.IsNotFound { // else it may be the resolver's fault
			kind = ErrUnknownHost
		}
		return fmt.Sprintf("registry %s cannot be asked for %s: %s", a.host, a.image, what), 0, kind
	}
	return fmt.Sprintf("registry %s: ask for %s: %s", a.host, a.image, err), 0, ErrFaulty
}

// denied tells no login, a wrong one and one that may not from each other.
func (a *asker) denied(host string, code int) string {
	user, sent, note := a.sentTo(host)
	if note != "" {
		note = " (" + note + ")"
	}
	where := "registry " + a.host
	if Host(host) != Host(a.host) {
		where += " (by " + host + ")"
	}
	switch {
	case !sent:
		return fmt.Sprintf("%s wants a login for %s, or does not have it: make a Secret with `orchctl create secret registry`, and name it in pullSecrets%s", where, a.image, note)
	case code == http.StatusForbidden:
		return fmt.Sprintf("%s does not let %s read %s: give that user the right, or name another login in pullSecrets%s", where, user, a.image, note)
	}
	return fmt.Sprintf("%s refuses the login of %s for %s: is the password right? Change the Secret in pullSecrets, or the file of logins%s", where, user, a.image, note)
}

// unreachable says in words why there was no answer; empty: there was one.
func (a *asker) unreachable(ctx context.Context, err error) string {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	var dns *net.DNSError
	var netErr net.Error
	switch {
	case errors.Is(err, errPlain):
		return "its address or its token server's is plain HTTP: allow that host with --insecure-registry, or have it speak TLS"
	case errors.Is(err, errStalled):
		return fmt.Sprintf("no byte came for %s", a.client.stall)
	case errors.As(err, &authority):
		return "its certificate is signed by an authority that is not known here: put that one's certificate into " + a.caPath()
	case errors.As(err, &name):
		return "its certificate is for another name: " + name.Error()
	case errors.As(err, &invalid):
		return "its certificate is not valid: " + invalid.Error()
	case errors.As(err, &alert):
		return "it refuses the connection (" + alert.Error() + "): if it wants a client certificate, put a .cert and a .key beside " + a.caPath()
	case errors.Is(err, http.ErrSchemeMismatch):
		return "it speaks plain HTTP: have it speak TLS, or allow it with --insecure-registry " + a.host
	case errors.As(err, &dns) && !dns.IsNotFound:
		return fmt.Sprintf("%s did not say what its name means: %s", orDefault(dns.Server, "this machine's resolver"), dns.Err)
	case errors.As(err, &dns):
		return "its name is not known to " + orDefault(dns.Server, "this machine's resolver")
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at its address"
	case errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
		return "it did not answer in time"
	case errors.As(err, &netErr):
		return innermost(err).Error()
	}
	return ""
}

// innermost leaves out the addresses around a fault.
func innermost(err error) error {
	var u *url.Error
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

var anyURL = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'<>]+`)

// scrub takes out of a text what came of addresses beside host and path, and every
// password that was given.
func (a *asker) scrub(s string) string {
	s = anyURL.ReplaceAllStringFunc(s, func(found string) string {
		tail := found[len(strings.TrimRight(found, ".,:;)")):]
		u, err := url.Parse(strings.TrimSuffix(found, tail))
		if err != nil {
			return "(address)"
		}
		return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String() + tail
	})
	for _, secret := range a.secrets() {
		s = strings.ReplaceAll(s, secret, "...")
	}
	return plainText(s)
}

// textMax is how much of a registry's words is told, in bytes: they are reported, stored and
// shown on terminals, and may be anything.
const textMax = 1 << 10

// plainText leaves out what a terminal would obey, and the end of what is too long.
func plainText(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s)
	if len(s) > textMax {
		s = strings.ToValidUTF8(s[:textMax], "") + "..."
	}
	return s
}

func orDefault(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
