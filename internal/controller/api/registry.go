package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/registry"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// registryTimeout is how long a registry may take to say what a tag means. Nodes are
	// asked afterwards, within digestTimeout.
	registryTimeout = time.Second
	// silentFor is how long a registry that could not be asked is not asked again: a
	// controller without a way out would make every apply a second longer.
	silentFor = time.Minute
)

// Registry tells what references mean; see registry.Client.
type Registry interface {
	Resolve(ctx context.Context, ref string, logins []registry.Login) (registry.Resolved, error)
}

// silent remembers registries that could not be asked.
type silent struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (x *silent) is(host string, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return now.Before(x.until[host])
}

func (x *silent) note(host string, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.until == nil {
		x.until = map[string]time.Time{}
	}
	for h, at := range x.until { // what is over is nobody's any more
		if now.After(at) {
			delete(x.until, h)
		}
	}
	x.until[host] = now.Add(silentFor)
}

// errNotAsked: the controller knows no registries, or not this one for now.
var errNotAsked = fmt.Errorf("%w from the controller", registry.ErrUnreachable)

// askRegistry asks the registry itself, from here. An error wraps one of the registry
// package's kinds.
func (s *Server) askRegistry(ctx context.Context, q *question) (registry.Resolved, error) {
	host := hostOf(q.ref)
	if s.cfg.Registry == nil || s.silent.is(host, time.Now()) {
		return registry.Resolved{}, errNotAsked
	}
	limited, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	r, err := s.cfg.Registry.Resolve(limited, q.ref, q.logins)
	switch {
	case err == nil && isDigest(r.Digest):
		return r, nil
	case err == nil:
		return r, fmt.Errorf("%w: registry %s tells %.80q, which is not pinned to: sha256 is", registry.ErrFaulty, host, r.Digest)
	case ctx.Err() != nil:
		return r, fmt.Errorf("%w: %w", registry.ErrUnreachable, ctx.Err())
	case limited.Err() != nil:
		err = fmt.Errorf("%w: registry %s did not answer the controller within %s", registry.ErrUnreachable, host, registryTimeout)
	}
	if errors.Is(err, registry.ErrUnreachable) {
		s.silent.note(host, time.Now())
	}
	return r, err
}

// hostOf gives the registry of a reference, in the spelling of registry.Host; "" for what
// is none.
func hostOf(ref string) string {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return ""
	}
	return registry.Host(reference.Domain(named))
}

// isLoaded tells whether an operator brought an image of that name.
func (s *Server) isLoaded(ref string) bool {
	return s.cfg.Images != nil && s.cfg.Images.Shelf.Has(ref)
}

// loginsOf opens pull secrets: those that are being applied, else the newest versions. What
// cannot be read is left out: the leader refuses what is not there, and a registry that
// wants a login says so.
func (s *Server) loginsOf(ctx context.Context, namespace string, names []string, applied []*api.Config) []registry.Login {
	var out []registry.Login
	for _, name := range names {
		ref := api.Ref{Kind: api.KindSecret, Key: api.Key{Namespace: namespace, Name: name}}
		var values map[string][]byte
		if i := slices.IndexFunc(applied, func(c *api.Config) bool { return refTo(c) == ref }); i >= 0 {
			values = valuesIn(applied[i])
		} else {
			var err error
			if values, err = s.valuesOf(ctx, ref); err != nil {
				s.cfg.Log.Warn("a pull secret cannot be read", "secret", ref.String(), "error", err)
				continue
			}
		}
		if values == nil {
			continue
		}
		logins, err := registry.LoginsOf(values)
		if err != nil {
			s.cfg.Log.Warn("a pull secret is no login", "secret", ref.String(), "error", err)
			continue
		}
		out = append(out, logins...)
	}
	return out
}

func loginsToPB(logins []registry.Login) []*orchv1.RegistryLogin {
	var out []*orchv1.RegistryLogin
	for _, l := range logins {
		out = append(out, &orchv1.RegistryLogin{Server: l.Server, Username: l.Username, Password: l.Password})
	}
	return out
}

// Labels that agents give their nodes.
const (
	labelOS   = "orch/os"
	labelArch = "orch/arch"
)

// misfit says that none of the nodes that replicas could be on can run an image; "" where
// one can, or it is not known. Old agents may not say what their nodes are.
func (s *Server) misfit(snap *view.Snapshot, q *question, platforms []string) string {
	if snap == nil || len(platforms) == 0 {
		return ""
	}
	fit, _ := askable(snap, q.first.Template)
	var have []string
	for _, name := range fit {
		x, ok := snap.Get(core.ViewKey{Kind: api.KindNode, Name: name})
		if !ok {
			return ""
		}
		labels := x.(*api.Node).Metadata.Labels
		own := cmp.Or(labels[labelOS], "linux") + "/" + labels[labelArch]
		if labels[labelArch] == "" || slices.ContainsFunc(platforms, func(p string) bool { return p == own || strings.HasPrefix(p, own+"/") }) {
			return ""
		}
		if !slices.Contains(have, own) {
			have = append(have, own)
		}
	}
	if len(have) == 0 {
		return ""
	}
	return fmt.Sprintf("it is built for %s, and the nodes that its replicas may be on are %s: none can run it", strings.Join(platforms, ", "), strings.Join(have, ", "))
}
