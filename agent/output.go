package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/logs"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
)

// A container's output is written by a process of its own, which may be behind by a
// moment when the container has ended: its log is looked at every outputLook until it
// has stopped growing, for outputMax at most. A restart waits for it.
const (
	outputLook = 5 * time.Millisecond
	outputMax  = 100 * time.Millisecond
)

// owner says whose a container is.
type owner struct {
	replica   api.ReplicaKey
	container string
}

// ended is the driver's own event: the runtime says that a container's process ended.
type ended struct {
	id   string
	exit api.Exit
}

// own keeps who the containers of the runtime belong to.
func (d *driver) own(e plan.Effect) {
	switch e := e.(type) {
	case plan.StartContainer:
		id := ctrd.ContainerSpec{Replica: e.Replica, Container: e.Container, Attempt: e.Attempt}.ID()
		d.owners[id] = owner{e.Replica, e.Container.Name}
	case plan.RemoveContainer:
		// Of one that is to go with its replica, the end may be told only now; see part.
		if d.core.Wants(d.owners[e.ContainerID].replica) {
			delete(d.owners, e.ContainerID)
		}
	}
}

// ended tells the plan, with what the container wrote last where that is of interest.
func (d *driver) ended(ctx context.Context, e ended) {
	d.endHook(e.id)
	o, known := d.owners[e.id]
	d.noteExit(o, e.exit)
	if !known || !d.core.Wants(o.replica) {
		d.step(ctx, plan.Exited{ContainerID: e.id, Exit: e.exit})
		return
	}
	d.work.Go(func() {
		d.settleLog(ctx, logs.File(d.cfg.LogDir, o.replica, o.container))
		e.exit.Output = d.output(e.id, o)
		d.tell(ctx, plan.Exited{ContainerID: e.id, Exit: e.exit})
	})
}

// settleLog waits until a log grows no more. One that is not there is not waited for.
func (d *driver) settleLog(ctx context.Context, file string) {
	size := int64(-1)
	for range outputMax / outputLook {
		st, err := os.Stat(file)
		if err != nil || st.Size() == size {
			return
		}
		size = st.Size()
		pause(ctx, outputLook)
	}
}

// output is the last that a container wrote; what cannot be read is no reason to
// withhold how it ended.
func (d *driver) output(id string, o owner) string {
	text, err := logs.Last(logs.File(d.cfg.LogDir, o.replica, o.container), id, api.MaxLastOutput)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.cfg.Logger.Warn("cannot read what a container wrote last", "container", id, "err", err)
	}
	return text
}
