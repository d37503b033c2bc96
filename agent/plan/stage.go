package plan

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// kind says what part a container has in its replica's life.
type kind int

const (
	initRun    kind = iota // runs to its end with code 0 before what comes after it starts
	sidecarRun             // starts before the mains and is stopped after them
	mainRun
)

// kinds are the words for them.
var kinds = [...]string{initRun: "init container", sidecarRun: "sidecar", mainRun: "container"}

// runsOf makes the runs in the order of their starts. Each init container and each
// sidecar is a stage of its own, the mains are the last one together: what belongs to
// a stage starts when the replica has reached it.
func runsOf(r *replica, images map[string]string) []*run {
	var runs []*run
	stage := 0
	add := func(k kind, specs []api.Container) {
		for i, spec := range specs {
			x := &run{r: r, spec: spec, ref: spec.Image, hash: hashOf(spec), kind: k, stage: stage, nth: i + 1, of: len(specs)}
			x.pin(images)
			runs = append(runs, x)
			if k != mainRun {
				stage++
			}
		}
	}
	add(initRun, r.template.InitContainers)
	add(sidecarRun, r.template.Sidecars)
	add(mainRun, r.template.Containers)
	return runs
}

// pinned gives the reference with the digest that the leader has for it, so that
// every node runs the same image. The tag stays: an image that was brought to this
// node by hand is found by it.
func pinned(ref string, images map[string]string) string {
	digest := images[ref]
	if digest == "" || strings.Contains(ref, "@") {
		return ref
	}
	return ref + "@" + digest
}

// pin has the run take the image that the leader has a digest of.
func (x *run) pin(images map[string]string) {
	if image := pinned(x.ref, images); image != x.spec.Image {
		x.bare, x.spec.Image = x.hash, image
		x.hash = hashOf(x.spec)
	}
}

// is tells whether a container is what the run is to be. One that was made before the
// leader knew what its image's tag means is, if it has that image.
func (x *run) is(o Container) bool {
	return o.Hash == x.hash || x.bare != "" && o.Hash == x.bare && o.ImageID == x.r.images[x.ref]
}

// repin takes over what the leader has learnt of the replica's images since it was
// placed. Where what is here of one is another, that stays until the replica is made
// anew: a digest restarts nothing.
func (c *Core) repin(r *replica, images map[string]string) {
	next := maps.Clone(r.images)
	for ref, digest := range images {
		other := func(x *run) bool {
			return x.ref == ref && x.imageID != digest && (x.imageID != "" || x.state != absent)
		}
		if r.images[ref] == "" && !r.anyRun(other) {
			if next == nil {
				next = map[string]string{}
			}
			next[ref] = digest
		}
	}
	if len(next) == len(r.images) {
		return
	}
	r.images = next
	for _, x := range r.runs {
		if pinned(x.ref, next) != x.spec.Image {
			c.leaveImage(x) // it waited for the tag
			x.pin(next)
		}
	}
}

