package view

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/orchctl/orch/internal/controller/core"
)

func key(kind, ns, name string) core.ViewKey {
	return core.ViewKey{Kind: kind, Namespace: ns, Name: name}
}

func put(kind, ns string, names ...string) core.Publish {
	var p core.Publish
	for _, n := range names {
		p.Put = append(p.Put, core.Entry{Key: key(kind, ns, n), Object: n})
	}
	return p
}

func names(s *Snapshot, kind, ns string) []string {
	var out []string
	s.All(kind, ns, func(e core.Entry) bool { out = append(out, e.Key.Namespace+"/"+e.Key.Name); return true })
	return out
}

func TestOrderAndNamespaces(t *testing.T) {
	v := New()
	if v.Snapshot() != nil {
		t.Error("a snapshot before anything was published")
	}
	v.Publish(put("Replica", "b", "web-10@3", "web-2@1", "web-2@10", "web-2@9"))
	v.Publish(put("Replica", "a", "db-0"))
	v.Publish(put("Node", "", "n10", "n9"))
	s := v.Snapshot()
	for _, c := range []struct {
		kind, ns string
		want     []string
	}{
		{"Replica", "b", []string{"b/web-2@1", "b/web-2@9", "b/web-2@10", "b/web-10@3"}},
		{"Replica", "", []string{"a/db-0", "b/web-2@1", "b/web-2@9", "b/web-2@10", "b/web-10@3"}},
		{"Node", "", []string{"/n9", "/n10"}},
		{"Service", "", nil},
	} {
		if got := names(s, c.kind, c.ns); !slices.Equal(got, c.want) {
			t.Errorf("%s in %q: got %v, want %v", c.kind, c.ns, got, c.want)
		}
	}
}

func TestANewTermReplacesTheOld(t *testing.T) {
	v := New()
	v.Begin()
	v.Publish(put("Node", "", "n1", "n2"))
	ended := time.Unix(7, 0)
	v.End(ended)
	if got := v.Snapshot().StaleSince; !got.Equal(ended) {
		t.Errorf("stale since %v, want %v", got, ended)
	}
	_, w := v.Watch("", "")
	defer w.Close()
	v.Begin()
	if v.Begun() || v.Snapshot().StaleSince.IsZero() {
		t.Error("fresh before the new term has published")
	}
	v.Publish(put("Node", "", "n2", "n3"))
	if got := names(v.Snapshot(), "Node", ""); !slices.Equal(got, []string{"/n2", "/n3"}) || !v.Snapshot().StaleSince.IsZero() {
		t.Errorf("got %v, stale since %v", got, v.Snapshot().StaleSince)
	}
	changes, err := w.Next(context.Background())
	if err != nil || len(changes) != 3 || !changes[2].Gone || changes[2].Key.Name != "n1" {
		t.Errorf("changes: %v, %v; want n2, n3, n1 gone", changes, err)
	}
}

func TestASlowWatcherIsCut(t *testing.T) {
	v := New()
	_, slow := v.Watch("Node", "")
	_, other := v.Watch("Service", "")
	defer other.Close()
	p := put("Node", "", "n1")
	for range unreadMax + 1 {
		v.Publish(p)
	}
	if _, err := slow.Next(context.Background()); !errors.Is(err, ErrTooSlow) {
		t.Errorf("got %v, want ErrTooSlow", err)
	}
	v.Publish(put("Service", "x", "web"))
	if got, err := other.Next(context.Background()); err != nil || len(got) != 1 {
		t.Errorf("the other watcher got %v, %v", got, err)
	}
	if len(v.watchers) != 1 {
		t.Errorf("%d watchers are left, want 1", len(v.watchers))
	}
}

