package api

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/secrets"
)

// changes makes what the leader is told of Configs and Secrets.
func (s *Server) changes(configs []*api.Config) ([]core.ConfigChange, error) {
	var out []core.ConfigChange
	for _, c := range configs {
		plain, keys, err := secrets.Encode(c)
		if err != nil {
			return nil, invalid("apply %s: %v", refTo(c), err)
		}
		x := core.ConfigChange{Kind: c.ObjectKind(), Metadata: c.Metadata, Type: c.Type, Keys: keys, Payload: plain}
		if !isSecret(c) {
			x.Digest = secrets.DigestPlain(plain)
			out = append(out, x)
			continue
		}
		sealed, err := s.cfg.Secrets.Seal(c.Metadata.Key(), plain)
		clear(plain)
		if err != nil {
			return nil, statusOf(err)
		}
		x.Payload, x.SealedBy, x.Digest = sealed.Payload, sealed.By, sealed.Digest
		out = append(out, x)
	}
	return out, nil
}

// refTo names an object that is applied.
func refTo(o api.Object) api.Ref {
	return api.Ref{Kind: o.ObjectKind(), Key: o.GetMetadata().Key()}
}

// differences says of each Config and Secret that is there already which keys an apply
// would change, without a word of their values.
func (s *Server) differences(ctx context.Context, configs []*api.Config) map[api.Ref][]string {
	out := map[api.Ref][]string{}
	for _, c := range configs {
		ref := refTo(c)
		have, err := s.valuesOf(ctx, ref)
		switch {
		case err != nil:
			out[ref] = []string{fmt.Sprintf("its present values cannot be compared: %v", err)}
		case have != nil:
			out[ref] = differ(have, valuesIn(c))
		}
	}
	return out
}

// valuesIn gives the values that were declared.
func valuesIn(c *api.Config) map[string][]byte {
	out := make(map[string][]byte, len(c.Data)+len(c.BinaryData))
	for k, v := range c.Data {
		out[k] = []byte(v)
	}
	maps.Copy(out, c.BinaryData)
	return out
}

// valuesOf gives the newest version's values; nil where there is no such object.
func (s *Server) valuesOf(ctx context.Context, ref api.Ref) (map[string][]byte, error) {
	if ref.Kind == api.KindConfig {
		snap, err := s.snapshot()
		if err != nil {
			return nil, err
		}
		if x, ok := snap.Get(core.ViewKey{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}); ok {
			return valuesIn(x.(*api.Config)), nil
		}
		return nil, nil
	}
	versions, _, err := ask[[]core.Sealed](ctx, s, func(ticket uint64) core.Event {
		return core.ListSealed{Ticket: ticket, Of: ref.Key}
	})
	if err != nil || len(versions) == 0 {
		return nil, err
	}
	newest := slices.MaxFunc(versions, func(a, b core.Sealed) int { return cmp.Compare(a.Version.Version, b.Version.Version) })
	plain, err := s.cfg.Secrets.Open(ref.Key, newest.Payload)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return secrets.Decode(plain)
}

// differ tells what is not the same, by key.
func differ(have, want map[string][]byte) []string {
	all := maps.Clone(have)
	maps.Copy(all, want)
	var out []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		old, had := have[key]
		now, has := want[key]
		switch {
		case !had:
			out = append(out, fmt.Sprintf("key %s is new", key))
		case !has:
			out = append(out, fmt.Sprintf("key %s goes", key))
		case string(old) != string(now):
			out = append(out, fmt.Sprintf("key %s changes", key))
		}
	}
	return out
}

// withoutValues is what is shown of a Config: of a Secret nothing that it keeps, whoever
// forgot to leave it out.
func withoutValues(v any) any {
	c, ok := v.(*api.Config)
	if !ok || !isSecret(c) || c.Data == nil && c.BinaryData == nil {
		return v
	}
	bare := *c
	bare.Data, bare.BinaryData = nil, nil
	return &bare
}

// shownOnly tells a Secret that was read from here and is applied as it was shown: it
// would lose its values.
func shownOnly(c *api.Config) bool {
	return isSecret(c) && len(c.Data)+len(c.BinaryData) == 0 && len(c.Status.Keys) > 0
}

func keysShown(c *api.Config) string {
	return strings.Join(slices.Sorted(maps.Keys(c.Status.Keys)), ", ")
}
