package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/images"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/internal/tracing"
)

const (
	// diskEvery is how often the disk of images is looked at, which costs one statfs.
	diskEvery = 10 * time.Second
	// shelfEvery is how often the book is kept and what crashes have left is cleared away;
	// and how soon after a cleaning that freed too little the next one is tried.
	shelfEvery = 5 * time.Minute
	// removeImageMax bounds one removal: containerd deletes the layers within it.
	removeImageMax = 2 * time.Minute
)

// shelf keeps what images of this node were for, and cleans some away when the disk on which
// they lie fills up.
type shelf struct {
	d      *driver
	logger *slog.Logger
	full   chan struct{} // a pull met a full disk

	mu   sync.Mutex
	book images.Book
	// unsaved: the book on disk is another.
	unsaved bool

	cleaning sync.Mutex // one at a time
	cleaned  time.Time  // when the last ended that freed too little
}

func bookPath(dir string) string { return filepath.Join(dir, "images.json") }

func newShelf(d *driver) *shelf {
	s := &shelf{d: d, logger: d.cfg.Logger, full: make(chan struct{}, 1)}
	b, err := os.ReadFile(bookPath(d.cfg.Data))
	if err == nil {
		err = json.Unmarshal(b, &s.book)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.book = images.Book{}
		s.logger.Warn("cannot read what images were for: those of previous revisions are not known", "err", err)
	}
	return s
}

// run looks at the disk, and cleans, until ctx ends.
func (s *shelf) run(ctx context.Context) error {
	look, house := time.NewTicker(diskEvery), time.NewTicker(shelfEvery)
	defer look.Stop()
	defer house.Stop()
	for {
		select {
		case <-ctx.Done():
			s.save()
			return nil
		case <-s.full:
			s.clean(ctx, true)
		case <-look.C:
			s.clean(ctx, false)
		case <-house.C:
			s.keepHouse(ctx)
		}
		s.save()
	}
}

// noSpace has images cleaned away at once.
func (s *shelf) noSpace() {
	select {
	case s.full <- struct{}{}:
	default:
	}
}

// started notes what a container was started from.
func (s *shelf) started(e plan.StartContainer, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.book.Started(e.Replica.Namespace+"/"+e.Replica.Service, e.ServiceUID, e.Revision, digest, time.Now()) {
		s.unsaved = true
	}
}

func (s *shelf) save() {
	s.mu.Lock()
	if !s.unsaved {
		s.mu.Unlock()
		return
	}
	s.unsaved = false
	b, err := json.Marshal(s.book)
	s.mu.Unlock()
	if err == nil {
		err = writeJSON(bookPath(s.d.cfg.Data), json.RawMessage(b))
	}
	if err != nil {
		s.mu.Lock()
		s.unsaved = true
		s.mu.Unlock()
		s.logger.Warn("cannot keep on disk what images are for; trying again", "err", err)
	}
}

