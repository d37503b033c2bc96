package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The limits of a run.
const (
	// StepsDefault is how many steps the faults last.
	StepsDefault = 1000
	// ConvergeWithin is how long after the last fault everything must be as it
	// is wanted: a runtime's event that was lost is noticed by the agent's full
	// look after a minute, retries and restarts back off for up to half a minute.
	ConvergeWithin = 3 * time.Minute
	// QuietFor is how long nothing may happen after that.
	QuietFor = 3 * time.Second
	// storyLines is how much of the past a failure tells.
	storyLines = 60
)

// Fault is a set of kinds of faults.
type Fault uint32

// The kinds.
const (
	PowerCut        Fault = 1 << iota // a machine goes off, and boots later
	AgentKill                         // kill -9, and back later
	AgentPause                        // the process is stopped for a while
	Cut                               // a path, in one or both directions; a controller from the store
	Stun                              // a machine freezes, perhaps with its clock
	Crash                             // a container ends, or does not answer
	ControllerKill                    // perhaps after its next write, before it hears of it
	ControllerPause                   //
	Commits                           // slow, failed, unknown
	SessionBreak                      // a stream breaks; an answer to a user is lost
	Gossip                            // a false hint
	LostEvent                         // containerd's events do not reach the agent
	Runtime                           // a single refusal of containerd or a plugin
	Delay                             // a slow message
	MassLoss                          // many machines cut off, without power or frozen at once
	Flap                              // a machine is cut off and healed over and over
	Gray                              // containerd down or hanging, the disk slow, while the agent beats
	DiskFull                          // a node's
	StoreFull                         // the store refuses writes for a while
	Clocks                            // clocks are set wrong and run at other rates
	Operators                         // "dead" of machines that are only cut off, "thaw"
	Datagrams                         // what is no stream comes twice and late
	AllFaults       Fault = 1<<iota - 1
)

var faultNames = map[Fault]string{
	PowerCut: "power-cut", AgentKill: "agent-kill", AgentPause: "agent-pause", Cut: "cut", Stun: "stun", Crash: "crash",
	ControllerKill: "controller-kill", ControllerPause: "controller-pause", Commits: "commits", SessionBreak: "session-break",
	Gossip: "gossip", LostEvent: "lost-event", Runtime: "runtime", Delay: "delay",
	MassLoss: "mass-loss", Flap: "flap", Gray: "gray", DiskFull: "disk-full", StoreFull: "store-full", Clocks: "clocks", Operators: "operators", Datagrams: "datagrams",
}

// Each calls f for every kind in the set.
func (f Fault) Each(do func(one Fault)) {
	for k := Fault(1); k <= AllFaults; k <<= 1 {
		if f&k != 0 {
			do(k)
		}
	}
}

// String gives "power-cut,cut".
func (f Fault) String() string {
	var names []string
	f.Each(func(k Fault) { names = append(names, faultNames[k]) })
	return strings.Join(names, ",")
}

// ParseFaults reads what String gives.
func ParseFaults(s string) (Fault, error) {
	var out Fault
next:
	for _, name := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) {
		for k, n := range faultNames {
			if n == name {
				out |= k
				continue next
			}
		}
		return 0, fmt.Errorf("%q is no kind of fault; there are %s", name, AllFaults)
	}
	return out, nil
}

// Config says what to run.
type Config struct {
	Seed uint64
	// Steps with faults; 0 means StepsDefault.
	Steps int
	// Without are kinds of faults to leave out, Skip single ones by their number
	// in the story, SkipRequests single requests of users.
	Without            Fault
	Skip, SkipRequests []int
	// Tell keeps the story of the whole run, not only of its end.
	Tell bool
}

// Violation is a broken invariant.
type Violation struct {
	// Invariant is its name in the design: "I5".
	Invariant string
	What      string
	// Step and At say when; Settling that faults had stopped.
	Step     int
	At       time.Duration
	Settling bool
}

func (v *Violation) String() string {
	return fmt.Sprintf("%s at step %d, %.3fs: %s", v.Invariant, v.Step, v.At.Seconds(), v.What)
}

// Result is what a run came to.
type Result struct {
	Config Config
	Steps  int
	// Virtual is how long the run was in its own time, Settled how long it took
	// from the last fault until all was as wanted.
	Virtual, Settled time.Duration
	Faults           map[Fault]int
	// Requests that users made, Stops and Starts of containers.
	Requests, Starts, Stops, Terms, Spares, Commits int
	// Writes are commits that wrote something, LeasesEnded containers that their
	// watchdog ended. Nodes that were taken for dead, impaired and damped, freezes,
	// spares that relieved, and endpoints that stayed though degraded.
	Writes, LeasesEnded                                int
	Dead, Impaired, Damped, Freezes, Reliefs, Degraded int
	// Drawn is how many single faults and requests there were to skip.
	Drawn, DrawnRequests int
	// Drains asked for and done, moves of rebalances, applies that were refused for a
	// port, endpoints that were handed over, and 1 if the run was gentle.
	Drains, Drained, Moves, Conflicts, HandedOver, Gentle int
	// Revisions that were rolled out well, that failed, and that were rolled back;
	// words on rollouts, and containers of global services that were started.
	RolloutsComplete, RolloutsFailed, RolledBack, RolloutWords, Globals int
	// Tried are replicas that were tried elsewhere because they failed where they were.
	Tried int
	// Versions of Configs and Secrets, revisions that they made, what was refused for
	// their sake, and starts that waited for values.
	// Pinned is how often a revision got a digest after it was made.
	Pinned                                                          int
	ConfigVersions, ConfigRevisions, ConfigsRefused, ConfigsMissing int
	// Indexes of jobs that were completed, jobs that were complete and that failed.
	Completions, JobsComplete, JobsFailed int
	// Volumes that were made, and that somebody removed.
	Volumes, VolumesRemoved int
	// Hash is that of everything that happened, in order.
	Hash      uint64
	Violation *Violation
	Story     []string
	healed    int // the line of the story at which faults stopped
}

// Run runs one seed.
func Run(c Config) Result {
	if c.Steps == 0 {
		c.Steps = StepsDefault
	}
	r := runOnce(c)
	if r.Violation != nil && !c.Tell {
		// The run is the same when it is told.
		c.Tell = true
		told := runOnce(c)
		r.Story = shorten(told.Story, told.healed)
	}
	return r
}

// shorten leaves the end of a story; where the world never settled, that is the
// time around the last fault, and the very end.
func shorten(story []string, healed int) []string {
	last := max(0, len(story)-storyLines)
	if until := healed + storyLines/2; healed > 0 && until < last {
		out := slices.Clone(story[max(0, healed-storyLines/2):until])
		out = append(out, "           ...")
		return append(out, story[len(story)-storyLines/4:]...)
	}
	return story[last:]
}

func runOnce(c Config) Result {
	w := newWorld(c)
	w.run()
	return w.result()
}

// Replay is the command that runs it again.
func (r Result) Replay() string {
	cmd := fmt.Sprintf("go run ./internal/sim/run -seed %d -steps %d", r.Config.Seed, r.Config.Steps)
	if r.Config.Without != 0 {
		cmd += " -without " + r.Config.Without.String()
	}
	if len(r.Config.Skip) > 0 {
		cmd += " -skip " + Numbers(r.Config.Skip)
	}
	if len(r.Config.SkipRequests) > 0 {
		cmd += " -skip-requests " + Numbers(r.Config.SkipRequests)
	}
	return cmd
}
