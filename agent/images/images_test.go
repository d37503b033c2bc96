package images

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func pulled(name string, at int) Image {
	return Image{Digest: "sha256:" + name, Refs: []string{"docker.io/library/" + name + ":1"}, Size: 1 << 20, Created: t0.Add(time.Duration(at) * time.Second), Origin: Pulled}
}

func loaded(name string, at int) Image {
	i := pulled(name, at)
	i.Origin = Loaded
	return i
}

func plan(s State) string {
	var words []string
	for _, r := range Plan(s) {
		words = append(words, strings.TrimPrefix(r.Image.Digest, "sha256:"))
	}
	return strings.Join(words, " ")
}

func TestPlan(t *testing.T) {
	full := Disk{Size: 100, Free: 10}
	book := &Book{Last: map[string]time.Time{"sha256:c": t0, "sha256:a": t0.Add(time.Hour)}}
	for _, c := range []struct {
		name string
		s    State
		want string
	}{
		{"below the mark", State{Disk: Disk{Size: 100, Free: 20}, Images: []Image{pulled("a", 0)}}, ""},
		{"no room for an image, below the mark", State{Disk: Disk{Size: 100, Free: 40}, NoRoom: true, Images: []Image{pulled("a", 0), loaded("b", 0)}}, "a b"},
		{"no room, and never", State{Marks: Marks{High: -1}, NoRoom: true, Disk: full, Images: []Image{pulled("a", 0)}}, ""},
		{"never", State{Marks: Marks{High: -1}, Disk: full, Images: []Image{pulled("a", 0)}}, ""},
		{"no disk", State{Disk: Disk{}, Images: []Image{pulled("a", 0)}}, ""},
		{"longest unused first", State{Disk: full, Book: book, Images: []Image{pulled("a", 0), pulled("b", 60), pulled("c", 90)}}, "c b a"},
		{"loaded last", State{Disk: full, Images: []Image{loaded("a", 0), pulled("b", 60)}}, "b a"},
		{"brought past orch stays", State{Disk: full, Images: []Image{{Digest: "sha256:x"}, pulled("b", 60)}}, "b"},
		{"by digest", State{Disk: full, Images: []Image{pulled("a", 0), pulled("b", 1)}, Needs: []Need{{Ref: "web:1", Digest: "sha256:a", Why: "runs web-0"}}}, "b"},
		{"by name", State{Disk: full, Images: []Image{pulled("a", 0), pulled("b", 1)}, Needs: []Need{{Ref: "b:1", Why: "assigned to b-0"}}}, "a"},
		{"by name and digest", State{Disk: full, Images: []Image{pulled("a", 0), pulled("b", 1)}, Needs: []Need{{Ref: "b:1@sha256:a", Why: "assigned to b-0"}}}, "b"},
		{"another tag of that name", State{Disk: full, Images: []Image{pulled("a", 0)}, Needs: []Need{{Ref: "a:2", Why: "assigned to a-0"}}}, "a"},
	} {
		if c.s.Now = t0.Add(2 * time.Hour); c.s.Marks == (Marks{}) {
			c.s.Marks = Marks{High: 85, Low: 75}
		}
		if got := plan(c.s); got != c.want {
			t.Errorf("%s: %q goes, want %q", c.name, got, c.want)
		}
	}
}

func TestWhy(t *testing.T) {
	s := State{Now: t0.Add(time.Hour), Disk: Disk{Size: 100, Free: 10}, Marks: Marks{High: 85, Low: 75}, Images: []Image{pulled("a", 0)}, Book: &Book{Last: map[string]time.Time{"sha256:a": t0}}}
	if got, want := Plan(s)[0].Why, "the disk is 90% full, more than 85%, and nothing has needed it for 1h0m0s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if s.Done(Disk{Size: 100, Free: 24}) || !s.Done(Disk{Size: 100, Free: 25}) {
		t.Error("it does not end at the low mark")
	}
	s.NoRoom, s.Disk.Free = true, 40
	if got, want := Plan(s)[0].Why, "the disk is 60% full, which left no room for an image that is wanted, and nothing has needed it for 1h0m0s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if s.Done(Disk{Size: 100, Free: 49}) || !s.Done(Disk{Size: 100, Free: 50}) {
		t.Error("it does not make a tenth of the disk free")
	}
	for n := range 5 {
		s.Needs = append(s.Needs, Need{Digest: "sha256:a", Why: fmt.Sprintf("runs web-%d", n)}, Need{Digest: "sha256:a", Why: "runs web-0"})
	}
	if got, want := s.Keep(pulled("a", 0)), "runs web-0, runs web-1, runs web-2 and 2 more"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestPreviousRevision: the last two revisions that ran here keep their images, as long as
