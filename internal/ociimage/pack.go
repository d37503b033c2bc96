package ociimage

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// containerdName is the annotation from which containerd (and `ctr image
// import`) takes the name of an imported image in full.
const containerdName = "io.containerd.image.name"

// refName is the OCI layout's annotation; by the specification it holds the
// tag alone. The index itself gets no name: containerd would let the second
// bearer of one name replace the first, and collect the rest as garbage.
const refName = "org.opencontainers.image.ref.name"

// epoch is every file's and the image's time. Not zero, which some tools take
// for "unknown": the first second of 1980, which also zip can hold.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// File is one regular file of an image.
type File struct {
	Data []byte
	Mode fs.FileMode // permission bits; 0 means 0644
}

// Options describe an image.
type Options struct {
	Ref        string          // full name with registry and tag: "orch.local/web:1.0"
	Files      map[string]File // absolute path -> content; parents are made
	Entrypoint []string
	Cmd        []string
	Env        []string // "NAME=value"
	WorkingDir string   // empty means /
	User       string   // "uid[:gid]", or names of the image's own files; empty means root
	StopSignal string   // "SIGQUIT"; empty means SIGTERM
	// Healthcheck is the image's HEALTHCHECK; nil means none.
	Healthcheck *v1.HealthConfig
	Labels      map[string]string
	// Architecture in Go's words; empty means amd64. The system is linux.
	Architecture string
}

// Pack writes an OCI image archive.
func Pack(w io.Writer, o Options) error {
	if err := pack(w, o); err != nil {
		return fmt.Errorf("pack image %s: %w", o.Ref, err)
	}
	return nil
}

func pack(w io.Writer, o Options) error {
	ref, err := name.NewTag(o.Ref, name.StrictValidation)
	if err != nil {
		return err
	}
	if len(o.Files) == 0 {
		return errors.New("no files")
	}
	image, err := Image(o)
	if err != nil {
		return err
	}
	return archive(w, image, ref)
}

// Image makes the image itself, for a registry; Ref is not looked at.
func Image(o Options) (v1.Image, error) {
	content, err := layerTar(o.Files)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:     layer,
		MediaType: types.OCILayer,
		History:   v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "orch ociimage"},
	})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", o.Architecture
	if config.Architecture == "" {
		config.Architecture = "amd64"
	}
	config.Created = v1.Time{Time: epoch}
	config.Config = v1.Config{
		Entrypoint: o.Entrypoint, Cmd: o.Cmd, Env: o.Env,
		WorkingDir: o.WorkingDir, User: o.User, Labels: o.Labels, StopSignal: o.StopSignal, Healthcheck: o.Healthcheck,
	}
	return mutate.ConfigFile(image, config)
}

// layerTar is the file system: parents before children, in order of path.
func layerTar(files map[string]File) ([]byte, error) {
	dirs := map[string]bool{}
	var paths []string
	for p := range files {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
			return nil, fmt.Errorf("file %q: want a clean absolute path", p)
		}
		paths = append(paths, p)
		for d := path.Dir(p); d != "/"; d = path.Dir(d) {
			dirs[d] = true
		}
	}
	for d := range dirs {
		if _, ok := files[d]; ok {
			return nil, fmt.Errorf("file %q: it is also the folder of another file", d)
		}
		paths = append(paths, d)
	}
	slices.Sort(paths)
	var out bytes.Buffer
	t := tar.NewWriter(&out)
	for _, p := range paths {
		h := &tar.Header{Name: strings.TrimPrefix(p, "/"), ModTime: epoch, Format: tar.FormatPAX}
		if dirs[p] {
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, h.Name+"/", 0o755
		} else {
			h.Typeflag, h.Size, h.Mode = tar.TypeReg, int64(len(files[p].Data)), int64(files[p].Mode.Perm())
			if h.Mode == 0 {
				h.Mode = 0o644
			}
		}
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := t.Write(files[p].Data); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), t.Close()
}

// archive writes the image in OCI layout.
func archive(w io.Writer, image v1.Image, ref name.Tag) error {
	manifest, err := image.RawManifest()
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return err
	}
	configDigest, err := image.ConfigName()
	if err != nil {
		return err
	}
	configFile, err := image.ConfigFile()
	if err != nil {
		return err
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType:   types.OCIManifestSchema1,
			Size:        int64(len(manifest)),
			Digest:      digest,
			Platform:    &v1.Platform{OS: configFile.OS, Architecture: configFile.Architecture},
			Annotations: map[string]string{containerdName: ref.Name(), refName: ref.TagStr()},
		}},
	})
	if err != nil {
		return err
	}
	type entry struct {
		name string
		data []byte
	}
	entries := []entry{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{blob(digest), manifest},
		{blob(configDigest), config},
	}
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return err
		}
		r, err := l.Compressed()
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return err
		}
		entries = append(entries, entry{blob(d), data})
	}
	t := tar.NewWriter(w)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(e.data)), Mode: 0o644, ModTime: epoch, Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(e.data); err != nil {
			return err
		}
	}
	return t.Close()
}

func blob(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
