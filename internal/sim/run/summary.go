package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/orchctl/orch/internal/sim"
)

// summary is what a number of seeds came to: a line of out/bench/sim.jsonl.
type summary struct {
	Name  string `json:"name"`
	Seeds int    `json:"seeds"`
	First uint64 `json:"first"`
	// Took is in seconds of the machine's time.
	Took    float64 `json:"took_s"`
	Cores   int     `json:"cores"`
	Steps   int     `json:"steps"`
	Virtual float64 `json:"virtual_h"`
	// Settled is in seconds, the longest time that a run took to settle.
	Settled     float64        `json:"settled_max_s"`
	Without     string         `json:"without,omitempty"`
	Faults      map[string]int `json:"faults"`
	Requests    int            `json:"requests"`
	Commits     int            `json:"commits"`
	Terms       int            `json:"terms"`
	Starts      int            `json:"starts"`
	Stops       int            `json:"stops"`
	Spares      int            `json:"spares"`
	Reliefs     int            `json:"reliefs"`
	Dead        int            `json:"dead"`
	Impaired    int            `json:"impaired"`
	Damped      int            `json:"damped"`
	Freezes     int            `json:"freezes"`
	Degraded    int            `json:"degraded"`
	LeasesEnded int            `json:"leases_ended"`
	Drains      int            `json:"drains"`
	Drained     int            `json:"drained"`
	Moves       int            `json:"moves"`
	Conflicts   int            `json:"conflicts"`
	HandedOver  int            `json:"handed_over"`
	Gentle      int            `json:"gentle"`
	Complete    int            `json:"rollouts_complete"`
	FailedOnes  int            `json:"rollouts_failed"`
	RolledBack  int            `json:"rolled_back"`
	Words       int            `json:"rollout_words"`
	Globals     int            `json:"global_starts"`
	Tried       int            `json:"tried_elsewhere"`
	Versions    int            `json:"config_versions"`
	Revised     int            `json:"config_revisions"`
	Refused     int            `json:"configs_refused"`
	Late        int            `json:"configs_missing"`
	Completions int            `json:"completions"`
	JobsDone    int            `json:"jobs_complete"`
	JobsFailed  int            `json:"jobs_failed"`
	Volumes     int            `json:"volumes"`
	Removed     int            `json:"volumes_removed"`
	Failed      *failure       `json:"failed,omitempty"`
	settled     float64        // the sum
}

// failure is the first seed that broke an invariant.
type failure struct {
	Seed      uint64 `json:"seed"`
	Invariant string `json:"invariant"`
}

func (s *summary) add(r sim.Result) {
	s.Seeds++
	s.Steps += r.Steps
	s.Virtual += r.Virtual.Hours()
	s.settled += r.Settled.Seconds()
	s.Settled = max(s.Settled, r.Settled.Seconds())
	s.Requests += r.Requests
	s.Commits += r.Commits
	s.Terms += r.Terms
	s.Starts += r.Starts
	s.Stops += r.Stops
	s.Spares += r.Spares
	s.Reliefs += r.Reliefs
	s.Dead += r.Dead
	s.Impaired += r.Impaired
	s.Damped += r.Damped
	s.Freezes += r.Freezes
	s.Degraded += r.Degraded
	s.LeasesEnded += r.LeasesEnded
	s.Drains += r.Drains
	s.Drained += r.Drained
	s.Moves += r.Moves
	s.Conflicts += r.Conflicts
	s.HandedOver += r.HandedOver
	s.Gentle += r.Gentle
	s.Complete += r.RolloutsComplete
	s.FailedOnes += r.RolloutsFailed
	s.RolledBack += r.RolledBack
	s.Words += r.RolloutWords
	s.Globals += r.Globals
	s.Tried += r.Tried
	s.Versions += r.ConfigVersions
	s.Revised += r.ConfigRevisions
	s.Refused += r.ConfigsRefused
	s.Late += r.ConfigsMissing
	s.Completions += r.Completions
	s.JobsDone += r.JobsComplete
	s.JobsFailed += r.JobsFailed
	s.Volumes += r.Volumes
	s.Removed += r.VolumesRemoved
	for k, n := range r.Faults {
		s.Faults[k.String()] += n
	}
}

// write says what it came to, for people or for machines, and adds it to the file
// in a folder that is named.
func (s *summary) write(folder string, asJSON bool) error {
	line, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode the summary: %w", err)
	}
	if asJSON {
		fmt.Printf("%s\n", line)
	} else {
		s.tell()
	}
	if folder == "" {
		return nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("keep the summary: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(folder, "sim.jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("keep the summary: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("keep the summary: %w", err)
	}
	return nil
}

func (s *summary) tell() {
	faults := 0
	for _, n := range s.Faults {
		faults += n
	}
	per := func(n int) float64 { return float64(n) / float64(max(s.Seeds, 1)) }
	fmt.Printf("%d seeds, %d steps, %d faults, %.1f h of virtual time in %.1f s on %d cores: %.0f steps per second\n",
		s.Seeds, s.Steps, faults, s.Virtual, s.Took, s.Cores, float64(s.Steps)/s.Took)
	fmt.Printf("per run: %.0f s virtual, settled in %.1f s (at most %.1f s); %.1f requests, %.1f commits, %.1f terms, %.1f starts, %.1f stops\n",
		s.Virtual*3600/float64(max(s.Seeds, 1)), s.settled/float64(max(s.Seeds, 1)), s.Settled, per(s.Requests), per(s.Commits), per(s.Terms), per(s.Starts), per(s.Stops))
	fmt.Printf("in all: %d spares, %d reliefs, %d nodes taken for dead, %d impaired, %d damped, %d freezes, %d degraded endpoints, %d leases ended\n",
		s.Spares, s.Reliefs, s.Dead, s.Impaired, s.Damped, s.Freezes, s.Degraded, s.LeasesEnded)
	fmt.Printf("%d endpoints handed over, %d drains, %d of them done, %d moves, %d ports in conflict; %d runs were gentle\n", s.HandedOver, s.Drains, s.Drained, s.Moves, s.Conflicts, s.Gentle)
	fmt.Printf("%d revisions rolled out, %d failed and stayed, %d rolled back; %d words on rollouts, %d containers of global services, %d replicas tried elsewhere\n", s.Complete, s.FailedOnes, s.RolledBack, s.Words, s.Globals, s.Tried)
	fmt.Printf("%d versions of Configs and Secrets, %d revisions for their sake, %d refused, %d starts that waited for values; %d indexes of jobs completed, %d jobs complete, %d failed; %d volumes made, %d removed\n",
		s.Versions, s.Revised, s.Refused, s.Late, s.Completions, s.JobsDone, s.JobsFailed, s.Volumes, s.Removed)
	fmt.Print("faults:")
	sim.AllFaults.Each(func(k sim.Fault) { fmt.Printf(" %s %d", k, s.Faults[k.String()]) })
	fmt.Println()
}
