package images

import (
	"slices"

	"github.com/distribution/reference"
)

// fullName is a reference as agents know it: registry, path and tag are filled in. What is
// none is given as it is.
func fullName(ref string) string {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return ref
	}
	return named.String()
}

// Has tells whether an archive holds an image of that name, as a node said that took it
// up. Of an archive that no node has yet it is not known.
func (s *Shelf) Has(ref string) bool {
	full := fullName(ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.notes {
		if n.has(full) {
			return true
		}
	}
	return false
}

// Drop has no archive bring back an image of that name. An archive goes whole with its
// last name: it gives how many went, and how many stay for other names.
func (s *Shelf) Drop(ref string) (gone, kept int, err error) {
	full := fullName(ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, img := range s.sorted() {
		n := s.notes[img.Digest]
		if !n.has(full) {
			continue
		}
		if n.Dropped = append(n.Dropped, full); len(n.Refs) > 0 && !slices.ContainsFunc(n.Refs, n.offers) {
			s.remove(img.Digest)
			gone++
			continue
		}
		kept++
		if err == nil {
			err = s.save(img.Digest)
		}
	}
	return gone, kept, err
}

// has tells whether the archive brings an image of that full name.
func (n *note) has(full string) bool {
	return slices.ContainsFunc(n.Refs, func(r string) bool { return fullName(r) == full && n.offers(r) })
}

// offers tells whether nobody removed that name.
func (n *note) offers(ref string) bool { return !slices.Contains(n.Dropped, fullName(ref)) }
