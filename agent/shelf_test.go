package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/images"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/registry"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// private gives a replica whose image wants a login.
func private(k api.ReplicaKey, login int64) wire.Assignment {
	a := web(k)
	a.Template.Containers[0].Image, a.Template.PullSecrets = "hub/web:1", []string{"regcred"}
	a.Logins = map[api.ConfigRef]int64{"secret/regcred": login}
	return a
}

// hub gives images to who has the password, and counts who asks.
func (r *rig) hub(password string, asked *int) {
	r.runtime.OnPull(func(w ctrd.ImageWant, progress func(ctrd.Progress)) error {
		if !strings.HasPrefix(w.Ref, "hub/") {
			return nil
		}
		*asked++
		progress(ctrd.Progress{Done: 1, Total: 4, Message: "pulling " + w.Ref + ": 1 of 4 MiB"})
		for _, l := range w.Logins {
			if l.Server == "hub" && l.Password == password {
				return nil
			}
		}
		return fmt.Errorf("%w: %w: registry hub wants a login", ctrd.ErrImageMissing, registry.ErrDenied)
	})
	r.runtime.AddImage("hub/web:1")
}

func login(n int64, password string) wire.ConfigVersion {
	return version("secret/regcred", n, map[string]string{"server": "hub", "username": "ann", "password": password})
}

// TestLogins: a login that changes is used at once, restarts nothing, and is on no disk: an
// agent that begins without a session says what it waits for.
func TestLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, asked := newRig(t), 0
		r.hub("sesame", &asked)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{private(web0, 1)}, Configs: []wire.ConfigVersion{login(1, "wrong")}})
		l.hear(func(s wire.StatusReport) bool {
			return len(s.Replicas) > 0 && s.Replicas[0].Status.Reason == api.ReasonImageMissing && strings.Contains(s.Replicas[0].Status.Message, "hub wants a login")
		})
		time.Sleep(20 * time.Second) // the delays are long by now
		began := time.Now()
		l.assign(t, wire.AssignmentSet{Put: []wire.Assignment{private(web0, 2)}, Configs: []wire.ConfigVersion{login(2, "sesame")}})
		l.hear(ready)
		if d := time.Since(began); d > time.Second {
			t.Errorf("the new login was used after %s", d)
		}
		r.runtime.Took()
		before := asked
		l.assign(t, wire.AssignmentSet{Put: []wire.Assignment{private(web0, 3)}, Configs: []wire.ConfigVersion{login(3, "sesame")}})
		time.Sleep(time.Minute)
		synctest.Wait()
		r.wantTook()
		if asked != before {
			t.Errorf("a new login had the registry asked %d times", asked-before)
		}

		r.c.Stop()
		r.restart()
		r.runtime.Exit("default.web-0.1.main", 1)
		time.Sleep(time.Minute)
		r.wantTook("remove default.web-0.1.main", "start default.web-0.1.main_1") // its image is here
		r.c.Serve(nil)
		l = r.next(11)
		web1 := api.ReplicaKey{Namespace: "default", Service: "web", Slot: 1, Epoch: 2}
		put := []wire.Assignment{private(web0, 3), private(web1, 3)}
		l.assign(t, wire.AssignmentSet{Complete: true, Put: put})
		of1 := func(want func(api.ReplicaStatus) bool) func(wire.StatusReport) bool {
			return func(s wire.StatusReport) bool {
				return slices.ContainsFunc(s.Replicas, func(x wire.Report) bool { return x.Key == web1 && want(x.Status) })
			}
		}
		l.hear(of1(func(s api.ReplicaStatus) bool {
			return s.Reason == api.ReasonConfigMissing && strings.HasPrefix(s.Message, "secret default/regcred is not on this node yet: it comes with the next session; ")
		}))
		l.assign(t, wire.AssignmentSet{Put: put, Configs: []wire.ConfigVersion{login(3, "sesame")}})
		l.hear(of1(func(s api.ReplicaStatus) bool { return s.Ready }))
		r.wantTook("start default.web-1.2.main")
		r.stop()
		r.wantNowhere("sesame")
	})
}