// the service is here, and a day longer.
func TestPreviousRevision(t *testing.T) {
	var b Book
	s := func(d time.Duration) State { return State{Now: t0.Add(d), Book: &b} }
	for n, name := range []string{"one", "two", "three"} {
		if news := b.Started("default/web", "u1", int64(n+1), "sha256:"+name, t0); !news {
			t.Errorf("%s is no news", name)
		}
	}
	if b.Started("default/web", "u1", 3, "sha256:three", t0.Add(time.Minute)) {
		t.Error("a restart in place is news")
	}
	keeps := func(d time.Duration) (out []string) {
		for _, name := range []string{"one", "two", "three"} {
			if s(d).Keep(pulled(name, 0)) == "previous revision of default/web" {
				out = append(out, name)
			}
		}
		return out
	}
	if got := keeps(time.Hour); !slices.Equal(got, []string{"two", "three"}) {
		t.Errorf("kept are %v", got)
	}
	b.Started("default/web", "u1", 2, "sha256:two", t0.Add(time.Hour)) // a rollback
	b.Started("default/web", "u1", 4, "sha256:one", t0.Add(2*time.Hour))
	if got := keeps(3 * time.Hour); !slices.Equal(got, []string{"one", "three"}) {
		t.Errorf("after a rollback, kept are %v", got)
	}
	b.Assigned([]string{"default/web", "default/other"}, []string{"", "sha256:one"}, t0.Add(20*time.Hour))
	if got := keeps(43 * time.Hour); len(got) != 2 {
		t.Errorf("while it is here, kept are %v", got)
	}
	if got := keeps(45 * time.Hour); len(got) != 0 {
		t.Errorf("a day after it left, kept are %v", got)
	}
	before := b.Clone()
	b.Forget(func(d string) bool { return d == "sha256:one" }, t0.Add(30*24*time.Hour))
	if len(b.Services) != 0 || len(b.Last) != 1 || len(before.Services) != 1 || len(before.Last) != 3 {
		t.Errorf("left are %+v; the clone has %+v", b, before)
	}
}

// TestPreviousRevisionOfANewService: a service that was deleted and made anew by its name
// begins with revision 1, and has a way back too.
func TestPreviousRevisionOfANewService(t *testing.T) {
	var b Book
	for n := range int64(8) {
		b.Started("default/web", "u1", n+1, "sha256:before", t0)
	}
	b.Started("default/web", "u2", 1, "sha256:one", t0)
	b.Started("default/web", "u2", 2, "sha256:two", t0)
	for name, want := range map[string]string{"before": "", "one": "previous revision of default/web", "two": "previous revision of default/web"} {
		if got := (State{Now: t0, Book: &b}).Keep(pulled(name, 0)); got != want {
			t.Errorf("%s: kept for %q, want %q", name, got, want)
		}
	}
}

// TestNothingNeededGoes: whatever there is, what is needed or chosen before stays, and the
// same state gives the same plan.
func TestNothingNeededGoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b Book
		s := State{Now: t0.Add(time.Hour), Disk: Disk{Size: 100, Free: rapid.Int64Range(0, 100).Draw(t, "free")}, Marks: Marks{High: rapid.IntRange(0, 100).Draw(t, "high"), Low: 10}, Book: &b}
		must := map[string]bool{}
		for n := range rapid.IntRange(0, 12).Draw(t, "images") {
			i := pulled(fmt.Sprint("i", n), rapid.IntRange(0, 100).Draw(t, "at"))
			i.Origin = Origin(rapid.IntRange(0, 2).Draw(t, "origin"))
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				s.Needs = append(s.Needs, Need{Digest: i.Digest, Why: "runs"})
				must[i.Digest] = true
			case 1:
				s.Needs = append(s.Needs, Need{Ref: strings.TrimPrefix(i.Refs[0], "docker.io/library/"), Why: "assigned"})
				must[i.Digest] = true
			case 2:
				b.Started("default/web"+i.Digest, "u1", 1, i.Digest, t0)
				must[i.Digest] = true
			}
			must[i.Digest] = must[i.Digest] || i.Origin == Unknown
			s.Images = append(s.Images, i)
		}
		out := Plan(s)
		if (s.Marks.High == 0 || s.Disk.Used() < s.Marks.High) && len(out) > 0 {
			t.Fatalf("%d go at %d%%", len(out), s.Disk.Used())
		}
		seenLoaded := false
		for _, r := range out {
			if must[r.Image.Digest] || r.Why == "" {
				t.Fatalf("%s goes: %s", r.Image.Digest, r.Why)
			}
			if seenLoaded && r.Image.Origin != Loaded {
				t.Fatalf("%s goes after a loaded one", r.Image.Digest)
			}
			seenLoaded = r.Image.Origin == Loaded
		}
		slices.Reverse(s.Images)
		if again := plan(s); again != plan(State{Now: s.Now, Disk: s.Disk, Marks: s.Marks, Images: s.Images, Needs: s.Needs, Book: s.Book}) || len(Plan(s)) != len(out) || (len(out) > 0 && Plan(s)[0].Image.Digest != out[0].Image.Digest) {
			t.Fatalf("another order of images gives %q", again)
		}
	})
}
