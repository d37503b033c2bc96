package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/log"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

// ManifestMax bounds a manifest, an index and a config, in bytes: registries refuse larger ones.
const ManifestMax = 4 << 20

// Config is what a client knows of the node that it is on. The zero value trusts the
// system's authorities and knows no login.
type Config struct {
	// HostsDir has a folder per registry: HOST/hosts.toml as containerd reads it, or *.crt,
	// *.cert and *.key as docker does. /etc/docker/certs.d counts too.
	HostsDir string
	// Insecure are hosts, with or without port, that may be asked over plain HTTP.
	Insecure []string
	// AuthFile is docker's config.json; it need not exist.
	AuthFile string
	// Logger may be nil.
	Logger *slog.Logger
}

// Client asks registries. It is for many callers at once and holds no connection.
type Client struct {
	cfg       Config
	dockerDir string
	stall     time.Duration
}

// New makes a client. It warns of a HostsDir that is not there: settings in it may come
// later, or it was misspelt.
func New(cfg Config) *Client {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.HostsDir != "" && cfg.HostsDir != DefaultHostsDir {
		if _, err := os.Stat(cfg.HostsDir); err != nil {
			cfg.Logger.Warn("registries' settings cannot be read: authorities and mirrors in them do not count", "why", err)
		}
	}
	return &Client{cfg: cfg, dockerDir: dockerHostsDir, stall: stallAfter}
}

// Resolved is what a reference means now.
type Resolved struct {
	// Digest of the index or manifest, "sha256:...".
	Digest string
	// Platforms as "linux/amd64" or "linux/arm/v7", sorted; empty: not known.
	Platforms []string
}

// Resolver is for pulls: of one image each, so that errors can name it. Its errors are *Error.
func (c *Client) Resolver(logins []Login) remotes.Resolver {
	return &resolver{client: c, logins: slices.Clone(logins)}
}

// Resolve asks what a reference means now. ref may be short ("web:2"). The caller's
// context bounds it. Errors are *Error, or the context's end.
func (c *Client) Resolve(ctx context.Context, ref string, logins []Login) (Resolved, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return Resolved{}, &Error{Kind: ErrFaulty, text: fmt.Sprintf("image %q: %v", ref, err)}
	}
	r := c.Resolver(logins)
	_, desc, err := r.Resolve(ctx, named.String())
	if err != nil {
		return Resolved{}, err
	}
	f, err := r.Fetcher(ctx, named.String())
	if err != nil {
		return Resolved{}, err
	}
	out := Resolved{Digest: desc.Digest.String()}
	out.Platforms, err = Platforms(ctx, desc, func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) { return fetch(ctx, f, d) })
	if err != nil {
		// The digest is what was asked for; whoever pulls meets the rest again.
		c.cfg.Logger.Debug("platforms of an image are not known", "image", named.String(), "err", err)
		out.Platforms = nil
		if ctx.Err() == nil || out.Digest == "" {
			return out, nil
		}
	}
	return out, nil
}

