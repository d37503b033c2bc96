package ctrd

import (
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func image(t *testing.T, step string) (v1.Image, string) {
	t.Helper()
	img, err := pack(v1Config(step))
	if err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return img, d.String()
}

// TestPinned: a tag that moves changes nothing for who wants a digest.
func TestPinned(t *testing.T) {
	const ref = "orch.test/moving:1"
	ctx := t.Context()
	old, _ := image(t, "out=old")
	if err := load(ref, old); err != nil {
		t.Fatal(err)
	}
	was, err := env.r.Resolve(ctx, ImageWant{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	pinned := ref + "@" + was
	got, err := env.r.EnsureImage(ctx, ImageWant{Ref: pinned}, nil)
	if err != nil || got.ID != was {
		t.Fatalf("pinned: %+v, %v", got, err)
	}
	moved, _ := image(t, "out=moved")
	if err := load(ref, moved); err != nil {
		t.Fatal(err)
	}
	is, err := env.r.Resolve(ctx, ImageWant{Ref: ref})
	if err != nil || is == was {
		t.Fatalf("the tag has not moved: %s, %v", is, err)
	}
	if got, err := env.r.Resolve(ctx, ImageWant{Ref: pinned}); err != nil || got != was {
		t.Errorf("Resolve(%s) = %s, %v", pinned, got, err)
	}
	collect(t)
	if got, err := env.r.EnsureImage(ctx, ImageWant{Ref: pinned}, nil); err != nil || got.ID != was {
		t.Errorf("pinned, after the tag has moved: %+v, %v", got, err)
	}
	for image, want := range map[string]string{ref: "stdout moved", pinned: "stdout old"} {
		s := spec()
		s.Container.Image = image
		ended(t, start(t, s).ID)
		prints(t, s, want)
	}
	// Another node, which has the tag and not the image.
	absent := "sha256:" + strings.Repeat("ab", 32)
	_, err = env.r.EnsureImage(ctx, ImageWant{Ref: ref + "@" + absent}, nil)
	want := "registry unreachable: image " + ref + " on n1 is " + is[:19] + ", the revision wants sha256:abababababab; orch.test/moving@" + absent + " is not on this node, and registry orch.test cannot be asked"
	if !errors.Is(err, ErrRegistryUnreachable) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("another image under the tag: %v\nwant %s", err, want)
	}
}

// collect has containerd delete what nothing refers to.
func collect(t *testing.T) {
	t.Helper()
	ctx := env.r.in(t.Context())
	img, err := env.r.client.ImageService().Get(ctx, testImage)
	if err == nil {
		img.Name = "orch.test/collected:1"
		_, err = env.r.client.ImageService().Create(ctx, img)
	}
	if err == nil {
		err = env.r.client.ImageService().Delete(ctx, img.Name, images.SynchronousDelete())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPinnedAtRegistry: what a tag means is asked without a pull, and a digest is
// pulled whatever the tag means there by then.
func TestPinnedAtRegistry(t *testing.T) {
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	ref := host + "/team/moving:1"
	tag, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	old, was := image(t, "out=registry's old")
	moved, _ := image(t, "out=registry's moved")
	if err := remote.Write(tag, old); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if got, err := env.r.Resolve(ctx, ImageWant{Ref: ref}); err != nil || got != was {
		t.Errorf("Resolve: %s, %v, want %s", got, err, was)
	}
	if _, err := env.r.find(env.r.in(ctx), ref); !errors.Is(err, ErrImageMissing) {
		t.Errorf("Resolve pulled: %v", err)
	}
	if err := remote.Write(tag, moved); err != nil {
		t.Fatal(err)
	}
	s := spec()
	s.Container.Image = ref + "@" + was
	if got, err := env.r.EnsureImage(ctx, ImageWant{Ref: s.Container.Image}, nil); err != nil || got.ID != was {
		t.Fatalf("pull of what the tag meant: %+v, %v", got, err)
	}
	ended(t, start(t, s).ID)
	prints(t, s, "stdout registry's old")
	if _, err := env.r.Resolve(ctx, ImageWant{Ref: host + "/team/absent:1"}); !errors.Is(err, ErrImageMissing) || !strings.Contains(err.Error(), "does not have ") {
		t.Errorf("Resolve of nothing: %v", err)
	}
	if _, err := env.r.Resolve(ctx, ImageWant{Ref: "Bad Name"}); !errors.Is(err, ErrImageError) {
		t.Errorf("Resolve of no name: %v", err)
	}
}
