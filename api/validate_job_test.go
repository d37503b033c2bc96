package api

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func jobOf(change func(*Job)) *Job {
	j := &Job{Metadata: Metadata{Name: "migrate"}, Spec: JobSpec{Template: Template{
		InitContainers: []Container{{Name: "first", Image: "web"}},
		Sidecars:       []Container{{Name: "beside", Image: "web"}},
		Containers:     []Container{{Name: "main", Image: "web"}, {Name: "two", Image: "web"}}}}}
	if change != nil {
		change(j)
	}
	return j
}

func TestJobDefault(t *testing.T) {
	j := jobOf(nil)
	if j.Spec.Want() != 1 || j.Spec.AtOnce() != 1 || j.Spec.MayFail() != 6 {
		t.Errorf("means %d, %d, %d", j.Spec.Want(), j.Spec.AtOnce(), j.Spec.MayFail())
	}
	if v := Validate(j); v != nil {
		t.Errorf("before: %v", v)
	}
	j = overWire(t, j)
	if v := Validate(j); v != nil {
		t.Errorf("after: %v", v)
	}
	if s := j.Spec; *s.Completions != 1 || *s.Parallelism != 1 || *s.BackoffLimit != 6 || s.Deadline != nil || s.TTLAfterFinished != nil ||
		s.RestartPolicy.Condition != RestartNever || s.RestartPolicy.BackOff.Or(0) != time.Second || s.TerminationGracePeriod.Or(0) != DefaultGrace ||
		j.Kind != KindJob || j.Metadata.Namespace != DefaultNamespace {
		t.Errorf("defaults: %+v", j)
	}
	told := jobOf(func(j *Job) {
		zero, five, many := 0, 5, 100
		j.Spec.BackoffLimit, j.Spec.Completions, j.Spec.Parallelism = &zero, &five, &many
	})
	if told.Default(); told.Spec.MayFail() != 0 || told.Spec.Want() != 5 || told.Spec.AtOnce() != 5 || *told.Spec.Parallelism != 100 {
		t.Errorf("became %+v", told.Spec)
	}
}

