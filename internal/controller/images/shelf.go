package images

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// archiveMax is the largest archive that is taken, in bytes.
	archiveMax = 8 << 30
	// archivesMax is how many archives are kept for nodes that join later.
	archivesMax = 32
	// bytesMax is how much they may take together, in bytes; the newest is kept
	// in any case.
	bytesMax = 32 << 30
)

// ErrTooLarge: the archive is above the limit.
var ErrTooLarge = errors.New("image archive too large")

// Image is one archive on the shelf.
type Image struct {
	Digest string // hex SHA-256 of the archive
	Size   int64  // in bytes
}

// note is what lies beside an archive.
type note struct {
	Size  int64     `json:"size"`
	Added time.Time `json:"added"`
	Refs  []string  `json:"refs,omitempty"`
	// Dropped are those of Refs that an operator removed since: they are brought to a new
	// node with the rest, but nothing counts on them.
	Dropped []string `json:"dropped,omitempty"`
	// Holders are the key hashes of nodes that took it up.
	Holders []string `json:"holders,omitempty"`
}

// Shelf is the folder. Make it with Open. Safe for concurrent use.
type Shelf struct {
	dir   string
	mu    sync.Mutex
	notes map[string]*note // by digest
}

// Open reads the folder, or makes it. What an upload that broke off left there
// goes.
func Open(dir string) (*Shelf, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open image folder: %w", err)
	}
	s := &Shelf{dir: dir, notes: map[string]*note{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open image folder: %w", err)
	}
	for _, e := range entries {
		digest, isNote := strings.CutSuffix(e.Name(), ".json")
		if !isNote {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("open image folder: %w", err)
		}
		n := &note{}
		info, err := os.Stat(s.path(digest))
		if json.Unmarshal(data, n) == nil && err == nil && info.Size() == n.Size {
			s.notes[digest] = n
		}
	}
	for _, e := range entries {
		name := e.Name()
		if s.notes[strings.TrimSuffix(strings.TrimSuffix(name, ".json"), ".tar")] == nil {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("open image folder: %w", err)
			}
		}
	}
	return s, nil
}

func (s *Shelf) path(digest string) string { return filepath.Join(s.dir, digest+".tar") }

// Add takes an archive from r. One that is there already stays.
func (s *Shelf) Add(r io.Reader, now time.Time) (Image, error) {
	tmp, err := os.CreateTemp(s.dir, "upload-*")
	if err != nil {
		return Image{}, fmt.Errorf("keep image: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone already if renamed
	defer tmp.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(tmp, sum), io.LimitReader(r, archiveMax+1))
	if err != nil {
		return Image{}, fmt.Errorf("keep image: %w", err)
	}
	if n > archiveMax {
		return Image{}, fmt.Errorf("keep image: %w: at most %d bytes are taken", ErrTooLarge, int64(archiveMax))
	}
	// On disk before it has its name: the size alone would not tell a torn one.
	if err := tmp.Sync(); err != nil {
		return Image{}, fmt.Errorf("keep image: %w", err)
	}
	img := Image{Digest: hex.EncodeToString(sum.Sum(nil)), Size: n}

	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.notes[img.Digest]; have != nil {
		have.Added, have.Dropped = now.UTC(), nil
		return img, s.save(img.Digest)
	}
	if err := os.Rename(tmp.Name(), s.path(img.Digest)); err != nil {
		return Image{}, fmt.Errorf("keep image: %w", err)
	}
	s.notes[img.Digest] = &note{Size: n, Added: now.UTC()}
	if err := s.save(img.Digest); err != nil {
		return Image{}, err
	}
	s.prune()
	return img, nil
}

// save writes the note; s.mu is held.
func (s *Shelf) save(digest string) error {
	data, err := json.Marshal(s.notes[digest])
	if err != nil {
		return fmt.Errorf("note image %s: %w", digest, err)
	}
	tmp := filepath.Join(s.dir, "note-"+digest)
	err = writeSynced(tmp, data)
	if err == nil {
		err = os.Rename(tmp, filepath.Join(s.dir, digest+".json"))
	}
	if err != nil {
		return fmt.Errorf("note image %s: %w", digest, err)
	}
	return nil
}

// writeSynced writes a file and has it on disk: an archive whose note is torn by a power cut
// is removed at the next start.
func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// prune lets the oldest go until the limits hold; s.mu is held.
func (s *Shelf) prune() {
	list := s.sorted()
	var total int64
	for _, img := range list {
		total += img.Size
	}
	for len(list) > 1 && (len(list) > archivesMax || total > bytesMax) {
		total -= list[0].Size
		s.remove(list[0].Digest)
		list = list[1:]
	}
}

func (s *Shelf) remove(digest string) {
	delete(s.notes, digest)
	// The note first: an archive without one is removed at the next start.
	os.Remove(filepath.Join(s.dir, digest+".json"))
	os.Remove(s.path(digest))
}

// sorted gives all images, oldest first; s.mu is held.
func (s *Shelf) sorted() []Image {
	var list []Image
	for digest, n := range s.notes {
		list = append(list, Image{digest, n.Size})
	}
	slices.SortFunc(list, func(a, b Image) int {
		return cmp.Or(s.notes[a.Digest].Added.Compare(s.notes[b.Digest].Added), cmp.Compare(a.Digest, b.Digest))
	})
	return list
}

// Remove takes an image off the shelf.
func (s *Shelf) Remove(img Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.notes[img.Digest] != nil {
		s.remove(img.Digest)
	}
}

// Missing gives the images that the holder has not got, oldest first.
func (s *Shelf) Missing(holder string) []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(s.sorted(), func(i Image) bool { return slices.Contains(s.notes[i.Digest].Holders, holder) })
}

// refsAt gives what an image's names are, if the holder has it.
func (s *Shelf) refsAt(img Image, holder string) (refs []string, has bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.notes[img.Digest]
	if n == nil || !slices.Contains(n.Holders, holder) {
		return nil, false
	}
	return slices.Clone(n.Refs), true
}

// Note remembers that the holder has the image now.
func (s *Shelf) Note(img Image, holder string, refs []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.notes[img.Digest]
	if n == nil {
		return nil // it went meanwhile
	}
	n.Refs = refs
	if !slices.Contains(n.Holders, holder) {
		n.Holders = append(n.Holders, holder)
	}
	return s.save(img.Digest)
}
