package controller

import (
	"context"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/secrets"
	"github.com/orchctl/orch/internal/wire"
)

// unreadMax is how many secrets that cannot be read are logged at the start of a term:
// with all of them the rest of the log would not be found.
const unreadMax = 20

// openConfig gives the values that a node needs.
func (c *Controller) openConfig(v wire.ConfigVersion) (map[string][]byte, error) {
	plain := v.Payload
	if v.Ref.Kind() == api.KindSecret {
		var err error
		if plain, err = c.cfg.Secrets.Open(v.Of().Key, plain); err != nil {
			return nil, err
		}
		defer clear(plain)
	}
	return secrets.Decode(plain)
}

// warnOfKeys tells of secrets whose key the key file does not have. The term goes on:
// what runs has its values, and everything else needs none.
func (c *Controller) warnOfKeys(ctx context.Context, t *term) {
	wait, err := t.submit(ctx, func(ticket uint64) core.Event {
		return core.ListSealed{Ticket: ticket, Except: c.cfg.Secrets.Newest()}
	})
	if err != nil {
		return // the term is over
	}
	a, err := wait(ctx)
	if err != nil {
		return
	}
	list, _ := a.Value.([]core.Sealed)
	known := c.cfg.Secrets.IDs()
	unread := slices.DeleteFunc(slices.Clone(list), func(x core.Sealed) bool { return slices.Contains(known, x.SealedBy) })
	if len(unread) == 0 {
		return
	}
	for _, x := range unread[:min(len(unread), unreadMax)] {
		c.cfg.Log.Error("a secret cannot be read: its key is not in the key file", "secret", x.Version.String(), "key", x.SealedBy)
	}
	c.cfg.Log.Error("secrets cannot be sent to nodes, and what needs them does not start: put the key file that the store was used with back, or append its keys to the file that is there, and start the controller again; or apply these secrets anew",
		"versions", len(unread), "file", c.cfg.Secrets.Path())
}
