package usage

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/api"
)

// node uses what a test says, steadily since start.
type node struct {
	mu       sync.Mutex
	start    time.Time
	own      int64            // milli
	rates    map[string]int64 // milli, by container
	readings int
	err      error
	diskErr  error
}

func (n *node) since(milli int64) time.Duration {
	return time.Duration(int64(time.Since(n.start)) / 1000 * milli)
}

func (n *node) Usage(context.Context) ([]ctrd.ContainerUsage, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.readings++
	if n.err != nil {
		return nil, n.err
	}
	var out []ctrd.ContainerUsage
	for _, id := range []string{"a", "b", "c"} {
		if milli, ok := n.rates[id]; ok {
			out = append(out, ctrd.ContainerUsage{ID: id, Replica: api.ReplicaKey{Namespace: "default", Service: "web", Epoch: 7}, Container: id, CPU: n.since(milli), Memory: 1 << 20})
		}
	}
	return out, nil
}

func (n *node) Disk(context.Context) (int64, int64, error) { return 100, 40, n.diskErr }

func newNode() (*node, *Meter) {
	n := &node{start: time.Now().Add(-time.Hour), own: 1500, rates: map[string]int64{"a": 250, "b": 3}}
	m := New(n)
	m.machine = func() (machine, error) { return machine{n.since(n.own), 1000, 400}, nil }
	return n, m
}

func TestNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, m := newNode()
		took := func(want time.Duration, readings int) Usage {
			t.Helper()
			began, before := time.Now(), n.readings
			u, err := m.Now(t.Context())
			if err != nil || time.Since(began) != want || n.readings-before != readings {
				t.Errorf("took %s and %d readings, want %s and %d: %v", time.Since(began), n.readings-before, want, readings, err)
			}
			return u
		}
		u := took(Window, 2) // nobody has asked before
		if u.Window != Window || u.CPUMilli != 1500 || u.Memory != 600 || u.MemoryTotal != 1000 || u.Disk != 100 || u.DiskFree != 40 {
			t.Errorf("%+v", u)
		}
		if len(u.Containers) != 2 || u.Containers[0].CPUMilli != 250 || u.Containers[1].CPUMilli != 3 || u.Containers[1].Memory != 1<<20 {
			t.Errorf("containers %+v", u.Containers)
		}
		time.Sleep(WindowMin - time.Millisecond)
		if again := took(0, 0); !reflect.DeepEqual(again, u) {
			t.Errorf("asked again at once: %+v, was %+v", again, u)
		}
		time.Sleep(2*time.Second - WindowMin + time.Millisecond)
		if u = took(0, 1); u.Window != 2*time.Second || u.CPUMilli != 1500 { // as `top -w` does
			t.Errorf("%+v", u)
		}
		time.Sleep(WindowMax + time.Millisecond)
		if u = took(Window, 2); u.Window != Window {
			t.Errorf("after long: %+v", u)
		}
		// One ends, one begins: it has used what it has, in less than the window.
		delete(n.rates, "a")
		n.rates["c"] = 0
		time.Sleep(time.Second)
		u = took(0, 1)
		if len(u.Containers) != 2 || u.Containers[1].ID != "c" || u.Containers[1].CPUMilli != 0 {
			t.Errorf("containers %+v", u.Containers)
		}
		n.diskErr = errors.New("containerd is away")
		time.Sleep(time.Second)
		if u = took(0, 1); u.Disk != 0 || u.DiskFree != 0 || u.CPUMilli != 1500 {
			t.Errorf("no disk: %+v", u)
		}
	})
}

// Whoever asks while another measures gets what that one gets, and pays nothing.
func TestManyAskAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, m := newNode()
		began := time.Now()
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if u, err := m.Now(t.Context()); err != nil || u.CPUMilli != 1500 {
					t.Errorf("%+v, %v", u, err)
				}
			})
		}
		all.Wait()
		if n.readings != 2 || time.Since(began) != Window {
			t.Errorf("%d readings in %s", n.readings, time.Since(began))
		}
	})
}

func TestNowEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, m := newNode()
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := m.Now(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		n.err = errors.New("containerd is away")
		if _, err := m.Now(t.Context()); !errors.Is(err, n.err) {
			t.Errorf("%v", err)
		}
		n.err = nil
		if u, err := m.Now(t.Context()); err != nil || u.CPUMilli != 1500 {
			t.Errorf("afterwards: %+v, %v", u, err)
		}
	})
}

func TestByReplica(t *testing.T) {
	web, db := api.ReplicaKey{Service: "web"}, api.ReplicaKey{Service: "db"}
	of := func(k api.ReplicaKey, name string) Container {
		return Container{ContainerUsage: ctrd.ContainerUsage{Replica: k, Container: name}}
	}
	got := Usage{Containers: []Container{of(web, "main"), of(db, "main"), of(web, "side")}}.ByReplica()
	want := []Replica{{web, []Container{of(web, "main"), of(web, "side")}}, {db, []Container{of(db, "main")}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseMachine(t *testing.T) {
	const stat = "cpu  100 20 30 4000 500 6 7 80 90 0\ncpu0 1 2 3\n"
	const mem = "MemTotal:       16384 kB\nMemFree:            1 kB\nMemAvailable:   4096 kB\nHugePages_Total:       0\n"
	m, err := parseMachine(stat, mem)
	if want := (machine{1630 * time.Millisecond, 16 << 20, 4 << 20}); err != nil || m != want {
		t.Errorf("%+v, %v; want %+v", m, err, want)
	}
	for _, bad := range [][2]string{{"", mem}, {"intr 1 2 3 4 5 6 7 8", mem}, {"cpu  x 20 30 4000 500 6 7 80 90 0", mem}, {stat, ""}} {
		if m, err := parseMachine(bad[0], bad[1]); err == nil {
			t.Errorf("%q: %+v", bad, m)
		}
	}
	if m, err := readMachine(); err != nil || m.cpu <= 0 || m.memory <= m.available || m.available <= 0 {
		t.Errorf("this machine: %+v, %v", m, err)
	}
}
