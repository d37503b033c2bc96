package election_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/internal/controller/commit"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/mem"
)

var discard = slog.New(slog.DiscardHandler)

func seize(t *testing.T, s store.Store, id string) election.Lease {
	t.Helper()
	l, err := election.Seize(t.Context(), s, id)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestSeizeRaisesTerm(t *testing.T) {
	s := mem.New()
	a := seize(t, s, "a")
	b := seize(t, s, "b")
	if a.Term != 1 || b.Term != 2 || b.ID != "b" {
		t.Fatalf("leases %+v, %+v; want terms 1 and 2", a, b)
	}
	h, rev, err := election.Current(t.Context(), s)
	if err != nil || h != (election.Holder{ID: "b", Term: 2}) || rev != b.LeaderKeyRev {
		t.Fatalf("current %+v at %d (%v)", h, rev, err)
	}
	try := func(l election.Lease) error {
		_, err := s.Txn(t.Context(), store.Txn{If: []store.Compare{l.Fence()}})
		return err
	}
	if err := try(a); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the old fence: %v, want conflict", err)
	}
	if err := try(b); err != nil {
		t.Errorf("the new fence: %v", err)
	}
	if err := election.Resign(t.Context(), s, a); !errors.Is(err, election.ErrDeposed) {
		t.Errorf("the deposed resigns: %v", err)
	}
	if err := election.Resign(t.Context(), s, b); err != nil {
		t.Fatal(err)
	}
	if err := try(b); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the fence after resigning: %v, want conflict", err)
	}
	if c := seize(t, s, "a"); c.Term != 3 {
		t.Errorf("term %d after a vacancy, want 3", c.Term)
	}
}

func TestSeizeAfterUnknown(t *testing.T) {
	for _, applied := range []bool{false, true} {
		s := mem.New()
		s.UnknownNext(applied)
		if _, err := election.Seize(t.Context(), s, "a"); !errors.Is(err, store.ErrUnknown) {
			t.Fatalf("got %v, want unknown", err)
		}
		want := uint64(1)
		if applied {
			want = 2 // the unknown term was written, and nobody led it
		}
		if l := seize(t, s, "a"); l.Term != want {
			t.Errorf("applied=%v: term %d, want %d", applied, l.Term, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := mem.New()
	if _, err := election.Seize(t.Context(), s, ""); !errors.Is(err, election.ErrNoID) {
		t.Errorf("seize without id: %v", err)
	}
	if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(election.LeaderKey, []byte("{"))}}); err != nil {
		t.Fatal(err)
	}
	if _, err := election.Seize(t.Context(), s, "a"); err == nil {
		t.Error("a spoilt leader key was overwritten: its term may be higher than ours")
	}
}

func TestWatchTellsWho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		defer s.Close()
		for _, c := range []struct {
			name string
			over func(election.Lease) error
			want string
		}{
			{"taken over", func(election.Lease) error { _, err := election.Seize(t.Context(), s, "b"); return err }, "deposed: b leads term 2"},
			{"resigned", func(l election.Lease) error { return election.Resign(t.Context(), s, l) }, "deposed: term 3 was resigned"},
			{"removed", func(election.Lease) error {
				_, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Delete(election.LeaderKey)}})
				return err
			}, "deposed: the leader key was removed or spoilt"},
		} {
			l := seize(t, s, "a")
			got := make(chan error, 1)
			go func() { got <- l.Watch(t.Context(), s) }()
			synctest.Wait()
			// A key beside it, and time, change nothing.
			if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(election.LeaderKey+"2", nil)}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			select {
			case err := <-got:
				t.Fatalf("%s: the watch ended early: %v", c.name, err)
			default:
			}
			if err := c.over(l); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if err := <-got; !errors.Is(err, election.ErrDeposed) || err.Error() != c.want {
				t.Errorf("%s: got %v, want %s", c.name, err, c.want)
			}
			if took := time.Since(began); took != 0 {
				t.Errorf("%s: learnt after %v, want at once", c.name, took)
			}
		}
	})
}

func TestWatchOverCompaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		defer s.Close()
		old := seize(t, s, "a")
		l := seize(t, s, "b")
		var rev int64
		for range 3 {
			var err error
			if rev, err = s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put("x", nil)}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Compact(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if err := old.Watch(t.Context(), s); !errors.Is(err, election.ErrDeposed) {
			t.Errorf("watch of a past term: %v", err)
		}
		got := make(chan error, 1)
		go func() { got <- l.Watch(t.Context(), s) }()
		synctest.Wait()
		if len(got) != 0 {
			t.Fatalf("watch of the present term ended: %v", <-got)
		}
		seize(t, s, "c")
		if err := <-got; !errors.Is(err, election.ErrDeposed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestIncarnation(t *testing.T) {
	s := mem.New()
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			id, err := election.Incarnation(t.Context(), s, func() string { return fmt.Sprint("life-", i) })
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("incarnations %q, want one", ids)
		}
	}
	s = mem.New()
	s.UnknownNext(true)
	if _, err := election.Incarnation(t.Context(), s, func() string { return "x" }); !errors.Is(err, store.ErrUnknown) {
		t.Fatalf("got %v, want unknown", err)
	}
	if id, err := election.Incarnation(t.Context(), s, func() string { return "y" }); err != nil || id != "x" {
		t.Fatalf("got %q, %v; want x, which was written", id, err)
	}
}

// member is an etcd member whose leadership the test moves.
type member struct {
	mu      sync.Mutex
	leads   bool
	changed chan struct{}
}

func newMember() *member { return &member{changed: make(chan struct{})} }

func (m *member) IsLeader() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leads
}

func (m *member) LeaderChanged() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (m *member) set(leads bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leads = leads
	close(m.changed)
	m.changed = make(chan struct{})
}

func TestRunFollowsEtcdLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		var story []string
		tell := func(f string, a ...any) {
			mu.Lock()
			defer mu.Unlock()
			story = append(story, fmt.Sprintf(f, a...))
		}
		members := map[string]*member{"a": newMember(), "b": newMember()}
		for id, m := range members {
			wg.Go(func() {
				err := election.Run(ctx, election.Config{
					Store: s, ID: id, Eligible: election.WhenEtcdLeads(m), Log: discard,
					Backoff: func(int) time.Duration { return 50 * time.Millisecond },
				}, func(ctx context.Context, l election.Lease) error {
					tell("%s leads %d", l.ID, l.Term)
					<-ctx.Done()
					tell("%s over: %v", l.ID, context.Cause(ctx))
					return ctx.Err()
				})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("run of %s: %v", id, err)
				}
			})
		}
		time.Sleep(time.Minute) // nobody is eligible
		members["a"].set(true)
		time.Sleep(time.Minute)
		members["b"].set(false) // an election that changed nothing for b
		members["a"].set(false) // etcd's leader moves: a leads on until b takes over
		time.Sleep(time.Minute)
		members["b"].set(true)
		time.Sleep(time.Minute)
		cancel()
		wg.Wait()
		want := []string{
			"a leads 1",
			"a over: deposed: b leads term 2",
			"b leads 2",
			"b over: context canceled",
		}
		// b's start and a's end are at the same instant; either may be told first.
		if len(story) == 4 && story[1] == want[2] {
			story[1], story[2] = story[2], story[1]
		}
		if !reflect.DeepEqual(story, want) {
			t.Fatalf("story:\n%q\nwant:\n%q", story, want)
		}
		if h, _, err := election.Current(t.Context(), s); err != nil || h != (election.Holder{Term: 2}) {
			t.Errorf("after an orderly end the holder is %+v (%v), want none of term 2", h, err)
		}
	})
}

func TestRunBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s.FailNext(store.ErrUnknown)
		var asked []int
		terms := 0
		err := election.Run(ctx, election.Config{
			Store: s, ID: "a", Eligible: election.Sole(), Log: discard,
			Backoff: func(n int) time.Duration { asked = append(asked, n); return time.Second },
		}, func(ctx context.Context, l election.Lease) error {
			terms++
			switch terms {
			case 1, 3:
				return errors.New("commit failed")
			case 2:
				time.Sleep(time.Minute) // a good term wipes the slate
				return errors.New("commit failed")
			}
			s.Close()
			<-ctx.Done()
			return nil
		})
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("run ended with %v, want the closed store", err)
		}
		if want := []int{1, 2, 1, 2}; !reflect.DeepEqual(asked, want) {
			t.Errorf("back-off was asked for %v, want %v", asked, want)
		}
	})
}

