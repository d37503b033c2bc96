package agent

import (
	"errors"
	"fmt"
	"strings"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/registry"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// logins gives what Secrets of type registry hold, and says of each that is of no use why
// not: it is not here, or holds no login. Whether any is missed shows when a registry says
// no.
func (c *configs) logins(incarnation string, keys []wire.ConfigKey) (out []registry.Login, without []string) {
	for _, k := range keys {
		values, ok := c.of(incarnation, k)
		if !ok {
			without = append(without, fmt.Sprintf("%s is not on this node yet: it comes with the next session", k.Of()))
			continue
		}
		logins, err := registry.LoginsOf(values)
		if err != nil {
			without = append(without, fmt.Sprintf("%s is no login: %v", k.Of(), err))
			continue
		}
		out = append(out, logins...)
	}
	return out, without
}

// withoutLogin is failure for an image; it says first what login was missing where the
// registry wanted one.
func withoutLogin(err error, without []string) *plan.Failure {
	f := failure(err, api.ReasonImageError)
	if f != nil && len(without) > 0 && errors.Is(err, registry.ErrDenied) {
		f.Reason = api.ReasonConfigMissing
		f.Message = strings.Join(without, "; ") + "; " + f.Message
	}
	return f
}

func loginsFromPB(list []*orchv1.RegistryLogin) []registry.Login {
	var out []registry.Login
	for _, l := range list {
		out = append(out, registry.Login{Server: l.GetServer(), Username: l.GetUsername(), Password: l.GetPassword()})
	}
	return out
}