// found are the digests of references that the assignment has none for.
func (r *replica) found() map[string]string {
	var out map[string]string
	for _, x := range r.runs {
		if x.imageID == "" || x.spec.Image != x.ref || strings.Contains(x.ref, "@") {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[x.ref] = x.imageID
	}
	return out
}

// reach takes the replica to a stage, if it is not further: what is before it is over.
// A container of a later stage that is found, or starts, is as good an evidence of that
// as the ends of those before, whose remains somebody may have removed.
func (r *replica) reach(stage int) {
	r.stage = max(r.stage, stage)
	for _, x := range r.runs {
		if x.kind == initRun && x.stage < r.stage {
			x.final, x.done = true, true
		}
	}
}

// climb reaches as many stages as there is evidence for.
func (r *replica) climb() {
	for _, x := range r.runs {
		if x.stage == r.stage && x.kind != mainRun && x.passed() {
			r.reach(x.stage + 1)
		}
	}
}

// passed tells whether what comes after an init container, or a sidecar, may start.
func (x *run) passed() bool {
	if x.kind == initRun {
		return x.done
	}
	return x.state == running && x.begun
}

// over tells whether nothing of the replica is to be started any more: its mains have
// all ended for good, or what they wait for has.
func (r *replica) over() bool {
	mains := 0
	for _, x := range r.runs {
		switch {
		case x.kind == mainRun && !x.final:
			mains++
		case x.kind != mainRun && x.stage == r.stage && x.final && !x.done:
			return true
		}
	}
	return mains == 0 && len(r.runs) > 0
}

// overWhy is why a sidecar is stopped whose replica's containers have all ended.
const overWhy = "the containers of its replica have ended"

// settleOver stops the sidecars of a replica that is over, and ends it.
func (c *Core) settleOver(r *replica) {
	for _, x := range r.runs {
		switch {
		case x.state == running && x.kind == sidecarRun && r.mayStop(x):
			c.stopRun(x, overWhy, overWhy)
		case x.state == running:
			c.holdLease(x)
		case x.state == ended:
			x.final = true
		case x.state == absent && x.doubtful: // else it would be over with the next full look only
			c.lookFor(x)
		}
	}
	switch {
	case r.anyRun((*run).mayLive):
	case r.anyRun(func(x *run) bool { return x.kind == mainRun && !x.good }):
		r.advance(api.PhaseFailed)
	default:
		r.advance(api.PhaseStopped)
	}
}

// mayStop gives the order of an end: sidecars after all others, the last one first.
func (r *replica) mayStop(x *run) bool {
	if x.kind != sidecarRun {
		return true
	}
	return !r.anyRun(func(o *run) bool { return o != x && o.mayLive() && (o.kind != sidecarRun || o.stage > x.stage) })
}

// lives tells whether there is a process, as far as it is known.
func (x *run) lives() bool {
	return x.state == running || x.state == leaving || x.state == stopping
}

// mayLive: see lives; what is not known counts.
func (x *run) mayLive() bool { return x.lives() || x.state == starting || x.doubtful }

// current is the init container or sidecar that the rest of the replica waits for;
// nil: it waits for none.
func (r *replica) current() *run {
	for _, x := range r.runs {
		if x.stage == r.stage && x.kind != mainRun {
			return x
		}
	}
	return nil
}

// title names a run as one of several: "init container migrate (1 of 2)".
func (x *run) title() string {
	return fmt.Sprintf("%s %s (%d of %d)", kinds[x.kind], x.spec.Name, x.nth, x.of)
}

// does says in words what the stage waits for.
func (x *run) does() string {
	switch {
	case x.state == running && x.hook == hookRuns:
		return x.title() + " waits for its postStart hook"
	case x.state == running && x.kind == sidecarRun:
		return strings.TrimSuffix(x.title()+" has not passed its startup probe: "+x.startup.message, ": ")
	case x.state == running:
		return x.title() + " runs"
	}
	return x.title() + " starts"
}

// pins gives the versions of what a container takes values of.
func (x *run) pins() map[api.ConfigRef]int64 {
	var pins map[api.ConfigRef]int64
	t := api.Template{Containers: []api.Container{x.spec}}
	for _, ref := range t.ConfigRefs() {
		if pins == nil {
			pins = map[api.ConfigRef]int64{}
		}
		pins[ref] = x.r.configs[ref]
	}
	return pins
}

// environment gives the container's variables with those resolved that are taken from
// the replica. They are no part of the hash: an address is not known before the start,
// and a label may change while the container runs.
func (c *Core) environment(x *run) []api.EnvVar {
	if len(x.spec.Env) == 0 {
		return nil
	}
	env := make([]api.EnvVar, 0, len(x.spec.Env))
	for _, v := range x.spec.Env {
		if v.ValueFrom != nil && v.ValueFrom.Field != "" { // who starts it knows the others
			v = api.EnvVar{Name: v.Name, Value: c.field(x.r, v.ValueFrom.Field)}
		}
		env = append(env, v)
	}
	return env
}

// field gives what a variable is taken from; empty where there is no such thing.
func (c *Core) field(r *replica, field string) string {
	switch field {
	case api.FieldName:
		return r.key.Name()
	case api.FieldSlot:
		return fmt.Sprint(r.key.Slot)
	case api.FieldEpoch:
		return fmt.Sprint(r.key.Epoch)
	case api.FieldRevision:
		return fmt.Sprint(r.revision)
	case api.FieldService:
		return r.key.Service
	case api.FieldNamespace:
		return r.key.Namespace
	case api.FieldNode:
		return c.cfg.Node
	case api.FieldIP:
		return r.net.IP
	}
	if label, ok := strings.CutPrefix(field, api.FieldLabels); ok {
		return r.labels[label]
	}
	return ""
}

// take keeps of an assignment what may change without a new revision.
func (r *replica) take(a wire.Assignment, now time.Time) {
	r.assigned, r.held, r.unsure, r.spare, r.job, r.uid, r.labels = true, false, false, a.Spare, a.Job, a.ServiceUID, a.Labels
	if r.trace.text == "" { // what was begun before came another way
		r.trace = traced{text: a.Trace, over: r.phase != api.PhaseAssigned}
	}
	if !maps.Equal(r.logins, a.Logins) {
		r.logins = a.Logins
		for _, x := range r.runs {
			if x.image != nil {
				x.image.tryAgain(now)
			}
		}
	}
}
