package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/session"
	"github.com/orchctl/orch/internal/controller/view"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// digestTimeout is how long a change waits for the digests of its images: as long
	// as one waits for an answer without wondering. Without them it goes on.
	digestTimeout = 3 * time.Second
	// digestsAtOnce is how many references are asked about at once: each has a relay
	// of its own, so that a slow registry holds up only its own.
	digestsAtOnce = 16
	// digestNodesMax is how many nodes are asked about one reference: an image that
	// was loaded by hand may be on some only.
	digestNodesMax = 3
	// digestFramesMax bounds what an agent may tell about one reference.
	digestFramesMax = 16
)

// digests are what references meant just now, and of which it is not known why.
type digests struct {
	known   map[string]string
	unknown map[string]string // reference to what is told of it
}

// warn tells with each changed service which of its images are not pinned. The
// answer is the leader's own: it is copied where it changes.
func (d digests) warn(result core.ApplyResult) core.ApplyResult {
	if len(d.unknown) == 0 {
		return result
	}
	out := core.ApplyResult{Applied: slices.Clone(result.Applied)}
	for i, a := range out.Applied {
		if a.Outcome == "unchanged" {
			continue
		}
		var t api.Template
		switch {
		case a.Service != nil:
			t = a.Service.Spec.Template
		case a.Job != nil:
			t = a.Job.Spec.Template
		}
		for _, ref := range references(t) {
			if why, ok := d.unknown[ref]; ok {
				out.Applied[i].Plan = append(slices.Clip(out.Applied[i].Plan), fmt.Sprintf("image %s: %s", ref, why))
			}
		}
	}
	return out
}

// references gives the template's images that have no digest, each once.
func references(t api.Template) []string {
	var out []string
	for _, c := range t.AllContainers() {
		if c.Image != "" && !strings.Contains(c.Image, "@") && !slices.Contains(out, c.Image) {
			out = append(out, c.Image)
		}
	}
	return out
}

// renewed gives the templates that differ from what the leader published: what does not
// makes no new revision, and a tag that moved means nothing for it. A job that is there
// keeps what it has.
func (s *Server) renewed(objects []api.Object) []api.Template {
	snap := s.cfg.View.Snapshot()
	var out []api.Template
	for _, want := range objects {
		t := templateOf(want)
		if t == nil {
			continue
		}
		if snap != nil {
			key := want.GetMetadata().Key()
			x, ok := snap.Get(core.ViewKey{Kind: want.ObjectKind(), Namespace: key.Namespace, Name: key.Name})
			if ok && (want.ObjectKind() == api.KindJob || sameJSON(templateOf(x), t)) {
				continue
			}
		}
		out = append(out, *t)
	}
	return out
}

// sameJSON compares as the store does: an empty list and none are one.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// digestsOf asks nodes what the templates' references mean. It fails in nothing: what
// cannot be told is told as unknown.
func (s *Server) digestsOf(ctx context.Context, templates []api.Template) digests {
	of := map[string]api.Template{} // who has the reference first
	var refs []string
	for _, t := range templates {
		for _, ref := range references(t) {
			if _, ok := of[ref]; !ok {
				of[ref] = t
				refs = append(refs, ref)
			}
		}
	}
	if len(refs) == 0 {
		return digests{}
	}
	found := digests{known: map[string]string{}, unknown: map[string]string{}}
	limited, cancel := context.WithTimeout(ctx, digestTimeout)
	defer cancel()
	snap := s.cfg.View.Snapshot()
	todo := make(chan string)
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range min(len(refs), digestsAtOnce) {
		workers.Go(func() {
			for ref := range todo {
				digest, why := s.digestOf(limited, ref, askable(snap, of[ref]))
				mu.Lock()
				if digest != "" {
					found.known[ref] = digest
				} else {
					found.unknown[ref] = why
				}
				mu.Unlock()
			}
		})
	}
	for _, ref := range refs {
		todo <- ref
	}
	close(todo)
	workers.Wait()
	return found
}

// digestOf asks one node after the other until one knows; what the first said of why
// it does not is told. That the time is over is nobody's fault: a node that was asked
// may wait for the registry itself.
func (s *Server) digestOf(ctx context.Context, ref string, nodes []string) (digest, why string) {
	var asked []string
	for _, node := range nodes {
		if len(asked) == digestNodesMax || ctx.Err() != nil {
			break
		}
		digest, err := s.digestOn(ctx, ref, node)
		if err == nil {
			return digest, ""
		}
		if !errors.Is(err, session.ErrAway) {
			asked = append(asked, node)
		}
		if ctx.Err() == nil {
			why = cmp.Or(why, err.Error())
		}
	}
	if why == "" && ctx.Err() != nil && len(asked) > 0 {
		return "", fmt.Sprintf("its digest could not be told within %s (asked %s): each node takes what it finds", digestTimeout, strings.Join(asked, ", "))
	}
	return "", fmt.Sprintf("it is not pinned to a digest, and each node takes what it finds: %s", cmp.Or(why, "no node could be asked"))
}

func (s *Server) digestOn(ctx context.Context, ref, node string) (string, error) {
	r, err := s.open(ctx, node, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Resolve{Resolve: &orchv1.ResolveOpen{Refs: []string{ref}}}})
	if err != nil {
		return "", err
	}
	defer r.Close()
	for range digestFramesMax {
		f, err := r.Recv()
		switch {
		case err != nil:
			return "", fmt.Errorf("node %s went away", node)
		case f.GetResolved() != nil && f.GetResolved().GetRef() == ref && isDigest(f.GetResolved().GetDigest()):
			return f.GetResolved().GetDigest(), nil
		case f.GetResolved() != nil:
			return "", fmt.Errorf("node %s: %s", node, cmp.Or(f.GetResolved().GetError(), "its agent answers without a digest"))
		case f.GetEnd() != nil:
			return "", fmt.Errorf("node %s: %s", node, cmp.Or(f.GetEnd().GetError(), "its agent has no answer"))
		}
	}
	return "", fmt.Errorf("node %s: its agent does not come to an answer", node)
}

// isDigest knows the one form that is pinned to: what an agent says is stored.
func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// askable gives the healthy nodes, those first that the template's replicas could be
// placed on.
func askable(snap *view.Snapshot, t api.Template) []string {
	if snap == nil {
		return nil
	}
	var fit, other []string
	snap.All(api.KindNode, "", func(e core.Entry) bool {
		n := e.Object.(*api.Node)
		switch {
		case n.Status.Verdict != api.VerdictHealthy || n.Status.Impaired != "":
		case !n.Spec.Unschedulable && mayTake(n.Metadata.Labels, t):
			fit = append(fit, n.Metadata.Name)
		default:
			other = append(other, n.Metadata.Name)
		}
		return true
	})
	return append(fit, other...)
}

func mayTake(labels map[string]string, t api.Template) bool {
	for k, v := range t.NodeSelector {
		if labels[k] != v {
			return false
		}
	}
	return api.Selector(t.Constraints).Matches(labels)
}
