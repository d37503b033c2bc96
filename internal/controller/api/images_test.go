package api

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/images"
	"github.com/orchctl/orch/internal/controller/view"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// TestListImages: all nodes at once, and of each that cannot be asked, why.
func TestListImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &agents{away: map[string]bool{"n2": true}, script: func(node string, open *orchv1.OpenRelay, a *agentStream) {
			if open.GetImages() == nil {
				t.Errorf("asked for %v", open)
			}
			switch node {
			case "n3":
				close(a.from) // goes away
			case "n4":
				a.from <- endFrame("this node's agent does not know what was asked")
			case "n5": // never answers
			case "n6":
				a.from <- endFrame("")
			default:
				a.from <- &orchv1.Frame{Frame: &orchv1.Frame_Images{Images: &orchv1.NodeImages{Node: "somebody", Error: "nothing", DiskBytes: 100}}}
				a.from <- endFrame("")
			}
		}}
		s := New(Config{View: nodesView(7, "n2"), Log: slog.New(slog.DiscardHandler)})
		s.open = x.open
		ask := func(ctx context.Context, nodes ...string) (map[string]string, error) {
			p := newPipe[*orchv1.NodeImages](ctx)
			err := s.ListImages(&orchv1.ListImagesRequest{Nodes: nodes}, p)
			got := map[string]string{}
			for _, u := range p.out {
				got[u.GetNode()] = fmt.Sprintf("%d %s", u.GetDiskBytes(), u.GetError())
			}
			if len(got) != len(p.out) {
				t.Errorf("a node answers twice: %v", p.out)
			}
			return got, err
		}
		began := time.Now()
		got, err := ask(t.Context())
		if took := time.Since(began); err != nil || took != imagesTimeout {
			t.Errorf("took %s: %v", took, err)
		}
		want := map[string]string{"n1": "100 ", "n2": "0 not reachable: it is Suspect: silent for 1s", "n3": "0 not reachable any more: its session ended while it was asked",
			"n4": "0 this node's agent does not know what was asked", "n5": "0 no answer within 15s: its agent may be stuck, its log tells more", "n6": "0 its agent has no answer", "n7": "100 "}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
		if got, err := ask(t.Context(), "n7", "n1", "n7"); err != nil || fmt.Sprint(got) != "map[n1:100  n7:100 ]" {
			t.Errorf("two by name: %v, %v", got, err)
		}
		if _, err := ask(t.Context(), "n9"); status.Code(err) != codes.NotFound {
			t.Errorf("one that is not there: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := ask(ctx, "n5"); status.Code(err) != codes.Canceled {
			t.Errorf("a user who goes: %v", err)
		}
	})
	if err := New(Config{View: view.New(), Log: slog.New(slog.DiscardHandler)}).ListImages(&orchv1.ListImagesRequest{}, newPipe[*orchv1.NodeImages](t.Context())); err == nil {
		t.Error("no nodes, and no error")
	}
}

// progress is a frame with an agent's word on an image.
func progress(state, message string) *orchv1.Frame {
	return &orchv1.Frame{Frame: &orchv1.Frame_ImageProgress{ImageProgress: &orchv1.ImageProgress{Node: "somebody", State: state, Message: message}}}
}

// wordsOf gives what was told of each node, in order; the last word of each has to be one.
func wordsOf(t *testing.T, told []*orchv1.ImageProgress) map[string]string {
	t.Helper()
	got, last := map[string]string{}, map[string]string{}
	for _, p := range told {
		if over := last[p.GetNode()]; slices.Contains([]string{"done", "kept", "failed"}, over) {
			t.Errorf("%s says %s after %s", p.GetNode(), p.GetState(), over)
		}
		last[p.GetNode()] = p.GetState()
		got[p.GetNode()] += strings.TrimSpace(p.GetState()+" "+p.GetMessage()) + "|"
	}
	return got
}

// scripted answers for images as nodes of its tests do: n2 is away.
func scripted(check func(open *orchv1.OpenRelay)) *agents {
	return &agents{away: map[string]bool{"n2": true}, script: func(node string, open *orchv1.OpenRelay, a *agentStream) {
		check(open)
		switch node {
		case "n1":
			a.from <- progress("pulling", "half")
			a.from <- progress("done", "")
			a.from <- progress("pulling", "again") // after its last word
			a.from <- endFrame("")
		case "n3":
			a.from <- progress("pulling", "half")
			close(a.from) // goes away
		case "n4":
			a.from <- endFrame("this node's agent does not know what was asked")
		case "n5": // never comes to an end
		case "n6":
			a.from <- progress("kept", "web-0 runs from it")
			a.from <- endFrame("")
		case "n7":
			a.from <- endFrame("") // without a last word
		}
	}}
}

// scriptedWords are what is told of them.
func scriptedWords(within time.Duration) map[string]string {
	return map[string]string{"n1": "pulling half|done|", "n2": "failed not reachable: it is Suspect: silent for 1s|",
		"n3": "pulling half|failed not reachable any more: its session ended while it was asked|", "n4": "failed this node's agent does not know what was asked|",
		"n5": fmt.Sprintf("failed no answer within %s: its agent may be stuck, its log tells more|", within), "n6": "kept web-0 runs from it|", "n7": "failed its agent does not come to an answer|"}
}