// TestDiskOfImages: when it is full, what nothing needs goes, and nothing else; the next
// life of the agent knows what the images were for.
func TestDiskOfImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.marks = images.Marks{High: 80, Low: 60}
		r.runtime.SetDisk(images.Disk{Size: 10 << 20, Free: 5 << 20})
		for _, ref := range []string{"web:2", "old:1", "older:1"} {
			r.runtime.AddImage(ref)
		}
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		next := web(api.ReplicaKey{Namespace: "default", Service: "web", Slot: 0, Epoch: 2})
		next.Revision, next.Template.Containers[0].Image = 2, "web:2"
		l.assign(t, wire.AssignmentSet{Put: []wire.Assignment{next}, Drop: []api.ReplicaKey{web0}})
		time.Sleep(shelfEvery + time.Minute)
		r.restart()
		l = r.next(11)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{next}})
		time.Sleep(time.Minute)
		r.runtime.Took()

		r.runtime.SetDisk(images.Disk{Size: 10 << 20, Free: 2 << 20})
		time.Sleep(diskEvery + time.Second)
		synctest.Wait()
		r.wantTook("remove image old:1", "remove image older:1")
		if !strings.Contains(r.log.String(), "image removed") {
			t.Error("the log does not say so")
		}
		// Beyond the mark again, and nothing may go: web:1 is the previous revision's.
		r.runtime.SetDisk(images.Disk{Size: 10 << 20, Free: 1 << 20})
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		r.wantTook()
		if n := strings.Count(r.log.String(), "fuller than it should be"); n < 2 || n > 4 {
			t.Errorf("told %d times", n)
		}

		frames, end := r.relay(l, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Images{Images: &orchv1.ImagesOpen{}}})
		if end.GetError() != "" || len(frames) != 1 {
			t.Fatalf("%v, %v", frames, end)
		}
		var keeps []string
		for _, i := range frames[0].GetImages().GetImages() {
			keeps = append(keeps, i.GetDigest()+" "+i.GetKeep())
		}
		if want := []string{"sha256:web:1 previous revision of default/web", "sha256:web:2 runs web-0"}; !slices.Equal(keeps, want) || frames[0].GetImages().GetDiskFreeBytes() != 1<<20 {
			t.Errorf("got %q, want %q; %v", keeps, want, frames[0])
		}
		remove := func(ref string, force bool) string {
			frames, end := r.relay(l, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_ImageRemove{ImageRemove: &orchv1.ImageRemoveOpen{Ref: ref, Force: force}}})
			if end.GetError() != "" || len(frames) != 1 {
				t.Fatalf("%v, %v", frames, end)
			}
			p := frames[0].GetImageProgress()
			return p.GetState() + ": " + p.GetMessage()
		}
		for _, c := range []struct {
			ref   string
			force bool
			want  string
		}{
			{"web:2", true, "kept: runs web-0"},
			{"web:1", false, "kept: previous revision of default/web; --force removes it"},
			{"web:1", true, "done: removed"},
			{"web:1", true, "done: it is not there"},
		} {
			if got := remove(c.ref, c.force); got != c.want {
				t.Errorf("remove %s, force %t: %q, want %q", c.ref, c.force, got, c.want)
			}
		}
		r.stop()
	})
}

// TestFullDiskIsCleanedForAPull at once, and the pull is tried again then.
func TestFullDiskIsCleanedForAPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, full := newRig(t), true
		r.marks = images.Marks{High: 80, Low: 60}
		r.runtime.AddImage("old:1")
		r.runtime.SetDisk(images.Disk{Size: 10 << 20, Free: 5 << 20})
		r.runtime.OnPull(func(ctrd.ImageWant, func(ctrd.Progress)) error {
			if full {
				full = false
				return fmt.Errorf("%w: %w: pull web:1", ctrd.ErrImageError, ctrd.ErrNoSpace)
			}
			return nil
		})
		r.start()
		l := r.next(10)
		r.runtime.SetDisk(images.Disk{Size: 10 << 20, Free: 0})
		began := time.Now()
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		if d := time.Since(began); d > time.Second {
			t.Errorf("it took %s", d)
		}
		r.wantTook("remove image old:1", "start default.web-0.1.main")
		r.stop()
	})
}

// TestNoRoomBelowTheMark: what a pull that failed had fetched is gone again, so the disk is
// below its mark; the pull needs room all the same.
func TestNoRoomBelowTheMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.marks = images.Marks{High: 80, Low: 60}
		for _, ref := range []string{"old:1", "older:1", "oldest:1"} {
			r.runtime.AddImage(ref)
		}
		removed := func() int { return strings.Count(r.log.String(), "msg=\"image removed\"") }
		r.runtime.OnPull(func(ctrd.ImageWant, func(ctrd.Progress)) error {
			if removed() == 0 {
				return fmt.Errorf("%w: %w: pull web:1", ctrd.ErrImageError, ctrd.ErrNoSpace)
			}
			return nil
		})
		r.start()
		l := r.next(10)
		r.runtime.SetDisk(images.Disk{Size: 10 << 20, Free: 5 << 20})
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		if removed() == 0 || removed() == 3 {
			t.Errorf("%d images were removed for it", removed())
		}
		r.stop()
	})
}

func TestPullRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, asked := newRig(t), 0
		r.hub("sesame", &asked)
		r.start()
		l := r.next(10)
		pull := func(ref string, logins ...*orchv1.RegistryLogin) string {
			frames, end := r.relay(l, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_ImagePull{ImagePull: &orchv1.ImagePullOpen{Ref: ref, Logins: logins}}})
			if end.GetError() != "" {
				t.Fatal(end)
			}
			var words []string
			for _, f := range frames {
				p := f.GetImageProgress()
				words = append(words, fmt.Sprintf("%s %s %d/%d %s", p.GetNode(), p.GetState(), p.GetDone(), p.GetTotal(), p.GetMessage()))
			}
			return strings.Join(words, "; ")
		}
		if got, want := pull("hub/web:1"), "n1 pulling 1/4 pulling hub/web:1: 1 of 4 MiB; n1 failed 0/0 image missing: login is missing or refused: registry hub wants a login"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got, want := pull("hub/web:1", &orchv1.RegistryLogin{Server: "hub", Username: "ann", Password: "sesame"}), "n1 pulling 1/4 pulling hub/web:1: 1 of 4 MiB; n1 done 0/0 there after 0s"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		r.stop()
		r.wantNowhere("sesame")
	})
}

func TestTheBookComesBack(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(bookPath(dir), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.dir = dir
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		r.stop()
		if !strings.Contains(r.log.String(), "cannot read what images were for") {
			t.Error("the log does not say that the book was torn")
		}
	})
	var book images.Book
	b, err := os.ReadFile(bookPath(dir))
	if err == nil {
		err = json.Unmarshal(b, &book)
	}
	if got := book.Services["default/web"].Revisions[1]; err != nil || !slices.Equal(got, []string{"sha256:web:1"}) {
		t.Errorf("%s, %v", b, err)
	}
}
