package api

import (
	"strconv"
	"time"
)

// Job is work that comes to an end: so many completions, each by a replica whose
// containers all end with code 0. Each has an index, which is its replica's slot.
//
// A completion is counted once, when the leader has committed it; its work may have
// been begun more often, as when its node fell silent, so it should bear that.
type Job struct {
	TypeMeta `json:",inline"`
	Metadata Metadata  `json:"metadata"`
	Spec     JobSpec   `json:"spec"`
	Status   JobStatus `json:"status,omitzero"`
}

// JobSpec is what the user wants. The Template of a job cannot be changed.
type JobSpec struct {
	// Completions is how many indexes are to be completed, 1 to 10,000. Nil means 1.
	Completions *int `json:"completions,omitempty"`
	// Parallelism is how many replicas run at once, 1 to 1,000. Nil means 1.
	Parallelism *int `json:"parallelism,omitempty"`
	// BackoffLimit is how many tries may fail, over all indexes, before the job has
	// failed: with 0 the first one does it. At most 1,000. Nil means 6. What ends with its
	// node, or by an operator's word, is no failure.
	BackoffLimit *int `json:"backoffLimit,omitempty"`
	// Deadline is how long the job may take from its creation, 1 s to 8,760 h; what runs then
	// is stopped, and the job has failed. Nil means for ever.
	Deadline *Duration `json:"deadline,omitempty"`
	// TTLAfterFinished is how long a job that has ended is kept, with what it left, at most
	// 8,760 h; 0 removes it at once. Nil means until somebody deletes it.
	TTLAfterFinished *Duration `json:"ttlAfterFinished,omitempty"`
	// Priority as in a service's spec.
	Priority int `json:"priority,omitempty"`
	// Template as in a service's spec, but that a job's containers have no ports, no
	// probes and no volumes, the job is not exclusive, and restartPolicy has no condition:
	// a try that failed is not restarted in place but made anew, after its back-off, and
	// maybe elsewhere.
	Template `json:",inline"`
}

// Want is how many indexes are to be completed.
func (s *JobSpec) Want() int { return orElse(s.Completions, 1) }

// AtOnce is how many replicas may run at once.
func (s *JobSpec) AtOnce() int { return min(orElse(s.Parallelism, 1), s.Want()) }

// MayFail is how many tries may fail before the job has failed.
func (s *JobSpec) MayFail() int { return orElse(s.BackoffLimit, DefaultBackoffLimit) }

func orElse(n *int, otherwise int) int {
	if n == nil {
		return otherwise
	}
	return *n
}

// JobState is how far a job is.
type JobState string

// The states of a job.
const (
	JobRunning  JobState = "Running"
	JobComplete JobState = "Complete"
	JobFailed   JobState = "Failed"
)

// JobStatus is what the leader knows of a job.
type JobStatus struct {
	State JobState `json:"state,omitempty"`
	// Why it failed, in words, with the last output of what failed.
	Why string `json:"why,omitempty"`
	// Active replicas are placed and have not ended; Succeeded indexes are completed;
	// Failed counts tries.
	Active    int       `json:"active"`
	Succeeded int       `json:"succeeded"`
	Failed    int       `json:"failed"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	// EndedAt is when it was complete or had failed; zero: neither.
	EndedAt time.Time `json:"endedAt,omitzero"`
	// Reasons say in words what it waits for now; bounded.
	Reasons []string `json:"reasons,omitempty"`
}

// Ended tells whether nothing more comes of the job.
func (s JobStatus) Ended() bool { return s.State == JobComplete || s.State == JobFailed }

// Outcome is how the last try of one index of a job ended. It is named "migrate@3".
type Outcome struct {
	TypeMeta `json:",inline"`
	Metadata Metadata `json:"metadata"`
	Job      string   `json:"job"`
	// JobUID is the job's UID: a new job of the same name has new outcomes.
	JobUID string `json:"jobUID"`
	Index  int    `json:"index"`
	// Succeeded: the index is completed. Failures are its tries that failed.
	Succeeded bool `json:"succeeded"`
	Failures  int  `json:"failures,omitempty"`
	// Epoch of the replica that ended, and its node.
	Epoch uint64 `json:"epoch"`
	Node  string `json:"node,omitempty"`
	// Container that decided it, and how it ended.
	Container string    `json:"container,omitempty"`
	Exit      Exit      `json:"exit"`
	StartedAt time.Time `json:"startedAt,omitzero"`
}

// OutcomeName names the outcome of a job's index.
func OutcomeName(job string, index int) string { return job + "@" + strconv.Itoa(index) }

// Default fills in what was left out; see Service.Default.
func (j *Job) Default() {
	defaultMeta(&j.TypeMeta, &j.Metadata, KindJob)
	setDefault(&j.Spec.Completions, 1)
	setDefault(&j.Spec.Parallelism, 1)
	setDefault(&j.Spec.BackoffLimit, DefaultBackoffLimit)
	if j.Spec.RestartPolicy.Condition == "" {
		j.Spec.RestartPolicy.Condition = RestartNever
	}
	j.Spec.Template.Default()
}
