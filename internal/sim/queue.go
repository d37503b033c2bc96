package sim

import (
	"math/rand/v2"
	"time"
)

// happening is something that will happen. Upkeep is not counted as a step.
type happening struct {
	at     int64 // ns since the start
	seq    uint64
	upkeep bool
	do     func()
}

// queue is a heap of happenings by time, then by when they were put in.
type queue struct {
	heap []happening
	seq  uint64
}

func (q *queue) less(i, j int) bool {
	a, b := &q.heap[i], &q.heap[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (q *queue) push(at int64, upkeep bool, do func()) {
	q.seq++
	q.heap = append(q.heap, happening{at, q.seq, upkeep, do})
	for i := len(q.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !q.less(i, parent) {
			return
		}
		q.heap[i], q.heap[parent] = q.heap[parent], q.heap[i]
		i = parent
	}
}

func (q *queue) pop() (happening, bool) {
	if len(q.heap) == 0 {
		return happening{}, false
	}
	first := q.heap[0]
	last := len(q.heap) - 1
	q.heap[0], q.heap[last] = q.heap[last], happening{}
	q.heap = q.heap[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return first, true
		}
		if child+1 < last && q.less(child+1, child) {
			child++
		}
		if !q.less(child, i) {
			return first, true
		}
		q.heap[i], q.heap[child] = q.heap[child], q.heap[i]
		i = child
	}
}

// streams are independent sources of chance, all of one seed, so that leaving
// out one kind of fault changes no draw of the others.
type streams struct{ world, users, faults, net, run, owners, images *rand.Rand }

func newStreams(seed uint64) streams {
	of := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }
	return streams{of(1), of(2), of(3), of(4), of(5), of(6), of(7)}
}

func chance(r *rand.Rand, p float64) bool { return r.Float64() < p }

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)+1))
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }
