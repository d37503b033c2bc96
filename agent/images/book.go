package images

import (
	"maps"
	"slices"
	"time"
)

const (
	// revisionsKept is how many revisions of a service keep their images: the present one,
	// and the one to which a rollback leads.
	revisionsKept = 2
	// previousFor is how long they do so after the last replica has left the node: a service
	// that moves away comes back soon, or not.
	previousFor = 24 * time.Hour
	// usedFor is how long it is remembered when an image that is gone was used.
	usedFor = 7 * 24 * time.Hour
)

// Book is what images were for. It lies on the node's disk. The zero value is empty; it is
// not for several goroutines at once.
type Book struct {
	// Last is when something needed an image last, by digest.
	Last map[string]time.Time `json:"last,omitempty"`
	// Services by "namespace/name".
	Services map[string]Service `json:"services,omitempty"`
}

// Service is what ran here of a service.
type Service struct {
	// UID is the service's own: one that was deleted and made anew counts its revisions anew.
	UID string `json:"uid,omitempty"`
	// Seen is when it was last assigned here.
	Seen time.Time `json:"seen"`
	// Revisions have the digests of their images; the newest revisionsKept of them.
	Revisions map[int64][]string `json:"revisions"`
}

// Started notes that a container of a service's revision was started from an image. It
// tells whether that was news, so that the book should be written soon.
func (b *Book) Started(service, uid string, revision int64, digest string, now time.Time) bool {
	b.use(digest, now)
	s := b.Services[service]
	if s.UID != uid {
		if s.UID != "" { // else an agent of before wrote it
			s.Revisions = nil
		}
		s.UID = uid
	}
	s.Seen = now
	news := !slices.Contains(s.Revisions[revision], digest)
	if news {
		next := maps.Clone(s.Revisions)
		if next == nil {
			next = map[int64][]string{}
		}
		next[revision] = append(slices.Clone(next[revision]), digest)
		for len(next) > revisionsKept {
			delete(next, slices.Min(slices.Collect(maps.Keys(next))))
		}
		s.Revisions = next
	}
	if b.Services == nil {
		b.Services = map[string]Service{}
	}
	b.Services[service] = s
	return news
}

// Assigned notes which services have replicas here, and which images are needed now.
func (b *Book) Assigned(services []string, digests []string, now time.Time) {
	for _, name := range services {
		if s, ok := b.Services[name]; ok {
			s.Seen = now
			b.Services[name] = s
		}
	}
	for _, d := range digests {
		b.use(d, now)
	}
}

// Forget drops what is of no use any more: services that left, images that are gone.
func (b *Book) Forget(have func(digest string) bool, now time.Time) {
	maps.DeleteFunc(b.Services, func(_ string, s Service) bool { return now.Sub(s.Seen) > previousFor })
	maps.DeleteFunc(b.Last, func(d string, at time.Time) bool { return !have(d) && now.Sub(at) > usedFor })
}

// Clone gives another that may be read while this one changes.
func (b *Book) Clone() *Book {
	return &Book{Last: maps.Clone(b.Last), Services: maps.Clone(b.Services)} // a service's revisions are never changed in place
}

func (b *Book) use(digest string, now time.Time) {
	if digest == "" {
		return
	}
	if b.Last == nil {
		b.Last = map[string]time.Time{}
	}
	b.Last[digest] = now
}

// Used is when something needed an image last; false: nothing has.
func (b *Book) Used(digest string) (time.Time, bool) { return b.used(digest) }

func (b *Book) used(digest string) (time.Time, bool) {
	if b == nil {
		return time.Time{}, false
	}
	t, ok := b.Last[digest]
	return t, ok
}

// previous is the service of whose last revisions an image is; empty: none.
func (b *Book) previous(digest string, now time.Time) string {
	if b == nil {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(b.Services)) {
		s := b.Services[name]
		if now.Sub(s.Seen) > previousFor {
			continue
		}
		for _, digests := range s.Revisions {
			if slices.Contains(digests, digest) {
				return name
			}
		}
	}
	return ""
}
