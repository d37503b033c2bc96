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
	"github.com/orchctl/orch/internal/registry"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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
	// warned is what else is to be told of a reference.
	warned map[string]string
	// refused: something cannot be applied without a registry's word.
	refused error
}

// warn tells with each changed service which of its images are not pinned, or will run
// nowhere. The answer is the leader's own: it is copied where it changes.
func (d digests) warn(result core.ApplyResult) core.ApplyResult {
	if len(d.unknown)+len(d.warned) == 0 {
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
			for _, why := range []string{d.unknown[ref], d.warned[ref]} {
				if why != "" {
					out.Applied[i].Plan = append(slices.Clip(out.Applied[i].Plan), fmt.Sprintf("image %s: %s", ref, why))
				}
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

// templated is a template with whose it is.
type templated struct {
	api.Template
	of api.Ref
}

// renewed gives the templates that differ from what the leader published: what does not
// makes no new revision, and a tag that moved means nothing for it. A job that is there
// keeps what it has.
func (s *Server) renewed(objects []api.Object) []templated {
	snap := s.cfg.View.Snapshot()
	var out []templated
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
		out = append(out, templated{*t, refTo(want)})
	}
	return out
}

// sameJSON compares as the store does: an empty list and none are one.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// question is one reference of what is applied, with all who have it.
type question struct {
	ref string
	// first has it, policy is the one of all that asks for most.
	first  templated
	policy api.PullPolicy
	logins []registry.Login
	// loaded: an operator brought an image of that name, which it means wherever it is.
	loaded bool
}

// more tells whether a policy asks for more than another: always wants the registry's
// word, never is content with a node's.
func more(a, b api.PullPolicy) bool {
	rank := map[api.PullPolicy]int{api.PullNever: 0, "": 1, api.PullIfNotPresent: 1, api.PullAlways: 2}
	return rank[a] > rank[b]
}

// questions gives each reference once.
func (s *Server) questions(ctx context.Context, templates []templated, applied []*api.Config) []*question {
	of := map[string]*question{}
	var out []*question
	for _, t := range templates {
		refs := references(t.Template)
		if len(refs) == 0 {
			continue
		}
		logins := s.loginsOf(ctx, t.of.Namespace, t.PullSecrets, applied)
		for _, ref := range refs {
			q := of[ref]
			if q == nil {
				q = &question{ref: ref, first: t, policy: api.PullNever}
				of[ref] = q
				out = append(out, q)
			}
			for _, c := range t.AllContainers() {
				if c.Image == ref && more(c.PullPolicy, q.policy) {
					q.policy = c.PullPolicy
				}
			}
			for _, l := range logins {
				if registry.Host(l.Server) == hostOf(ref) { // others are nobody's business
					q.logins = append(q.logins, l)
				}
			}
		}
	}
	return out
}

// digestsOf asks what the templates' references mean: the registries, and nodes. applied
// are Secrets that come with them. What cannot be told is told as unknown, but where a
// registry's word is what counts.
func (s *Server) digestsOf(ctx context.Context, templates []templated, applied []*api.Config) digests {
	questions := s.questions(ctx, templates, applied)
	if len(questions) == 0 {
		return digests{}
	}
	found := digests{known: map[string]string{}, unknown: map[string]string{}, warned: map[string]string{}}
	limited, cancel := context.WithTimeout(ctx, digestTimeout)
	defer cancel()
	snap := s.cfg.View.Snapshot()
	todo := make(chan *question)
	refused := make([]error, len(questions))
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range min(len(questions), digestsAtOnce) {
		workers.Go(func() {
			for q := range todo {
				a := s.answer(limited, q, snap)
				mu.Lock()
				switch {
				case a.digest != "":
					found.known[q.ref] = a.digest
				case a.refused != nil:
					refused[slices.Index(questions, q)] = a.refused
				default:
					found.unknown[q.ref] = a.why
				}
				if a.warning != "" {
					found.warned[q.ref] = a.warning
				}
				mu.Unlock()
			}
		})
	}
	for _, q := range questions {
		todo <- q
	}
	close(todo)
	workers.Wait()
	for _, err := range refused {
		found.refused = cmp.Or(found.refused, err)
	}
	return found
}

// answered is what became of a question; one of digest, why and refused is set.
type answered struct {
	digest, why, warning string
	refused              error
}

// answer asks whoever has to be asked. What an operator loaded is on nodes, and the
// registry is not asked for it; what always is to be asked for there, is.
func (s *Server) answer(ctx context.Context, q *question, snap *view.Snapshot) answered {
	var no error // the registry's
	q.loaded = q.policy != api.PullAlways && s.isLoaded(q.ref)
	if q.policy != api.PullNever && !q.loaded {
		resolved, err := s.askRegistry(ctx, q)
		if err == nil {
			return answered{digest: resolved.Digest, warning: s.misfit(snap, q, resolved.Platforms)}
		}
		no = err
		if q.policy == api.PullAlways && !errors.Is(err, registry.ErrUnreachable) {
			return answered{refused: s.mustKnow(q, err.Error())}
		}
	}
	digest, why, asked := s.askNodes(ctx, q, snap)
	switch {
	case digest != "":
		return answered{digest: digest}
	case q.policy == api.PullAlways:
		if len(asked) > 0 && why != "" {
			return answered{refused: s.mustKnow(q, why)}
		}
		return answered{refused: s.mustKnow(q, cmp.Or(words(no), "neither the controller nor a node could ask its registry, and the controller tries again only after a minute"))}
	case ctx.Err() != nil && why == "" && len(asked) > 0:
		return answered{why: fmt.Sprintf("its digest could not be told within %s (asked %s): %s", digestTimeout, strings.Join(asked, ", "), firstTells)}
	}
	if why == "" || no != nil && !errors.Is(no, registry.ErrUnreachable) { // what the registry itself says, says more
		why = cmp.Or(words(no), why, "no node could be asked")
	}
	return answered{why: "it is not pinned to a digest, and " + firstTells + ": " + why}
}

// firstTells is what happens where nobody could tell.
const firstTells = "what the first replica finds holds for all"

func words(err error) string {
	if err == nil || errors.Is(err, errNotAsked) {
		return ""
	}
	return err.Error()
}

func (s *Server) mustKnow(q *question, why string) error {
	hint := ""
	if s.isLoaded(q.ref) {
		hint = "; for what was loaded say pullPolicy: ifNotPresent"
	}
	return status.Error(codes.FailedPrecondition, fmt.Sprintf("%s: image %s has pullPolicy: always, and its registry cannot tell what it means now: %s; nothing was applied%s", q.first.of, q.ref, why, hint))
}

// askNodes asks one node after the other until one knows; what the first said of why
// it does not is told. That the time is over is nobody's fault: a node that was asked
// may wait for the registry itself. Logins go only to nodes that a replica could be on.
func (s *Server) askNodes(ctx context.Context, q *question, snap *view.Snapshot) (digest, why string, asked []string) {
	fit, other := askable(snap, q.first.Template)
	for i, node := range slices.Concat(fit, other) {
		if len(asked) == digestNodesMax || ctx.Err() != nil {
			break
		}
		open := &orchv1.ResolveOpen{Refs: []string{q.ref}, Registry: q.policy == api.PullAlways, Never: q.policy == api.PullNever || q.loaded}
		if i < len(fit) && !open.Never {
			open.Logins = loginsToPB(q.logins)
		}
		digest, err := s.digestOn(ctx, open, node)
		if err == nil {
			return digest, "", append(asked, node)
		}
		if !errors.Is(err, session.ErrAway) {
			asked = append(asked, node)
		}
		if ctx.Err() == nil {
			why = cmp.Or(why, err.Error())
		}
	}
	return "", why, asked
}

func (s *Server) digestOn(ctx context.Context, open *orchv1.ResolveOpen, node string) (string, error) {
	ref := open.GetRefs()[0]
	r, err := s.open(ctx, node, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Resolve{Resolve: open}})
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

// askable gives the healthy nodes: those that the template's replicas could be placed on,
// and the others.
func askable(snap *view.Snapshot, t api.Template) (fit, other []string) {
	if snap == nil {
		return nil, nil
	}
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
	return fit, other
}

func mayTake(labels map[string]string, t api.Template) bool {
	for k, v := range t.NodeSelector {
		if labels[k] != v {
			return false
		}
	}
	return api.Selector(t.Constraints).Matches(labels)
}