// state is all that is decided from, and when it was so.
func (s *shelf) state(ctx context.Context) (images.State, error) {
	now := time.Now()
	st := images.State{Now: now, Marks: s.d.cfg.ImageMarks}
	var err error
	if st.Disk, err = s.disk(ctx); err != nil {
		return st, err
	}
	if st.Images, err = s.d.cfg.Runtime.Images(ctx); err != nil {
		return st, err
	}
	var needed []plan.Needed
	err = s.d.ask(ctx, func(c *plan.Core) { needed = c.Images() })
	if err != nil {
		return st, err
	}
	list, err := s.d.cfg.Runtime.List(ctx)
	if err != nil {
		return st, err
	}
	var services, digests []string
	for _, n := range needed {
		why := "assigned to " + n.Replica.Name()
		if n.Runs {
			why = "runs " + n.Replica.Name()
		}
		st.Needs = append(st.Needs, images.Need{Ref: n.Ref, Digest: n.ImageID, Why: why})
		services = append(services, n.Replica.Namespace+"/"+n.Replica.Service)
		digests = append(digests, n.ImageID)
	}
	for _, o := range list {
		why := "container " + o.ID + " was made from it"
		if o.Running {
			why = "runs " + o.Replica.Name()
		}
		st.Needs = append(st.Needs, images.Need{Digest: o.ImageID, Why: why})
		digests = append(digests, o.ImageID)
	}
	for _, ref := range s.d.cfg.Runtime.Pulling() {
		st.Needs = append(st.Needs, images.Need{Ref: ref, Why: "is being pulled"})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.book.Assigned(services, digests, now)
	st.Book = s.book.Clone()
	return st, nil
}

func (s *shelf) disk(ctx context.Context) (images.Disk, error) {
	size, free, err := s.d.cfg.Runtime.Disk(ctx)
	return images.Disk{Size: size, Free: free}, err
}

// clean removes images if the disk is beyond its mark. now: an image did not fit; so although
// the disk without it is below its mark, and although the last time did not help, and that is
// not long ago.
func (s *shelf) clean(ctx context.Context, now bool) {
	s.cleaning.Lock()
	defer s.cleaning.Unlock()
	marks := s.d.cfg.ImageMarks
	if marks.High <= 0 || !now && time.Since(s.cleaned) < shelfEvery {
		return
	}
	disk, err := s.disk(ctx)
	if err != nil || !now && disk.Used() < marks.High {
		if err != nil && ctx.Err() == nil {
			s.logger.Debug("cannot look at the disk of images", "err", err)
		}
		return
	}
	st, err := s.state(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.logger.Warn("cannot clean images away: what needs them is not known", "err", err)
		}
		return
	}
	st.NoRoom = now
	removed := 0
	for _, r := range images.Plan(st) {
		if ok := s.remove(ctx, r, st.Now); ok {
			removed++
		}
		if disk, err = s.disk(ctx); err != nil || ctx.Err() != nil || st.Done(disk) {
			break
		}
	}
	s.cleaned = time.Time{}
	if err == nil && !st.Done(disk) && disk.Used() > marks.Low {
		s.cleaned = time.Now()
		s.logger.Warn("the disk of images is fuller than it should be, and nothing more may go: make room, or remove services",
			"used", fmt.Sprintf("%d%%", disk.Used()), "high", fmt.Sprintf("%d%%", marks.High), "low", fmt.Sprintf("%d%%", marks.Low), "removed", removed)
	}
	if removed > 0 {
		s.d.tell(ctx, plan.ImagesChanged{}) // what did not fit may
	}
}

func (s *shelf) remove(ctx context.Context, r images.Removal, decided time.Time) bool {
	limited, cancel := context.WithTimeout(ctx, removeImageMax)
	defer cancel()
	before, _ := s.disk(limited) // for the log alone
	err := s.d.cfg.Runtime.RemoveImage(limited, r.Image.Digest, decided)
	switch {
	case err == nil:
		after, _ := s.disk(limited)
		s.d.cfg.Counts.Collected(1, after.Free-before.Free)
		s.logger.Info("image removed", "refs", r.Image.Refs, "digest", r.Image.Digest, "why", r.Why, "freedBytes", after.Free-before.Free)
		return true
	case errors.Is(err, ctrd.ErrImageInUse):
		s.logger.Debug("image stays", "refs", r.Image.Refs, "err", err)
	case ctx.Err() == nil:
		s.logger.Warn("cannot remove an image", "refs", r.Image.Refs, "err", err)
	}
	return false
}

// keepHouse brings the book up to date, and clears away what crashes have left.
func (s *shelf) keepHouse(ctx context.Context) {
	st, err := s.state(ctx)
	if err == nil {
		have := map[string]bool{}
		for _, i := range st.Images {
			have[i.Digest] = true
		}
		s.mu.Lock()
		s.book.Forget(func(d string) bool { return have[d] }, st.Now)
		s.unsaved = true
		s.mu.Unlock()
		err = s.d.cfg.Runtime.SweepPulls(ctx, st.Now)
	}
	if err != nil && ctx.Err() == nil {
		s.logger.Warn("cannot look after the images of this node; trying again", "in", shelfEvery, "err", err)
	}
}

// ensureImage carries out plan.EnsureImage.
func (d *driver) ensureImage(ctx context.Context, e plan.EnsureImage) plan.Event {
	ctx, cancel := context.WithTimeout(ctx, pullMax)
	defer cancel()
	logins, missing := d.configs.logins(e.Incarnation, e.Logins)
	info, err := d.cfg.Runtime.EnsureImage(ctx, ctrd.ImageWant{Ref: e.Ref, Never: e.Never, Logins: logins},
		func(p ctrd.Progress) {
			if span := tracing.Current(ctx); span != nil && p.Total > 0 {
				span.SetInt("orch.image.bytes", p.Done)
				span.SetInt("orch.image.total_bytes", p.Total)
			}
			d.tell(ctx, plan.Progress{Ref: e.Ref, Message: p.Message})
		})
	if errors.Is(err, ctrd.ErrNoSpace) {
		d.shelf.noSpace()
	}
	return plan.Done{ID: e.ID, ImageID: info.ID, Failure: withoutLogin(err, missing)}
}
