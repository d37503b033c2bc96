package api

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/images"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// LoadImage implements orch.v1.Orch: the archive is kept, then brought to every
// node that is there; others get it when they come.
func (s *Server) LoadImage(st orchv1.Orch_LoadImageServer) error {
	img, err := s.cfg.Images.Shelf.Add(&upload{stream: st}, time.Now())
	if errors.Is(err, images.ErrTooLarge) {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	if err != nil {
		return statusOf(err)
	}
	if img.Size == 0 {
		s.cfg.Images.Shelf.Remove(img)
		return invalid("the image archive is empty")
	}
	s.cfg.Log.Info("image kept", "image", img.Digest, "bytes", img.Size, "by", callerName(st.Context()))
	progress := make(chan *orchv1.LoadImageProgress)
	done := make(chan spread, 1)
	ctx, cancel := context.WithCancel(st.Context())
	go func() { done <- s.spread(ctx, img, progress) }()
	for {
		select {
		case p := <-progress:
			if err := st.Send(p); err != nil {
				cancel()
				<-done
				return err
			}
		case d := <-done:
			cancel()
			// An archive that no node can read must not be offered for ever.
			if d.refused > 0 && d.loaded == 0 {
				s.cfg.Images.Shelf.Remove(img)
			}
			return statusOf(st.Context().Err())
		}
	}
}

// spread is what became of an image.
type spread struct{ loaded, refused int }

func (s *Server) spread(ctx context.Context, img images.Image, progress chan<- *orchv1.LoadImageProgress) (sum spread) {
	tell := func(p *orchv1.LoadImageProgress) {
		select {
		case progress <- p:
		case <-ctx.Done():
		}
	}
	nodes := s.cfg.Nodes.Nodes()
	for _, name := range s.away() {
		if nodes[name] == nil {
			tell(&orchv1.LoadImageProgress{Node: name, State: "failed", Message: "away; it gets the image when it comes back"})
		}
	}
	var mu sync.Mutex
	var sends sync.WaitGroup
	for name, cert := range nodes {
		sends.Go(func() {
			tell(&orchv1.LoadImageProgress{Node: name, State: "sending"})
			refs, err := s.cfg.Images.Deliver(ctx, name, cert, img)
			mu.Lock()
			if err == nil {
				sum.loaded++
			} else if errors.Is(err, images.ErrRefusedByAgent) {
				sum.refused++
			}
			mu.Unlock()
			if err != nil {
				tell(&orchv1.LoadImageProgress{Node: name, State: "failed", Message: err.Error()})
				return
			}
			tell(&orchv1.LoadImageProgress{Node: name, State: "loaded", Refs: refs})
		})
	}
	sends.Wait()
	return sum
}

// away are the nodes that may lack a session; dead ones are not waited for.
func (s *Server) away() []string {
	var names []string
	if snap := s.cfg.View.Snapshot(); snap != nil {
		snap.All(api.KindNode, "", func(e core.Entry) bool {
			if n := e.Object.(*api.Node); n.Status.Verdict != api.VerdictDead {
				names = append(names, n.Metadata.Name)
			}
			return true
		})
	}
	return slices.Clip(names)
}

// upload reads an archive from its stream of messages.
type upload struct {
	stream orchv1.Orch_LoadImageServer
	rest   []byte
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	for len(u.rest) == 0 {
		m, err := u.stream.Recv()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, err
		}
		u.rest = m.GetData()
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}
