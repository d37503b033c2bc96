package images

import "testing"

// TestFindByTag: a tag by which an image was pulled means it as long as no image has that
// name itself.
func TestFindByTag(t *testing.T) {
	const tag = "registry.example/web:1"
	pulled := Image{Digest: "sha256:a", Refs: []string{"registry.example/web@sha256:a"}, Tags: []string{tag}}
	named := Image{Digest: "sha256:b", Refs: []string{tag}}
	if got, ok := Find([]Image{pulled}, tag); !ok || got.Digest != pulled.Digest || got.Named(tag) {
		t.Errorf("the tag of a pulled image gives %+v, %v", got, ok)
	}
	if got, ok := Find([]Image{pulled, named}, tag); !ok || got.Digest != named.Digest || !got.Named(tag) {
		t.Errorf("a name gives %+v, %v", got, ok)
	}
	if _, ok := Find([]Image{pulled}, "registry.example/web:2"); ok {
		t.Error("a tag that nothing was pulled by was found")
	}
}
