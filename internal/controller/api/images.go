package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/session"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/registry"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// imagesTimeout is how long one node may take to tell its images, or to remove one: a
	// busy disk takes seconds for hundreds of layers.
	imagesTimeout = 15 * time.Second
	// imagePullTimeout is how long one node may take to fetch one: a little more than
	// agents give a pull, which say what went wrong.
	imagePullTimeout = 31 * time.Minute
	// imagesAtOnce is how many nodes are asked at once.
	imagesAtOnce = 256
)

// ListImages implements orch.v1.Orch: one message of each node, also of those that cannot
// be asked, as they come.
func (s *Server) ListImages(r *orchv1.ListImagesRequest, st orchv1.Orch_ListImagesServer) error {
	return onNodes(s, r.GetNodes(), st, func(ctx context.Context, node string, tell func(*orchv1.NodeImages)) {
		limited, cancel := context.WithTimeout(ctx, imagesTimeout)
		defer cancel()
		var got *orchv1.NodeImages
		err := s.frames(limited, node, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Images{Images: &orchv1.ImagesOpen{}}}, func(f *orchv1.Frame) {
			got = cmp.Or(f.GetImages(), got)
		})
		if err == nil && got == nil {
			err = errors.New("its agent has no answer")
		}
		if err != nil {
			tell(&orchv1.NodeImages{Node: node, Error: s.unanswered(ctx, limited, node, imagesTimeout, err)})
			return
		}
		got.Node, got.Error = node, "" // an agent speaks for itself alone
		tell(got)
	})
}

// RemoveImage implements orch.v1.Orch. What is to go from all nodes goes off the shelf
// first, or it would be brought back.
func (s *Server) RemoveImage(r *orchv1.RemoveImageRequest, st orchv1.Orch_RemoveImageServer) error {
	ref := r.GetRef()
	if err := checkImage(ref, true); err != nil {
		return err
	}
	if len(r.GetNodes()) == 0 && s.cfg.Images != nil {
		gone, kept, err := s.cfg.Images.Shelf.Drop(ref)
		if err != nil {
			return statusOf(err)
		}
		if gone+kept > 0 {
			s.cfg.Log.Info("image taken off the shelf", "image", ref, "archives", gone, "by", callerName(st.Context()))
		}
	}
	return onNodes(s, r.GetNodes(), st, func(ctx context.Context, node string, tell func(*orchv1.ImageProgress)) {
		open := &orchv1.OpenRelay{Request: &orchv1.OpenRelay_ImageRemove{ImageRemove: &orchv1.ImageRemoveOpen{Ref: ref, Force: r.GetForce()}}}
		s.progressOf(ctx, node, imagesTimeout, open, tell)
	})
}

// PullImage implements orch.v1.Orch.
func (s *Server) PullImage(r *orchv1.PullImageRequest, st orchv1.Orch_PullImageServer) error {
	ref := r.GetRef()
	if err := checkImage(ref, false); err != nil {
		return err
	}
	namespace := cmp.Or(r.GetNamespace(), api.DefaultNamespace)
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	if len(r.GetPullSecrets()) > api.MaxPullSecrets {
		return invalid("pull image %s: %d pull secrets, at most %d", ref, len(r.GetPullSecrets()), api.MaxPullSecrets)
	}
	for _, name := range r.GetPullSecrets() {
		if err := isLogin(snap, api.Key{Namespace: namespace, Name: name}); err != nil {
			return err
		}
	}
	logins := slices.DeleteFunc(s.loginsOf(st.Context(), namespace, r.GetPullSecrets(), nil), func(l registry.Login) bool { return registry.Host(l.Server) != hostOf(ref) })
	if len(r.GetPullSecrets()) > 0 && len(logins) == 0 {
		return invalid("pull image %s: none of the pull secrets (%s) has a login to %s", ref, strings.Join(r.GetPullSecrets(), ", "), hostOf(ref))
	}
	return onNodes(s, r.GetNodes(), st, func(ctx context.Context, node string, tell func(*orchv1.ImageProgress)) {
		open := &orchv1.OpenRelay{Request: &orchv1.OpenRelay_ImagePull{ImagePull: &orchv1.ImagePullOpen{Ref: ref, Logins: loginsToPB(logins)}}}
		s.progressOf(ctx, node, imagePullTimeout, open, tell)
	})
}

