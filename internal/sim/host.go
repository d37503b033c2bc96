package sim

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
)

// host is a node's machine: what survives an agent, and what survives the power.
type host struct {
	w        *world
	name     string
	address  string
	labels   map[string]string
	capacity api.ResourceList

	on     bool
	boot   int // counts its lives
	frozen bool
	thaw   []func() // what its processes do when it runs again
	disk   disk
	gray   gray
	// clock stands still while the machine is suspended, boottime goes on.
	clock, boottime clock
	// calledDead: until then an operator's word may make it so.
	calledDead int64

	runtime *runtime
	traffic *traffic
	agent   *agent
}

// disk is what an agent keeps.
type disk struct {
	saved []byte // plan.Saved as JSON; nil: none
	term  uint64 // the highest heard of
	// stands is where the node stands in the replicas' network.
	stands stands
	// configs lie beside what is saved: never Secrets. volumes that were made.
	configs map[versionKey][]byte
	volumes map[api.VolumeKey]bool
}

func newHost(w *world, i int) *host {
	h := &host{w: w, name: fmt.Sprintf("n%d", i+1), address: fmt.Sprintf("10.0.0.%d", i+1),
		labels:   map[string]string{"zone": pick(w.r.world, []string{"a", "b"})},
		capacity: api.ResourceList{api.CPU: api.Whole(int64(2 + w.r.world.IntN(4))), api.Memory: api.Whole(4 << 30)}}
	h.disk.volumes = map[api.VolumeKey]bool{}
	h.clock = w.newClock()
	h.runtime = newRuntime(h)
	h.traffic = &traffic{h: h}
	h.agent = &agent{h: h}
	return h
}

func (h *host) bootID() string { return fmt.Sprintf("%s-boot%d", h.name, h.boot) }

// powerOn boots the machine; its agent comes up a little later.
func (h *host) powerOn() {
	if h.on || h == h.w.lost {
		return
	}
	h.on, h.frozen, h.thaw = true, false, nil
	h.boot++
	h.clock.goOn(h.w.clock)
	h.boottime = clock{drift: h.clock.drift, from: h.w.clock}
	h.w.say("%s boots, life %d", h.name, h.boot)
	h.after(between(h.w.r.run, 10*time.Millisecond, time.Second), h.agent.start)
}

// powerOff takes everything away at once.
func (h *host) powerOff() {
	h.w.say("%s loses its power", h.name)
	h.on, h.frozen, h.thaw = false, false, nil
	h.gray = gray{full: h.gray.full}
	h.agent.vanish()
	h.runtime.powerLost()
	h.traffic.kernel = nil
}

// after lets a process of this machine act later: not if the power is lost
// meanwhile, and while the machine is frozen only when it runs again.
func (h *host) after(d time.Duration, do func()) { h.at(d, false, do) }

func (h *host) upkeep(d time.Duration, do func()) { h.at(d, true, do) }

func (h *host) at(d time.Duration, upkeep bool, do func()) {
	boot := h.boot
	h.w.queue.push(h.w.clock+int64(d), upkeep, func() {
		switch {
		case !h.on || h.boot != boot:
		case h.frozen:
			h.thaw = append(h.thaw, do)
		default:
			do()
		}
	})
}

// freeze stops the machine as a whole, as a virtual machine's pause does; where
// it is suspended its clock stands still, too, but not CLOCK_BOOTTIME.
func (h *host) freeze(d time.Duration, suspended bool) {
	h.w.say("%s freezes for %s%s", h.name, d, map[bool]string{true: ", its clock stands still"}[suspended])
	h.frozen = true
	if suspended {
		h.clock.stop(h.w.clock)
	}
	boot := h.boot
	h.w.after(d, func() {
		if h.boot == boot {
			h.unfreeze()
		}
	})
}

func (h *host) unfreeze() {
	if !h.on || !h.frozen {
		return
	}
	h.w.say("%s runs again", h.name)
	h.frozen = false
	h.clock.goOn(h.w.clock)
	h.runtime.thaw()
	thaw := h.thaw
	h.thaw = nil
	for _, do := range thaw {
		if h.on && !h.frozen {
			do()
		}
	}
}