// TestValidateJob has what may stand in a job and what may not; the messages of most
// stand in manifests/testdata/broken.
func TestValidateJob(t *testing.T) {
	number := func(n int) *int { return &n }
	for name, c := range map[string]struct {
		change func(*Job)
		path   string // of the only violation; empty: it is taken
	}{
		"most": {func(j *Job) {
			j.Spec.Completions, j.Spec.Parallelism, j.Spec.BackoffLimit = number(10_000), number(1_000), number(1_000)
		}, ""},
		"more":           {func(j *Job) { j.Spec.Completions = number(10_001) }, "spec.completions"},
		"none":           {func(j *Job) { j.Spec.Completions = number(0) }, "spec.completions"},
		"none at once":   {func(j *Job) { j.Spec.Parallelism = number(0) }, "spec.parallelism"},
		"no failure":     {func(j *Job) { j.Spec.BackoffLimit = number(0) }, ""},
		"negative":       {func(j *Job) { j.Spec.BackoffLimit = number(-1) }, "spec.backoffLimit"},
		"deadline":       {func(j *Job) { j.Spec.Deadline = durationOf(MinJobDeadline) }, ""},
		"short deadline": {func(j *Job) { j.Spec.Deadline = durationOf(MinJobDeadline - 1) }, "spec.deadline"},
		"long deadline":  {func(j *Job) { j.Spec.Deadline = durationOf(MaxJobDeadline + 1) }, "spec.deadline"},
		"gone at once":   {func(j *Job) { j.Spec.TTLAfterFinished = durationOf(0) }, ""},
		"negative ttl":   {func(j *Job) { j.Spec.TTLAfterFinished = durationOf(-1) }, "spec.ttlAfterFinished"},
		"kind":           {func(j *Job) { j.Kind = KindService }, "kind"},
		"priority":       {func(j *Job) { j.Spec.Priority = 1001 }, "spec.priority"},
		"hooks": {func(j *Job) {
			j.Spec.Containers[0].Lifecycle = &Lifecycle{PostStart: &Hook{Sleep: durationOf(time.Second)}}
		}, ""},
		"host network":       {func(j *Job) { j.Spec.HostNetwork = true }, ""},
		"values":             {func(j *Job) { j.Spec.Containers[0].EnvFrom = []EnvFrom{{Secret: "db"}} }, ""},
		"never":              {func(j *Job) { j.Spec.RestartPolicy.Condition = RestartNever }, ""},
		"on failure":         {func(j *Job) { j.Spec.RestartPolicy.Condition = RestartOnFailure }, "spec.restartPolicy.condition"},
		"condition":          {func(j *Job) { j.Spec.RestartPolicy.Condition = "Never" }, "spec.restartPolicy.condition"},
		"ports":              {func(j *Job) { j.Spec.Containers[1].Ports = []Port{{Port: 80}} }, "spec.containers[1].ports"},
		"sidecar's ports":    {func(j *Job) { j.Spec.Sidecars[0].Ports = []Port{{Port: 80}} }, "spec.sidecars[0].ports"},
		"init's ports":       {func(j *Job) { j.Spec.InitContainers[0].Ports = []Port{{Port: 80}} }, "spec.initContainers[0].ports"},
		"sidecar's probe":    {func(j *Job) { j.Spec.Sidecars[0].StartupProbe = &Probe{Exec: &ExecProbe{Command: []string{"x"}}} }, "spec.sidecars[0].startupProbe"},
		"volume":             {func(j *Job) { j.Spec.InitContainers[0].Mounts = []Mount{{Path: "/a", Volume: "a"}} }, "spec.initContainers[0].mounts[0].volume"},
		"bind":               {func(j *Job) { j.Spec.Containers[0].Mounts = []Mount{{Path: "/a", Bind: "/a"}} }, ""},
		"exclusive":          {func(j *Job) { j.Spec.Exclusive = true }, "spec.exclusive"},
		"stop":               {func(j *Job) { j.Spec.OnPartition = PartitionStop }, "spec.onPartition"},
		"keep":               {func(j *Job) { j.Spec.OnPartition = PartitionKeep }, ""},
		"lease":              {func(j *Job) { j.Spec.LeaseDuration = durationOf(time.Minute) }, "spec.leaseDuration"},
		"stdin":              {func(j *Job) { j.Spec.Containers[1].Stdin = true }, ""},
		"stdin twice":        {func(j *Job) { j.Spec.Containers[0].Stdin, j.Spec.Containers[1].Stdin = true, true }, "spec.containers[1].stdin"},
		"stdin of a sidecar": {func(j *Job) { j.Spec.Sidecars[0].Stdin = true }, "spec.sidecars[0].stdin"},
		"stdin of an init":   {func(j *Job) { j.Spec.InitContainers[0].Stdin = true }, "spec.initContainers[0].stdin"},
		"large":              {func(j *Job) { j.Spec.Containers[0].Args = []string{strings.Repeat("x", MaxServiceBytes)} }, "spec"},
	} {
		var got []string
		for _, v := range Validate(jobOf(c.change)) {
			got = append(got, v.Path)
		}
		if c.path == "" && got != nil || c.path != "" && !slices.Equal(got, []string{c.path}) {
			t.Errorf("%s: refused at %q, want %q: %v", name, got, c.path, Validate(jobOf(c.change)))
		}
		if c.path == "" {
			j := jobOf(c.change)
			if j.Default(); Validate(j) != nil {
				t.Errorf("%s: refused after Default: %v", name, Validate(j))
			}
		}
	}
	if v := Validate(&Service{Metadata: Metadata{Name: "web"}, Spec: ServiceSpec{Template: Template{Containers: []Container{{Name: "main", Image: "web", Stdin: true}}}}}); len(v) != 1 || v[0].Path != "spec.containers[0].stdin" {
		t.Errorf("stdin in a service: %v", v)
	}
}

// TestValidateNoJob: an empty job is refused, not a crash.
func TestValidateNoJob(t *testing.T) {
	if v := Validate(&Job{}); len(v) != 2 {
		t.Errorf("got %v", v)
	}
}
