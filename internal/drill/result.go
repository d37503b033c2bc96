package drill

import (
	"fmt"
	"time"
)

// Result is what a drill came to.
type Result struct {
	Drill  string `json:"drill"`
	Passed bool   `json:"passed"`
	// Why in words where it did not.
	Why   string       `json:"why,omitempty"`
	Steps []StepResult `json:"steps"`
	// Wrongful counts containers that ended though nobody asked for it, Spares
	// the replicas that were started to stand in.
	Wrongful int `json:"wrongful"`
	Spares   int `json:"spares"`
	// Duplicates of services: see Duplicate.
	Duplicates map[string]Duplicate `json:"duplicates,omitempty"`
	Seconds    float64              `json:"seconds"`
}

// StepResult is one step's.
type StepResult struct {
	Step string `json:"step"`
	Line int    `json:"line"`
	// At is when it began, in seconds since the drill's start. Took is, for what
	// is expected within a time, the seconds from the last fault until it held;
	// else how long the step took.
	At   float64 `json:"at"`
	Took float64 `json:"took"`
	OK   bool    `json:"ok"`
	Why  string  `json:"why,omitempty"`
}

// Duplicate is how far a service ran more than once in a slot. Spares beside a
// container that cannot be reached are such, and so is a start-first rollout.
type Duplicate struct {
	// Most containers beyond the first, at once in one slot.
	Most int `json:"most"`
	// Seconds for which the worst slot had any.
	Seconds float64 `json:"seconds"`
}

// Took gives the time of the n-th step with that verb, from 0; false if there is
// none or it failed.
func (r Result) Took(text string) (time.Duration, bool) {
	for _, s := range r.Steps {
		if s.Step == text && s.OK {
			return time.Duration(s.Took * float64(time.Second)), true
		}
	}
	return 0, false
}

// Summary is the last line for people.
func (r Result) Summary() string {
	word := "passed"
	if !r.Passed {
		word = "FAILED"
	}
	return fmt.Sprintf("%s: %s in %.1f s; %d containers ended without cause, %d spares started", r.Drill, word, r.Seconds, r.Wrongful, r.Spares)
}