// isLogin refuses a pull secret that is none.
func isLogin(snap *view.Snapshot, key api.Key) error {
	x, ok := snap.Get(core.ViewKey{Kind: api.KindSecret, Namespace: key.Namespace, Name: key.Name})
	if !ok {
		return notFound("secret %s: not found", key)
	}
	if x.(*api.Config).Type != api.SecretRegistry {
		return invalid("secret %s is not of type %s, and so no login: make one with orchctl create secret registry", key, api.SecretRegistry)
	}
	return nil
}

// checkImage refuses what names no image. A digest alone names one on nodes.
func checkImage(ref string, bare bool) error {
	_, err := digest.Parse(ref)
	isBare := err == nil // which would pass for an image named sha256, too
	if isBare && bare {
		return nil
	}
	if _, err := reference.ParseDockerRef(ref); err != nil || isBare || len(ref) > 512 {
		return invalid("%.80q is no image: want [registry/]name[:tag][@sha256:digest]", ref)
	}
	return nil
}

// progressOf asks one node for something that it tells the progress of, and sees to it
// that the last word is done, kept or failed.
func (s *Server) progressOf(ctx context.Context, node string, within time.Duration, open *orchv1.OpenRelay, tell func(*orchv1.ImageProgress)) {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	over := false
	err := s.frames(limited, node, open, func(f *orchv1.Frame) {
		if p := f.GetImageProgress(); p != nil && !over {
			p.Node = node
			over = slices.Contains([]string{"done", "kept", "failed"}, p.GetState())
			tell(p)
		}
	})
	switch {
	case over:
	case err == nil:
		err = errors.New("its agent does not come to an answer")
		fallthrough
	default:
		tell(&orchv1.ImageProgress{Node: node, State: "failed", Message: s.unanswered(ctx, limited, node, within, err)})
	}
}

// frames passes on what an agent says until it has said all.
func (s *Server) frames(ctx context.Context, node string, open *orchv1.OpenRelay, each func(*orchv1.Frame)) error {
	r, err := s.open(ctx, node, open)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		f, err := r.Recv()
		if err != nil {
			return errors.New("not reachable any more: its session ended while it was asked")
		}
		if end := f.GetEnd(); end != nil {
			if end.GetError() != "" {
				return errors.New(end.GetError())
			}
			return nil
		}
		each(f)
	}
}

// unanswered says why a node has no answer. ctx is the caller's, limited this node's.
func (s *Server) unanswered(ctx, limited context.Context, node string, within time.Duration, err error) string {
	switch {
	case limited.Err() != nil && ctx.Err() == nil:
		return fmt.Sprintf("no answer within %s: its agent may be stuck, its log tells more", within)
	case errors.Is(err, session.ErrAway):
		return "not reachable: " + awayWhy(s.cfg.View.Snapshot(), node, err)
	}
	return err.Error()
}

// onNodes does something on all nodes that are named, or on all, at once, and sends what
// is told. When the caller has gone it still waits for all to end.
func onNodes[T any](s *Server, named []string, st interface {
	Send(*T) error
	Context() context.Context
}, do func(ctx context.Context, node string, tell func(*T))) error {
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	nodes, err := nodesNamed(snap, named)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(st.Context())
	defer cancel()
	results := make(chan *T)
	go func() {
		defer close(results)
		each(nodes, imagesAtOnce, func(node string) {
			if ctx.Err() == nil {
				do(ctx, node, func(x *T) { results <- x })
			}
		})
	}()
	for x := range results {
		if err == nil {
			if err = st.Send(x); err != nil {
				cancel() // and read on, until all have ended
			}
		}
	}
	return cmp.Or(err, statusOf(st.Context().Err()))
}