// Platforms tells what an image was built for, from its index or its config. read gives
// the bytes of a manifest or config.
func Platforms(ctx context.Context, desc ocispec.Descriptor, read func(context.Context, ocispec.Descriptor) ([]byte, error)) ([]string, error) {
	b, err := read(ctx, desc)
	if err != nil {
		return nil, err
	}
	var m struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
		Config    ocispec.Descriptor   `json:"config"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", desc.Digest, err)
	}
	var out []string
	if images.IsIndexType(desc.MediaType) {
		for _, d := range m.Manifests {
			if p := d.Platform; p != nil && p.OS != "unknown" { // what is unknown vouches for another
				out = append(out, platformText(*p))
			}
		}
	} else if m.Config.Digest != "" {
		if b, err = read(ctx, m.Config); err != nil {
			return nil, err
		}
		var p ocispec.Platform
		if err := json.Unmarshal(b, &p); err != nil {
			return nil, fmt.Errorf("read config %s: %w", m.Config.Digest, err)
		}
		if p.OS != "" && p.Architecture != "" {
			out = append(out, platformText(p))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func platformText(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" && !(p.Architecture == "arm64" && p.Variant == "v8") { // v8 is what arm64 means
		s += "/" + p.Variant
	}
	return s
}

func fetch(ctx context.Context, f remotes.Fetcher, d ocispec.Descriptor) ([]byte, error) {
	rc, err := f.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, ManifestMax))
	if err != nil {
		return nil, err
	}
	if got := d.Digest.Algorithm().FromBytes(b); got != d.Digest {
		return nil, fmt.Errorf("%s has the digest %s", d.Digest, got)
	}
	return b, nil
}

// resolver gives each image an asker, which knows whom it is asking.
type resolver struct {
	client *Client
	logins []Login
	mu     sync.Mutex
	askers map[string]*asker // by reference: tokens are asked for once per image
	tried  map[string]int    // by reference: so many logins were refused
}

func (r *resolver) asker(ref string) (*asker, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return nil, &Error{Kind: ErrFaulty, text: fmt.Sprintf("image %q: %v", ref, err)}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.askers[ref]; a != nil {
		return a, nil
	}
	logins := withOnly(r.logins, reference.Domain(named), r.tried[ref])
	a := &asker{client: r.client, logins: logins, host: reference.Domain(named), image: reference.FamiliarString(named), sent: map[string]Login{}, notes: map[string]string{}}
	a.library = docker.NewResolver(docker.ResolverOptions{Hosts: a.cached(a.hosts)})
	if r.askers == nil {
		r.askers = map[string]*asker{}
	}
	r.askers[ref] = a
	return a, nil
}

// Resolve tries one login after the other where there are several for the registry: one of
// many who want the same image may have a wrong one, and is in nobody's way.
func (r *resolver) Resolve(ctx context.Context, ref string) (string, ocispec.Descriptor, error) {
	var first error
	for {
		a, err := r.asker(ref)
		if err != nil {
			return "", ocispec.Descriptor{}, err
		}
		ctx, s := withSeen(a.quiet(ctx))
		name, desc, err := a.library.Resolve(ctx, ref)
		if err = a.explain(ctx, err, s); err == nil {
			return name, desc, nil
		}
		first = cmp.Or(first, err)
		if !errors.Is(err, ErrDenied) || !r.another(ref, a.host) {
			return "", ocispec.Descriptor{}, first
		}
	}
}

// another goes on to the next login for a reference's registry; false: there is none.
func (r *resolver) another(ref, host string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tried[ref]+1 >= len(loginsFor(r.logins, host)) {
		return false
	}
	if r.tried == nil {
		r.tried = map[string]int{}
	}
	r.tried[ref]++
	delete(r.askers, ref)
	return true
}

func (r *resolver) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	a, err := r.asker(ref)
	if err != nil {
		return nil, err
	}
	f, err := a.library.Fetcher(a.quiet(ctx), ref)
	if err != nil {
		return nil, a.explain(ctx, err, &seen{})
	}
	return remotes.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		ctx, s := withSeen(a.quiet(ctx))
		rc, err := f.Fetch(ctx, d)
		if err != nil {
			return nil, a.explain(ctx, err, s)
		}
		return a.explained(ctx, rc, s), nil
	}), nil
}

func (r *resolver) Pusher(context.Context, string) (remotes.Pusher, error) {
	return nil, fmt.Errorf("push an image: orch only pulls")
}

// asker asks for one image.
type asker struct {
	client      *Client
	logins      []Login
	host, image string
	library     remotes.Resolver

	mu    sync.Mutex
	sent  map[string]Login  // what was given to which host
	notes map[string]string // why there was nothing to give
	list  map[string][]docker.RegistryHost
}

// cached keeps hosts, with their connections and tokens, for the image's layers.
func (a *asker) cached(find docker.RegistryHosts) docker.RegistryHosts {
	return func(host string) ([]docker.RegistryHost, error) {
		a.mu.Lock()
		list, ok := a.list[host]
		a.mu.Unlock()
		if ok {
			return list, nil
		}
		list, err := find(host)
		if err != nil {
			return nil, err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.list = map[string][]docker.RegistryHost{host: list}
		return list, nil
	}
}

// credentials is asked for a host that wants a login: the Secrets', then the node's.
func (a *asker) credentials(host string) (user, secret string, err error) {
	l, ok := loginFor(a.logins, host)
	if !ok {
		if l, ok, err = authFileLogin(context.Background(), a.client.cfg.AuthFile, host); err != nil {
			a.client.cfg.Logger.Warn("no login for a registry", "host", host, "err", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.notes[host] = err.Error()
	}
	if ok {
		a.sent[host] = l
	}
	return l.Username, l.Password, nil
}

// sentTo tells who we said to be. A token server's no is that of the registry it serves.
func (a *asker) sentTo(host string) (user string, sent bool, note string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l, sent := a.sent[host]
	if !sent && len(a.sent) == 1 {
		for _, l = range a.sent {
			sent = true
		}
	}
	for _, n := range a.notes {
		note = n
	}
	return orDefault(l.Username, "the identity token"), sent, note
}

func (a *asker) secrets() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, l := range append(slices.Clone(a.logins), slices.Collect(maps.Values(a.sent))...) {
		if l.Password != "" {
			out = append(out, l.Password)
		}
	}
	return out
}

// quiet keeps the library from logging by itself: it writes headers and addresses.
func (a *asker) quiet(ctx context.Context) context.Context {
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	return log.WithLogger(ctx, logrus.NewEntry(silent))
}

// explained gives a layer's read errors our words too.
func (a *asker) explained(ctx context.Context, rc io.ReadCloser, s *seen) io.ReadCloser {
	return &layer{ReadCloser: rc, say: func(err error) error { return a.explain(ctx, err, s) }}
}

type layer struct {
	io.ReadCloser
	say func(error) error
}

func (l *layer) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		err = l.say(err)
	}
	return n, err
}

// Seek lets what was fetched before stay: containerd goes on where it was.
func (l *layer) Seek(offset int64, whence int) (int64, error) {
	if s, ok := l.ReadCloser.(io.Seeker); ok {
		return s.Seek(offset, whence)
	}
	return 0, fmt.Errorf("go on within a layer: %w", io.ErrNoProgress)
}
