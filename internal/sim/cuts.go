package sim

import (
	"slices"
	"time"
)

// pairs are paths, each in one direction.
type pairs [][2]string

// cut closes paths for a while. Where two cuts overlap, a path is open again
// when both are over.
func (w *world) cut(ps pairs, long time.Duration) {
	w.say("cut for %s: %v", long, ps)
	for _, p := range ps {
		w.cuts[p]++
	}
	w.after(long, func() {
		if w.calm {
			return
		}
		w.say("healed: %v", ps)
		for _, p := range ps {
			if w.cuts[p]--; w.cuts[p] <= 0 {
				delete(w.cuts, p)
			}
		}
	})
}

// cutStore keeps a controller from the store.
func (w *world) cutStore(c *controller, long time.Duration) {
	w.say("%s is cut from the store for %s", c.name, long)
	c.storeCut = true
	w.after(long, func() { c.storeCut = false })
}

// cutSomething cuts one path in one or both directions, a node from everybody
// likewise, or a controller from the store.
func (w *world) cutSomething(d draw) {
	h, c := d.h, d.c
	switch {
	case d.n < 10:
		w.cutStore(c, d.long)
	case d.n < 30:
		w.cut(pairs{{h.name, c.name}, {c.name, h.name}}, d.long)
	case d.n < 40:
		w.cut(pairs{{h.name, c.name}}, d.long)
	case d.n < 50:
		w.cut(pairs{{c.name, h.name}}, d.long)
	case d.n < 60 && d.other != h:
		w.cut(pairs{{h.name, d.other.name}, {d.other.name, h.name}}, d.long)
	case d.n < 80:
		w.cut(w.around(h, true, true), d.long)
		w.hint(h, false)
	default: // deaf or mute
		w.cut(w.around(h, d.m < 50, d.m >= 50), d.long)
		w.hint(h, false)
	}
}

// around are all paths to and from a machine.
func (w *world) around(h *host, to, from bool) pairs {
	var out pairs
	for _, x := range w.machines() {
		if x == h.name {
			continue
		}
		if to {
			out = append(out, [2]string{x, h.name})
		}
		if from {
			out = append(out, [2]string{h.name, x})
		}
	}
	return out
}

// between are all paths from one side to the other, and back if both are wanted.
func betweenSides(a, b []string, both bool) pairs {
	var out pairs
	for _, x := range a {
		for _, y := range b {
			out = append(out, [2]string{x, y})
			if both {
				out = append(out, [2]string{y, x})
			}
		}
	}
	return out
}

// flap cuts a node off and heals it over and over, within a minute.
func (w *world) flap(h *host, times int, each time.Duration) {
	if times == 0 || w.calm {
		return
	}
	each = max(each, 700*time.Millisecond) // less is not noticed
	w.cut(w.around(h, true, true), each)
	w.after(each*2, func() { w.flap(h, times-1, each) })
}

// drawMany gives the machines that a mass loss takes: any number, now and then
// all but one.
func (w *world) drawMany() []*host {
	out := slices.Clone(w.hosts)
	w.r.faults.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	n := 2 + w.r.faults.IntN(len(out)-1)
	if w.r.faults.IntN(4) == 0 {
		n = len(out) - 1
	}
	return out[:n]
}

// loseMany takes many machines away at once: without power, frozen, cut off from
// everybody else though not from each other, or cut off together with some of
// the controllers, which then cannot reach the store either.
func (w *world) loseMany(d draw) {
	var names []string
	for _, h := range d.subset {
		names = append(names, h.name)
	}
	rest := slices.DeleteFunc(w.machines(), func(m string) bool { return slices.Contains(names, m) })
	switch {
	case d.n < 25:
		for _, h := range d.subset {
			w.powerCut(h, d.long)
		}
	case d.n < 35:
		for _, h := range d.subset {
			w.stun(h, d.long, d.m < 50)
		}
	case d.n < 70:
		w.cut(betweenSides(names, rest, d.m < 80), d.long)
		w.hint(d.subset[0], false)
	default:
		for i, c := range w.controllers {
			if (d.m>>i)&1 == 0 {
				continue
			}
			names = append(names, c.name)
			rest = slices.DeleteFunc(rest, func(m string) bool { return m == c.name })
			if d.m < 50 {
				w.cutStore(c, d.long)
			}
		}
		w.cut(betweenSides(names, rest, true), d.long)
	}
}

func (w *world) machines() []string {
	var out []string
	for _, h := range w.hosts {
		out = append(out, h.name)
	}
	for _, c := range w.controllers {
		out = append(out, c.name)
	}
	return out
}