// Every snapshot with the changes after it must come to what the view holds in
// the end, whatever the writer does meanwhile; pairs published together must be
// seen together.
func TestSnapshotsAreConsistent(t *testing.T) {
	v := New()
	v.Publish(put("Pair", "a", "0"))
	const rounds = 3000
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				s, w := v.Watch("Pair", "")
				if s == nil {
					t.Error("no snapshot")
					return
				}
				a, b := len(names(s, "Pair", "x")), len(names(s, "Pair", "y"))
				if a != b {
					t.Errorf("a snapshot holds %d of x and %d of y", a, b)
				}
				w.Close()
			}
		})
	}
	start, w := v.Watch("Pair", "")
	held := map[core.ViewKey]any{}
	start.All("Pair", "", func(e core.Entry) bool { held[e.Key] = e.Object; return true })
	for i := range rounds {
		n := strconv.Itoa(i)
		p := core.Publish{Put: []core.Entry{{Key: key("Pair", "x", n), Object: i}, {Key: key("Pair", "y", n), Object: i}}}
		if i >= 50 {
			old := strconv.Itoa(i - 50)
			p.Gone = []core.ViewKey{key("Pair", "x", old), key("Pair", "y", old)}
		}
		v.Publish(p)
	}
	close(done)
	readers.Wait()
	changes, err := w.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if c.Gone {
			delete(held, c.Key)
		} else {
			held[c.Key] = c.Object
		}
	}
	n := 0
	v.Snapshot().All("Pair", "", func(e core.Entry) bool {
		n++
		if held[e.Key] != e.Object {
			t.Errorf("%v: watched %v, listed %v", e.Key, held[e.Key], e.Object)
		}
		return true
	})
	if n != len(held) || n != 101 {
		t.Errorf("listed %d, watched %d, want 101", n, len(held))
	}
}

// The order must be one: total, and the same whichever way it is asked.
func TestNaturalIsAnOrder(t *testing.T) {
	text := rapid.StringMatching(`[a0-9@-]{0,6}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := text.Draw(t, "a"), text.Draw(t, "b"), text.Draw(t, "c")
		if got, back := natural(a, b), natural(b, a); got != -back || got == 0 && a != b {
			t.Fatalf("natural(%q, %q) = %d, the other way %d", a, b, got, back)
		}
		if natural(a, b) <= 0 && natural(b, c) <= 0 && natural(a, c) > 0 {
			t.Fatalf("%q <= %q <= %q, but not the first to the last", a, b, c)
		}
	})
	for _, pair := range [][2]string{{"web-2", "web-10"}, {"9", "10"}, {"a", "b"}, {"web", "web-0"}, {"web-0", "web-0@1"}, {"web-0@2", "web-0@11"}, {"", "a"}} {
		if natural(pair[0], pair[1]) >= 0 {
			t.Errorf("%q does not come before %q", pair[0], pair[1])
		}
	}
}

// Within must find what a look at everything finds, in the same order.
func TestWithin(t *testing.T) {
	text := rapid.StringMatching(`[an0-2.-]{1,3}(/[0-9]{1,2})?`)
	rapid.Check(t, func(t *rapid.T) {
		v := New()
		v.Publish(put("Node", "", "n1", "z"))
		v.Publish(put("Zebra", "", "n1/1"))
		v.Publish(put("Verdict", "", rapid.SliceOfN(text, 1, 30).Draw(t, "names")...))
		parent := rapid.StringMatching(`[an0-2.-]{1,3}`).Draw(t, "parent")
		var want, got []string
		s := v.Snapshot()
		s.All("Verdict", "", func(e core.Entry) bool {
			if strings.HasPrefix(e.Key.Name, parent+"/") {
				want = append(want, e.Key.Name)
			}
			return true
		})
		s.Within("Verdict", "", parent+"/", func(e core.Entry) bool { got = append(got, e.Key.Name); return true })
		if !slices.Equal(got, want) {
			t.Fatalf("within %q: got %v, want %v", parent, got, want)
		}
		if len(want) > 0 {
			n := 0
			s.Within("Verdict", "", parent+"/", func(core.Entry) bool { n++; return false })
			if n != 1 {
				t.Fatalf("visited %d after the first refusal", n)
			}
		}
	})
}

func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			v := New()
			var all core.Publish
			for i := range size {
				all.Put = append(all.Put, core.Entry{Key: key("Replica", "default", fmt.Sprintf("web-%d@%d", i, i)), Object: i})
			}
			v.Publish(all)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				v.Publish(core.Publish{Put: all.Put[i%size : i%size+1]})
			}
		})
	}
}
