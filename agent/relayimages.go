package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/images"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/session"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// How far an image is on a node; see ImageProgress.
const (
	imageWaiting = "waiting"
	imagePulling = "pulling"
	imageDone    = "done"
	imageKept    = "kept"
	imageFailed  = "failed"
)

// relayImages tells which images the node has, and why each is kept.
func (d *driver) relayImages(ctx context.Context, r session.Relay) *orchv1.End {
	st, err := d.shelf.state(ctx)
	if err != nil {
		return failed(fmt.Errorf("list images on %s: %w", d.cfg.Name, err))
	}
	out := &orchv1.NodeImages{Node: d.cfg.Name, DiskBytes: st.Disk.Size, DiskFreeBytes: st.Disk.Free}
	for _, i := range st.Images {
		x := &orchv1.NodeImage{Refs: slices.Concat(i.Refs, i.Tags), Digest: i.Digest, Size: i.Size, Created: timestamppb.New(i.Created), Keep: st.Keep(i)}
		if used, ok := st.Book.Used(i.Digest); ok {
			x.Used = timestamppb.New(used)
		}
		if x.Keep == "" && i.Origin == images.Loaded {
			x.Keep = "loaded"
		}
		out.Images = append(out.Images, x)
	}
	if err := r.Send(&orchv1.Frame{Frame: &orchv1.Frame_Images{Images: out}}); err != nil {
		return failed(err)
	}
	return &orchv1.End{}
}

// relayImageRemove removes an image by one of its names, or by its digest with all of them.
func (d *driver) relayImageRemove(ctx context.Context, req *orchv1.ImageRemoveOpen, r session.Relay) *orchv1.End {
	p, err := d.removeImage(ctx, req.GetRef(), req.GetForce())
	if err != nil {
		p = &orchv1.ImageProgress{State: imageFailed, Message: err.Error()}
	}
	p.Node = d.cfg.Name
	if err := r.Send(&orchv1.Frame{Frame: &orchv1.Frame_ImageProgress{ImageProgress: p}}); err != nil {
		return failed(err)
	}
	return &orchv1.End{}
}

func (d *driver) removeImage(ctx context.Context, ref string, force bool) (*orchv1.ImageProgress, error) {
	st, err := d.shelf.state(ctx)
	if err != nil {
		return nil, err
	}
	i, ok := images.Find(st.Images, ref)
	if !ok {
		return &orchv1.ImageProgress{State: imageDone, Message: "it is not there"}, nil
	}
	kept := func(why string) (*orchv1.ImageProgress, error) {
		return &orchv1.ImageProgress{State: imageKept, Message: why, Digest: i.Digest}, nil
	}
	if why := st.Needed(i); why != "" {
		return kept(why)
	}
	if why := st.Keep(i); why != "" && !force {
		return kept(why + "; --force removes it")
	}
	if strings.HasPrefix(ref, "sha256:") || strings.Contains(ref, "@") || !i.Named(ref) {
		err = d.cfg.Runtime.RemoveImage(ctx, i.Digest, st.Now)
	} else {
		err = d.cfg.Runtime.Untag(ctx, i.Digest, ref, st.Now)
	}
	if errors.Is(err, ctrd.ErrImageInUse) {
		return kept(err.Error())
	}
	if err != nil {
		return nil, err
	}
	d.cfg.Logger.Info("image removed", "ref", ref, "digest", i.Digest, "why", "an operator said so")
	return &orchv1.ImageProgress{State: imageDone, Message: "removed", Digest: i.Digest}, nil
}

// relayImagePull fetches an image before anything needs it.
func (d *driver) relayImagePull(ctx context.Context, req *orchv1.ImagePullOpen, r session.Relay) *orchv1.End {
	ctx, cancel := context.WithTimeout(ctx, pullMax)
	defer cancel()
	out := &frameWriter{r: r}
	send := func(p *orchv1.ImageProgress) error {
		p.Node = d.cfg.Name
		return out.send(&orchv1.Frame{Frame: &orchv1.Frame_ImageProgress{ImageProgress: p}})
	}
	began := time.Now()
	info, err := d.cfg.Runtime.EnsureImage(ctx, ctrd.ImageWant{Ref: req.GetRef(), Logins: loginsFromPB(req.GetLogins())}, func(p ctrd.Progress) {
		state := imagePulling
		if p.Waits {
			state = imageWaiting
		}
		if send(&orchv1.ImageProgress{State: state, Message: p.Message, Done: p.Done, Total: p.Total}) != nil {
			cancel() // nobody listens; who else waits for it goes on
		}
	})
	last := &orchv1.ImageProgress{State: imageDone, Message: fmt.Sprintf("there after %s", time.Since(began).Round(time.Millisecond)), Digest: info.ID}
	if err != nil {
		last = &orchv1.ImageProgress{State: imageFailed, Message: err.Error()}
		if errors.Is(err, ctrd.ErrNoSpace) {
			d.shelf.noSpace()
		}
	} else {
		d.fromSession(plan.ImagesChanged{})
	}
	if err := send(last); err != nil {
		return failed(err)
	}
	return &orchv1.End{}
}