// TestContendersOverOneStore lets two greedy controllers depose each other with
// commits, delays and unknown results in between. Every write that the store
// took must be of the term that the leader key had at that moment.
func TestContendersOverOneStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		defer s.Close()
		rng := rand.New(rand.NewSource(1))
		var mu sync.Mutex
		random := func(n int) int { mu.Lock(); defer mu.Unlock(); return rng.Intn(n) }
		s.SetDelay(func(mem.Call) time.Duration { return time.Duration(random(20)) * time.Millisecond })
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		refused := 0
		for _, id := range []string{"a", "b"} {
			wg.Go(func() {
				election.Run(ctx, election.Config{
					Store: s, ID: id, Eligible: election.Sole(), Log: discard,
					Backoff: func(int) time.Duration { return time.Duration(100+random(400)) * time.Millisecond },
				}, func(_ context.Context, l election.Lease) error {
					// Deaf to its deposal, so that only the fence can stop it.
					d := commit.New(s, l.Fence(), commit.Config{Log: discard})
					done := make(chan error, 1)
					go func() { done <- d.Run(ctx) }()
					for i := uint64(0); ; i++ {
						if random(200) == 0 {
							s.UnknownNext(random(2) == 0)
						}
						d.Submit(commit.Batch{Seq: i, Ops: []store.Op{store.Put("log", fmt.Append(nil, l.Term))}})
						if r, ok := <-d.Results(); !ok || r.Err != nil {
							mu.Lock()
							if errors.Is(r.Err, commit.ErrDeposed) {
								refused++
							}
							mu.Unlock()
							return <-done
						}
					}
				})
			})
		}
		wg.Wait()
		s.SetDelay(nil)
		verify, end := context.WithCancel(t.Context())
		defer end()
		_, last, err := s.Range(verify, "")
		if err != nil {
			t.Fatal(err)
		}
		term, writes, terms := "0", 0, 0
		w := s.Watch(verify, "", 1)
		for c := range w.Changes() {
			for _, e := range c.Events {
				switch e.Key {
				case election.LeaderKey:
					var h election.Holder
					if err := json.Unmarshal(e.Value, &h); err != nil {
						t.Fatal(err)
					}
					if h.ID == "" {
						term = "vacant"
						break
					}
					terms++
					if now := fmt.Sprint(h.Term); now == term {
						t.Fatalf("revision %d: term %s twice", c.Rev, now)
					} else {
						term = now
					}
				case "log":
					writes++
					if string(e.Value) != term {
						t.Fatalf("revision %d: a write of term %s in term %s", c.Rev, e.Value, term)
					}
				}
			}
			if c.Rev == last {
				break
			}
		}
		if writes < 100 || terms < 20 || refused < 10 {
			t.Fatalf("%d writes in %d terms, %d refusals: too quiet to prove anything", writes, terms, refused)
		}
	})
}

// present says that the named controllers live.
type present struct {
	mu   sync.Mutex
	live map[string]bool
}

func (p *present) IsPresent(_ context.Context, name string) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live[name], nil
}

func (p *present) set(name string, live bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live[name] = live
}

// TestStandsBy: of two controllers on one store the second waits while the first lives,
// takes over when it is gone, and keeps the lead when that comes back.
func TestStandsBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		defer s.Close()
		p := &present{live: map[string]bool{}}
		var mu sync.Mutex
		var story []string
		run := func(id string) (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			p.set(id, true)
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = election.Run(ctx, election.Config{Store: s, ID: id, Eligible: election.WhenVacant(s, id, p, discard), Log: discard,
					Backoff: func(int) time.Duration { return 50 * time.Millisecond }},
					func(ctx context.Context, l election.Lease) error {
						mu.Lock()
						story = append(story, fmt.Sprintf("%s leads %d", l.ID, l.Term))
						mu.Unlock()
						<-ctx.Done()
						return ctx.Err()
					})
			}()
			return func() { cancel(); <-done; p.set(id, false) }
		}
		stopA := run("a")
		time.Sleep(time.Minute)
		stopB := run("b")
		time.Sleep(time.Minute) // a lives: nothing happens
		stopA()
		time.Sleep(time.Minute)
		stopA = run("a") // b leads now
		time.Sleep(time.Minute)
		// b dies without a word: its key stays, and it is not there any more.
		p.set("b", false)
		time.Sleep(time.Minute)
		stopA()
		stopB()
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"a leads 1", "b leads 2", "a leads 3"}; len(story) < 3 || !reflect.DeepEqual(story[:3], want) {
			t.Errorf("story %q, want %q", story, want)
		}
	})
}