// TestRemoveImage: each node has one last word; from all nodes it goes off the shelf, too.
func TestRemoveImage(t *testing.T) {
	shelf, err := images.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	img, err := shelf.Add(strings.NewReader("archive"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := shelf.Note(img, "key", []string{"orch.local/web:1"}); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		x := scripted(func(open *orchv1.OpenRelay) {
			if o := open.GetImageRemove(); o.GetRef() != "orch.local/web:1" || !o.GetForce() {
				t.Errorf("asked for %v", open)
			}
		})
		s := New(Config{View: nodesView(7, "n2"), Images: &images.Sender{Shelf: shelf}, Log: slog.New(slog.DiscardHandler)})
		s.open = x.open
		ask := func(ref string, nodes ...string) (map[string]string, error) {
			p := newPipe[*orchv1.ImageProgress](as(t.Context(), operator))
			err := s.RemoveImage(&orchv1.RemoveImageRequest{Ref: ref, Nodes: nodes, Force: true}, p)
			return wordsOf(t, p.out), err
		}
		if got, err := ask("orch.local/web:1", "n1"); err != nil || fmt.Sprint(got) != "map[n1:pulling half|done|]" || !shelf.Has("orch.local/web:1") {
			t.Errorf("from one node: %v, %v", got, err)
		}
		got, err := ask("orch.local/web:1")
		if want := scriptedWords(imagesTimeout); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, %v\nwant %v", got, err, want)
		}
		if shelf.Has("orch.local/web:1") {
			t.Error("it is still on the shelf, and would be brought back")
		}
		opened := len(x.opened)
		for ref, want := range map[string]codes.Code{"": codes.InvalidArgument, "a b": codes.InvalidArgument, "sha256:abc": codes.OK, strings.Repeat("a", 600): codes.InvalidArgument} {
			if _, err := ask(ref, "n9"); want != codes.OK && status.Code(err) != want || want == codes.OK && status.Code(err) != codes.NotFound {
				t.Errorf("%.20q: %v", ref, err)
			}
		}
		if len(x.opened) != opened {
			t.Error("nodes were asked for what was refused")
		}
	})
}

// TestPullImage: each node has one last word, and what is no login is refused before any
// is asked.
func TestPullImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := scripted(func(open *orchv1.OpenRelay) {
			if o := open.GetImagePull(); o.GetRef() != "hub.example/web:1" || len(o.GetLogins()) != 0 {
				t.Errorf("asked for %v", open)
			}
		})
		v := nodesView(7, "n2")
		v.Publish(core.Publish{Put: []core.Entry{{Key: core.ViewKey{Kind: api.KindSecret, Namespace: "default", Name: "plain"}, Object: &api.Config{Metadata: api.Metadata{Namespace: "default", Name: "plain"}}}}})
		s := New(Config{View: v, Log: slog.New(slog.DiscardHandler)})
		s.open = x.open
		ask := func(r *orchv1.PullImageRequest) (map[string]string, error) {
			p := newPipe[*orchv1.ImageProgress](as(t.Context(), operator))
			err := s.PullImage(r, p)
			return wordsOf(t, p.out), err
		}
		began := time.Now()
		got, err := ask(&orchv1.PullImageRequest{Ref: "hub.example/web:1"})
		if want := scriptedWords(imagePullTimeout); err != nil || fmt.Sprint(got) != fmt.Sprint(want) || time.Since(began) != imagePullTimeout {
			t.Errorf("got %v, %v\nwant %v", got, err, want)
		}
		opened := len(x.opened)
		for _, c := range []struct {
			r    *orchv1.PullImageRequest
			want codes.Code
			says string
		}{
			{&orchv1.PullImageRequest{Ref: "hub.example/web:1", Nodes: []string{"n9"}}, codes.NotFound, "n9"},
			{&orchv1.PullImageRequest{Ref: "sha256:" + strings.Repeat("ab", 32)}, codes.InvalidArgument, "is no image"},
			{&orchv1.PullImageRequest{Ref: "hub.example/web:1", PullSecrets: []string{"hub"}}, codes.NotFound, "secret default/hub: not found"},
			{&orchv1.PullImageRequest{Ref: "hub.example/web:1", Namespace: "shop", PullSecrets: []string{"plain"}}, codes.NotFound, "secret shop/plain: not found"},
			{&orchv1.PullImageRequest{Ref: "hub.example/web:1", PullSecrets: []string{"plain"}}, codes.InvalidArgument, "is not of type"},
			{&orchv1.PullImageRequest{Ref: "hub.example/web:1", PullSecrets: slices.Repeat([]string{"hub"}, api.MaxPullSecrets+1)}, codes.InvalidArgument, "at most"},
		} {
			if _, err := ask(c.r); status.Code(err) != c.want || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v: %v, want %s %q", c.r, err, c.want, c.says)
			}
		}
		if len(x.opened) != opened {
			t.Error("nodes were asked for what was refused")
		}
	})
}
