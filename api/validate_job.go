package api

import "strings"

func (j *Job) check(c *checker) {
	c.meta(j.TypeMeta, &j.Metadata, KindJob, MaxServiceName)
	s := &j.Spec
	c.number("spec.completions", s.Completions, 1, MaxCompletions)
	c.number("spec.parallelism", s.Parallelism, 1, MaxParallelism)
	c.number("spec.backoffLimit", s.BackoffLimit, 0, MaxBackoffLimit)
	c.duration("spec.deadline", s.Deadline, MinJobDeadline, MaxJobDeadline)
	c.duration("spec.ttlAfterFinished", s.TTLAfterFinished, 0, MaxJobDeadline)
	c.priority(s.Priority)
	c.template(&s.Template)
	c.jobOnly(&s.Template)
	c.size(j)
}

func (c *checker) number(path string, n *int, least, most int) {
	if n != nil && (*n < least || *n > most) {
		c.add(path, "is %d: want a number from %d to %d", *n, least, most)
	}
}

// jobOnly refuses what has no meaning for work that comes to an end.
func (c *checker) jobOnly(t *Template) {
	attached := ""
	eachContainer(t, func(path string, x *Container) {
		c.jobContainer(path, x)
		switch {
		case !x.Stdin:
		case !strings.HasPrefix(path, "spec.containers"):
			c.add(path+".stdin", "is for the job's own command, in spec.containers: move it there, or remove it")
		case attached != "":
			c.add(path+".stdin", "is set in %s already, and who attaches reaches one command: remove one of them", attached)
		default:
			attached = path
		}
	})
	if p := t.RestartPolicy.Condition; p == RestartAlways || p == RestartOnFailure {
		c.add("spec.restartPolicy.condition", "is %s, but a job's try that failed is made anew, maybe on another node, and not restarted in place: remove this line, and see backoffLimit", p)
	}
	if t.Exclusive {
		c.add("spec.exclusive", "is for services: of a job's completion only the first success counts, but its work may be begun twice; remove this line, and make the work bear that")
	}
	if t.OnPartition == PartitionStop {
		c.add("spec.onPartition", "is stop, which is for services: a job's replica that is cut off runs to its end; remove this line")
	} else if t.OnPartition != "" && t.OnPartition != PartitionKeep {
		c.add("spec.onPartition", "%q is unknown: remove this line", clip(string(t.OnPartition)))
	}
	if t.LeaseDuration != nil {
		c.add("spec.leaseDuration", "is for services with a lease, and a job has none: remove this line")
	}
}

// jobContainer: nobody is led to a job, and what comes of it is told by how it ends. An
// init container's ports and probes are refused as those of a service.
func (c *checker) jobContainer(path string, x *Container) {
	if !strings.HasPrefix(path, "spec.initContainers") {
		for _, f := range []struct {
			name string
			set  bool
			why  string
		}{
			{"ports", len(x.Ports) > 0, "is for services: nobody is led to a job's replicas; remove it"},
			{"readinessProbe", x.ReadinessProbe != nil, "is for services, which get traffic: remove it"},
			{"livenessProbe", x.LivenessProbe != nil, "is for services: how a job's command ends says whether it is well; remove it, and see deadline"},
			{"startupProbe", x.StartupProbe != nil, "is for services: how a job's command ends says whether it is well; remove it"},
		} {
			if f.set {
				c.add(path+"."+f.name, "%s", f.why)
			}
		}
	}
	for i, m := range x.Mounts {
		if m.Volume != "" {
			c.add(at(path+".mounts", i)+".volume", "belongs to a slot of a service, and a job has none that stays: use a tmpfs, or bind a path of the node")
		}
	}
}
