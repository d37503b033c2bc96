package sim

import (
	"slices"
	"testing"
)

// seedsInTests is how many seeds run here, under the race detector; `make sim`
// runs 500.
const seedsInTests = 20

// seedsTrying run here too: what is rare, such as a replica that fails on one node
// alone after its rollout, or a container that starts before its Secrets are there, is in
// them.
var seedsTrying = []uint64{27, 29, 42}

func TestSeeds(t *testing.T) {
	faults := map[Fault]bool{}
	var spares, terms int
	var rolled Result
	seeds := append([]uint64(nil), seedsTrying...)
	for seed := uint64(1); seed <= seedsInTests; seed++ {
		seeds = append(seeds, seed)
	}
	for _, seed := range seeds {
		r := Run(Config{Seed: seed})
		if r.Violation != nil {
			for _, line := range r.Story {
				t.Log(line)
			}
			t.Fatalf("seed %d: %s\nreplay: %s", seed, r.Violation, r.Replay())
		}
		for k := range r.Faults {
			faults[k] = true
		}
		spares, terms = spares+r.Spares, terms+r.Terms
		rolled.RolloutsComplete, rolled.RolloutsFailed, rolled.RolledBack = rolled.RolloutsComplete+r.RolloutsComplete, rolled.RolloutsFailed+r.RolloutsFailed, rolled.RolledBack+r.RolledBack
		rolled.RolloutWords, rolled.Globals, rolled.Tried = rolled.RolloutWords+r.RolloutWords, rolled.Globals+r.Globals, rolled.Tried+r.Tried
		rolled.ConfigVersions, rolled.ConfigRevisions, rolled.ConfigsRefused, rolled.ConfigsMissing = rolled.ConfigVersions+r.ConfigVersions, rolled.ConfigRevisions+r.ConfigRevisions, rolled.ConfigsRefused+r.ConfigsRefused, rolled.ConfigsMissing+r.ConfigsMissing
		rolled.Pinned += r.Pinned
		rolled.Completions, rolled.JobsComplete, rolled.JobsFailed = rolled.Completions+r.Completions, rolled.JobsComplete+r.JobsComplete, rolled.JobsFailed+r.JobsFailed
		rolled.Volumes, rolled.VolumesRemoved = rolled.Volumes+r.Volumes, rolled.VolumesRemoved+r.VolumesRemoved
	}
	AllFaults.Each(func(k Fault) {
		if !faults[k] {
			t.Errorf("no run had a fault of kind %s", k)
		}
	})
	if rolled.RolloutsComplete < seedsInTests || rolled.RolloutsFailed == 0 || rolled.RolledBack == 0 || rolled.RolloutWords == 0 || rolled.Globals == 0 || rolled.Tried == 0 {
		t.Errorf("these runs try too little of rollouts: %+v", rolled)
	}
	if rolled.ConfigVersions < seedsInTests || rolled.ConfigRevisions == 0 || rolled.ConfigsRefused == 0 || rolled.ConfigsMissing == 0 {
		t.Errorf("these runs try too little of Configs and Secrets: %+v", rolled)
	}
	if rolled.Pinned < seedsInTests {
		t.Errorf("these runs try too little of tags: %+v", rolled)
	}
	if rolled.Completions < seedsInTests || rolled.JobsComplete == 0 || rolled.JobsFailed == 0 {
		t.Errorf("these runs try too little of jobs: %+v", rolled)
	}
	if rolled.Volumes < seedsInTests/2 || rolled.VolumesRemoved == 0 {
		t.Errorf("these runs try too little of volumes: %+v", rolled)
	}
	if spares == 0 || terms < 2*seedsInTests {
		t.Errorf("%d spares, %d terms: these runs try too little", spares, terms)
	}
}

// TestReplayIsTheSame: the same seed gives the same run, event by event, told or
// not.
func TestReplayIsTheSame(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		a, b := Run(Config{Seed: seed, Tell: true}), Run(Config{Seed: seed, Tell: true})
		if a.Hash != b.Hash || !slices.Equal(a.Story, b.Story) {
			for i := range a.Story {
				if i >= len(b.Story) || a.Story[i] != b.Story[i] {
					t.Fatalf("seed %d: line %d differs:\n%s\n%s", seed, i, a.Story[i], append(b.Story, "")[min(i, len(b.Story))])
				}
			}
			t.Fatalf("seed %d: hash %x and %x", seed, a.Hash, b.Hash)
		}
		if c := Run(Config{Seed: seed}); c.Hash != a.Hash {
			t.Fatalf("seed %d: it goes another way when it is told: %x, %x", seed, c.Hash, a.Hash)
		}
	}
}

func TestSeedsDiffer(t *testing.T) {
	if a, b := Run(Config{Seed: 1, Steps: 100}), Run(Config{Seed: 2, Steps: 100}); a.Hash == b.Hash {
		t.Error("two seeds give one run")
	}
}

func TestFaultsCanBeLeftOut(t *testing.T) {
	r := Run(Config{Seed: 3, Without: AllFaults})
	if r.Violation != nil {
		t.Fatal(r.Violation)
	}
	for k, n := range r.Faults {
		if n > 0 {
			t.Errorf("%d faults of kind %s", n, k)
		}
	}
	for _, text := range []string{"", "cut", "power-cut,stun"} {
		if f, err := ParseFaults(text); err != nil || f.String() != text {
			t.Errorf("%q is read as %q, %v", text, f, err)
		}
	}
	if _, err := ParseFaults("plague"); err == nil {
		t.Error("plague is taken for a kind of fault")
	}
}

// TestQueue: by time, then in the order of putting in.
func TestQueue(t *testing.T) {
	var q queue
	var got []int
	for i, at := range []int64{5, 1, 3, 1, 5, 2} {
		q.push(at, false, func() { got = append(got, i) })
	}
	for h, ok := q.pop(); ok; h, ok = q.pop() {
		h.do()
	}
	if want := []int{1, 3, 5, 2, 0, 4}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNumbers(t *testing.T) {
	for _, text := range []string{"", "7", "1-3,7", "2,4-5"} {
		if list, err := ParseNumbers(text); err != nil || Numbers(list) != text {
			t.Errorf("%q is read as %v, %v", text, list, err)
		}
	}
	for _, text := range []string{"a", "3-1", "0", "1-", "1-9999999999"} {
		if list, err := ParseNumbers(text); err == nil {
			t.Errorf("%q is read as %v", text, list)
		}
	}
}
