package orchctl

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// config makes the newest version of a Config, which users take ("web@3"); those of the
// versions before it are in older.
func config(name string, version int64, data map[string]string, users []string, change ...func(*api.Config)) *api.Config {
	c := &api.Config{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindConfig},
		Metadata: api.Metadata{Name: name, Namespace: "default", UID: "uid-" + name, ResourceVersion: version, CreatedAt: epoch.Add(-3 * time.Hour)}, Data: data,
		Status: api.ConfigStatus{Version: version, Keys: map[string]int{}, ChangedAt: epoch.Add(-time.Hour), ChangedBy: "user alice",
			Versions: []api.ConfigVersion{{Number: version, CreatedAt: epoch.Add(-time.Hour), By: "user alice", Users: users}}}}
	for key, text := range data {
		c.Status.Keys[key] = len(text)
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// secret is a Config of kind Secret as the controller shows it: without values.
func secret(name string, version int64, data map[string]string, users []string, change ...func(*api.Config)) *api.Config {
	c := config(name, version, data, users, change...)
	c.Kind, c.Data = api.KindSecret, nil
	return c
}

// older adds the version before, with its users.
func older(users ...string) func(*api.Config) {
	return func(c *api.Config) {
		before := api.ConfigVersion{Number: c.Status.Version - 1, CreatedAt: epoch.Add(-2 * time.Hour), By: "user bob", Users: users}
		c.Status.Versions = append([]api.ConfigVersion{before}, c.Status.Versions...)
	}
}

func job(name string, completions, atOnce int, change ...func(*api.Job)) *api.Job {
	j := &api.Job{Metadata: api.Metadata{Name: name, UID: "uid-" + name, ResourceVersion: 1, CreatedAt: epoch.Add(-10 * time.Minute), Labels: map[string]string{"app": name}},
		Spec:   api.JobSpec{Completions: &completions, Parallelism: &atOnce, Template: api.Template{Containers: []api.Container{{Name: "main", Image: "orch.local/" + name + ":1.0"}}}},
		Status: api.JobStatus{State: api.JobRunning, StartedAt: epoch.Add(-9 * time.Minute)}}
	j.Default()
	for _, c := range change {
		c(j)
	}
	return j
}

// done sets how far a job is.
func done(succeeded, failed, active int, reasons ...string) func(*api.Job) {
	return func(j *api.Job) {
		j.Status.Succeeded, j.Status.Failed, j.Status.Active, j.Status.Reasons = succeeded, failed, active, reasons
	}
}

// endsAs ends a job; of one that failed why says it.
func endsAs(state api.JobState, why string) func(*api.Job) {
	return func(j *api.Job) {
		j.Status.State, j.Status.Why, j.Status.EndedAt = state, why, epoch.Add(-time.Minute)
	}
}

func ofJob(r *api.Replica) { r.Spec.Job = true }

func outcome(job string, index int, node string, exit api.Exit, change ...func(*api.Outcome)) *api.Outcome {
	exit.FinishedAt = epoch.Add(-2 * time.Minute)
	o := &api.Outcome{Metadata: api.Metadata{Name: api.OutcomeName(job, index), Namespace: "default"}, Job: job, JobUID: "uid-" + job, Index: index,
		Succeeded: exit.Code == 0 && exit.Signal == 0, Epoch: uint64(index) + 1, Node: node, Container: "main", Exit: exit, StartedAt: epoch.Add(-3 * time.Minute)}
	if !o.Succeeded {
		o.Failures = 1
	}
	for _, c := range change {
		c(o)
	}
	return o
}

func volume(name, service string, slot int, node string, change ...func(*api.Volume)) *api.Volume {
	k := api.VolumeKey{Namespace: "default", Service: service, Slot: slot, Volume: name}
	v := &api.Volume{Metadata: api.Metadata{Name: k.Name(), Namespace: "default", UID: "uid-" + k.Name(), CreatedAt: epoch.Add(-3 * time.Hour)},
		Spec: api.VolumeSpec{Volume: name, Service: service, Slot: slot, Node: node}}
	for _, c := range change {
		c(v)
	}
	return v
}

func usedBy(users ...string) func(*api.Volume) {
	return func(v *api.Volume) { v.Status.UsedBy = users }
}

func removing(v *api.Volume) { v.Status.Removing, v.Status.RemovedBy = true, "user alice" }

// takes has a service's container take values, and mount a volume.
func takes(s *api.Service) {
	c := &s.Spec.Containers[0]
	c.EnvFrom = []api.EnvFrom{{Config: "app", Prefix: "APP_"}, {Secret: "tokens"}}
	c.Env = []api.EnvVar{{Name: "MODE", Value: "fast"}, {Name: "LOG", ValueFrom: &api.EnvSource{Config: &api.KeyRef{Name: "app", Key: "LOG"}}},
		{Name: "DB_PASSWORD", ValueFrom: &api.EnvSource{Secret: &api.KeyRef{Name: "db", Key: "password"}}}}
	c.Mounts = []api.Mount{{Path: "/etc/app", Config: "app"}, {Path: "/run/key", Secret: "db", Key: "key", Mode: "0400"}, {Path: "/data", Volume: "data"}}
}

// answersOf is what an apply says, a pair of outcome and object after the other.
func answersOf(list ...any) *orchv1.ApplyResponse {
	out := &orchv1.ApplyResponse{}
	for i := 0; i < len(list); i += 2 {
		out.Applied = append(out.Applied, &orchv1.Applied{Outcome: fmt.Sprint(list[i]), Object: objectOf(list[i+1]).wire()})
	}
	return out
}
