package ociimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"path"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func web() Options {
	return Options{
		Ref: "orch.local/web:1.0",
		Files: map[string]File{
			"/bin/web":         {Data: []byte("program"), Mode: 0o755},
			"/etc/passwd":      {Data: []byte("root:x:0:0::/:\n")},
			"/usr/share/a/b/c": {Data: nil, Mode: 0o600},
		},
		Entrypoint: []string{"/bin/web"},
		Env:        []string{"VERSION=1.0"},
		User:       "1000",
		Labels:     map[string]string{"b": "2", "a": "1"},
	}
}

func pack1(t *testing.T, o Options) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Pack(&out, o); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func entries(t *testing.T, r io.Reader) (map[string][]byte, []string) {
	t.Helper()
	files, order := map[string][]byte{}, []string(nil)
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return files, order
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(epoch) {
			t.Errorf("%s: time %s, want %s", h.Name, h.ModTime, epoch)
		}
		files[h.Name], order = data, append(order, h.Name)
	}
}

func TestPackSameBytes(t *testing.T) {
	if a, b := pack1(t, web()), pack1(t, web()); !bytes.Equal(a, b) {
		t.Error("two packings of the same options differ")
	}
	other := web()
	other.Env = []string{"VERSION=2.0"}
	if bytes.Equal(pack1(t, web()), pack1(t, other)) {
		t.Error("packings of different options are equal")
	}
}

func TestPackLayout(t *testing.T) {
	files, _ := entries(t, bytes.NewReader(pack1(t, web())))
	for name, data := range files {
		if hexSum, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != hexSum {
				t.Errorf("%s holds something else", name)
			}
		}
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 1 || len(index.Annotations) != 0 {
		t.Fatalf("index %s: want one manifest and no name of its own", files["index.json"])
	}
	m := index.Manifests[0]
	if got := m.Annotations[containerdName]; got != "orch.local/web:1.0" {
		t.Errorf("image name %q", got)
	}
	if got := m.Annotations[refName]; got != "1.0" {
		t.Errorf("ref name %q", got)
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(files[blob(m.Digest)], &manifest); err != nil {
		t.Fatal(err)
	}
	var config v1.ConfigFile
	if err := json.Unmarshal(files[blob(manifest.Config.Digest)], &config); err != nil {
		t.Fatal(err)
	}
	if config.OS != "linux" || config.Architecture != "amd64" || config.Config.User != "1000" ||
		!slices.Equal(config.Config.Entrypoint, []string{"/bin/web"}) || !slices.Equal(config.Config.Env, []string{"VERSION=1.0"}) {
		t.Errorf("config %+v", config)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files[blob(manifest.Layers[0].Digest)])), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := layer.DiffID(); err != nil || id != config.RootFS.DiffIDs[0] {
		t.Errorf("layer %s (%v), config says %s", id, err, config.RootFS.DiffIDs[0])
	}
	content, err := layer.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	inside, order := entries(t, content)
	want := []string{"bin/", "bin/web", "etc/", "etc/passwd", "usr/", "usr/share/", "usr/share/a/", "usr/share/a/b/", "usr/share/a/b/c"}
	if !slices.Equal(order, want) {
		t.Errorf("layer holds %q, want %q", order, want)
	}
	if string(inside["bin/web"]) != "program" {
		t.Errorf("bin/web holds %q", inside["bin/web"])
	}
}

func TestPackRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"no tag", func(o *Options) { o.Ref = "orch.local/web" }, "pack image orch.local/web:"},
		{"no registry", func(o *Options) { o.Ref = "web:1" }, "pack image web:1:"},
		{"no files", func(o *Options) { o.Files = nil }, "no files"},
		{"relative path", func(o *Options) { o.Files["bin/x"] = File{} }, `file "bin/x": want a clean absolute path`},
		{"climbing path", func(o *Options) { o.Files["/../x"] = File{} }, `file "/../x": want a clean absolute path`},
		{"file and folder", func(o *Options) { o.Files[path.Dir("/bin/web")] = File{} }, `file "/bin": it is also the folder of another file`},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := web()
			test.change(&o)
			err := Pack(io.Discard, o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
