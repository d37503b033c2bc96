package images

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
)

// Origin says where an image came from, and so whether it comes again.
type Origin int

// The origins.
const (
	// Unknown: somebody brought it past orch; it is never removed.
	Unknown Origin = iota
	// Pulled: its registry has it.
	Pulled
	// Loaded: `orchctl image load` brought it, and the controller's shelf has it.
	Loaded
)

// Image is what a node has under one digest.
type Image struct {
	Digest string
	// Refs are its names, full, sorted. Tags are names by which it was wanted when it was
	// pulled by its digest: they tell people what it is, and may mean another image by now.
	Refs, Tags []string
	// Size in bytes of its layers as they were fetched; layers may be others', too.
	Size int64
	// Created is when it came to this node.
	Created time.Time
	Origin  Origin
}

// Disk is that on which images lie, in bytes.
type Disk struct{ Size, Free int64 }

// Used in percent of the whole, as df tells it.
func (d Disk) Used() int {
	if d.Size <= 0 {
		return 0
	}
	return int((d.Size - d.Free) * 100 / d.Size)
}

// Marks in percent of the disk: beyond High images go until it is down to Low. High 0:
// never.
type Marks struct{ High, Low int }

// Need is something on the node that an image is for.
type Need struct {
	// Ref is the image's name, with or without digest; Digest is it where it is known.
	Ref, Digest string
	// Why in words: "runs web-0".
	Why string
}

// State is all that is decided from.
type State struct {
	Now   time.Time
	Disk  Disk
	Marks Marks
	// NoRoom: an image that is wanted did not fit, however full the disk is without it.
	NoRoom bool
	Images []Image
	// Needs are what containers run from, what is assigned and what is being pulled.
	Needs []Need
	Book  *Book
}

// Removal is an image that may go.
type Removal struct {
	Image Image
	Why   string
}

// Plan lists what goes if the disk is beyond its high mark, or an image found no room, first what is to go first:
// whoever removes looks at the disk after each, and ends at the low mark, for images share
// layers. What was used longest ago goes first, and loaded ones last.
func Plan(s State) []Removal {
	why := fmt.Sprintf("the disk is %d%% full, more than %d%%", s.Disk.Used(), s.Marks.High)
	switch {
	case s.Marks.High <= 0:
		return nil
	case s.Disk.Used() >= s.Marks.High:
	case s.NoRoom:
		why = fmt.Sprintf("the disk is %d%% full, which left no room for an image that is wanted", s.Disk.Used())
	default:
		return nil
	}
	var out []Removal
	for _, i := range s.Images {
		if s.Keep(i) != "" {
			continue
		}
		out = append(out, Removal{Image: i, Why: why + ", and " + s.unused(i)})
	}
	slices.SortFunc(out, func(a, b Removal) int {
		return cmp.Or(cmp.Compare(a.Image.Origin, b.Image.Origin), s.used(a.Image).Compare(s.used(b.Image)), cmp.Compare(a.Image.Digest, b.Image.Digest))
	})
	return out
}

// Done tells whether enough was removed.
func (s State) Done(d Disk) bool { return d.Used() <= s.goal() }

// roomStep is how much of the disk, in percent, is made free for an image that did not fit:
// how large it is is not known, and each further try makes as much.
const roomStep = 10

// goal is the percentage that the disk is brought down to.
func (s State) goal() int {
	if s.NoRoom {
		return min(s.Marks.Low, s.Disk.Used()-roomStep)
	}
	return s.Marks.Low
}

func (s State) unused(i Image) string {
	if used, ok := s.Book.used(i.Digest); ok {
		return fmt.Sprintf("nothing has needed it for %s", s.Now.Sub(used).Round(time.Second))
	}
	return "nothing has needed it since it is here"
}

// used is when it was needed last; what never was counts from when it came.
func (s State) used(i Image) time.Time {
	if t, ok := s.Book.used(i.Digest); ok {
		return t
	}
	return i.Created
}

// Keep says why an image does not go by itself; empty: it may.
func (s State) Keep(i Image) string {
	if why := s.Needed(i); why != "" {
		return why
	}
	if service := s.Book.previous(i.Digest, s.Now); service != "" {
		return "previous revision of " + service
	}
	if i.Origin == Unknown {
		return "brought past orch: nobody could bring it again"
	}
	return ""
}

// Needed says what needs an image now, so that nobody may remove it; empty: nothing.
func (s State) Needed(i Image) string {
	var whys []string
	for _, n := range s.Needs {
		if n.Digest == i.Digest || n.Digest == "" && names(i, n.Ref) {
			whys = append(whys, n.Why)
		}
	}
	slices.Sort(whys)
	whys = slices.Compact(whys)
	const told = 3 // of many
	if len(whys) > told {
		return fmt.Sprintf("%s and %d more", strings.Join(whys[:told], ", "), len(whys)-told)
	}
	return strings.Join(whys, ", ")
}

// Named tells whether a name is one of the image's own, and no mere tag.
func (i Image) Named(ref string) bool {
	named, err := reference.ParseDockerRef(ref)
	return err == nil && slices.Contains(i.Refs, named.String())
}

// names tells whether a reference means an image: by its digest, else by its name.
func names(i Image, ref string) bool {
	if _, digest, ok := strings.Cut(ref, "@"); ok {
		return digest == i.Digest
	}
	if ref == i.Digest {
		return true
	}
	return i.Named(ref)
}

// Find gives the image that a reference means: a name or a digest, else a tag by which one
// was pulled.
func Find(list []Image, ref string) (Image, bool) {
	for _, i := range list {
		if names(i, ref) {
			return i, true
		}
	}
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return Image{}, false
	}
	for _, i := range list {
		if slices.Contains(i.Tags, named.String()) {
			return i, true
		}
	}
	return Image{}, false
}
