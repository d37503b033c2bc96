package agent

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/session"
	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// resolveMax is how many references are asked about at once: one per container.
	resolveMax = 3 * api.MaxContainers
	// resolvesAtOnce: a registry is asked once for each.
	resolvesAtOnce = 8
	// resolveWithin is how long a registry may take; who asks waits less.
	resolveWithin = 10 * time.Second
)

// relayResolve tells which digests image references mean, as this node finds them.
func (d *driver) relayResolve(ctx context.Context, req *orchv1.ResolveOpen, r session.Relay) *orchv1.End {
	refs := req.GetRefs()
	if len(refs) > resolveMax {
		return failed(fmt.Errorf("resolve %d images: at most %d at once", len(refs), resolveMax))
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(resolvesAtOnce)
	out := &frameWriter{r: r}
	for _, ref := range refs {
		g.Go(func() error {
			answer := &orchv1.ResolvedImage{Ref: ref}
			digest, err := d.cfg.Runtime.Resolve(ctx, ctrd.ImageWant{Ref: ref, Registry: req.GetRegistry(), Never: req.GetNever(), Logins: loginsFromPB(req.GetLogins())})
			if err != nil {
				answer.Error = err.Error()
			} else {
				answer.Digest = digest
			}
			return out.send(&orchv1.Frame{Frame: &orchv1.Frame_Resolved{Resolved: answer}})
		})
	}
	if err := g.Wait(); err != nil {
		return failed(err)
	}
	return &orchv1.End{}
}
