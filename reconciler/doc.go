// Package reconciler decides what one service needs next: which of its slots
// are to be filled, which fillings are to go, which spare becomes the replica.
// It is pure: Plan takes a picture of the service and the time and returns
// actions, each with its reason in words. Where a new filling goes is not its
// affair: it knows nothing of capacity, and asks again for what was not placed.
// Nor are budgets of spares and reliefs: whoever carries out the plan holds back
// what is too much, and sets Filling.Relieve on no more than may be relieved.
//
// It owns the rules of scaling, spares, reliefs, rollouts and exclusive slots.
// Invariants: its actions never take the slots that are available below
// Replicas - MaxUnavailable (I4); planning what has been applied plans nothing
// (I10); beyond one filling for each slot there are never more than MaxSurge by
// its doing, spares apart; an exclusive slot gets nothing while anything that is
// or was in it may run (I6).
//
//	View ─► void ─► unwanted ─┬► adopt ─► relieve ─► evict ─► contest ─► prune ─► spare ─► stop-first ─► fill ─► start-first ─► relief ─► Decision
//	        dead    deleted,  │           spare is   overdue  spare or   old and  for      within the    empty   within the     spare
//	        nodes   scaled    │           ready      ones     incumbent  double   suspect  floor         slots   surge
//	                away      │
//	                exclusive └► leave one ─► give up ─► prune ─► relieve ─► evict ─► stop-first ─► refill ─► Decision, Wake
//	                             of several   lease has           within              within the    all is
//	                                          ended               the floor           floor         fenced
//
// Three words for what is known of a filling's node:
//
//	heard      Healthy, Back                       its fillings may be removed
//	reachable  heard, and AgentLost and Unknown    its fillings count as last known and are left alone
//	suspect    Suspect                             its fillings do not count, are left alone, and get a spare
//
// Left alone has exceptions. What the user no longer wants (the service is
// deleted, the slot is scaled away) is removed wherever it is; so is what has been
// relieved, and what an exclusive slot has one too many of.
//
// # Spares and reliefs
//
// Spares are apart from the surge: a spare stands in for a filling that may be
// running nothing at all, so it takes no room from a rollout, and a rollout
// never delays a spare. A slot with a spare is not rolled until exactly one of
// the two is left.
//
// A filling that is to be relieved runs, but its agent is lost for long or its
// node cannot work. It gets a spare too, elsewhere, and goes as soon as that is
// ready: never before, so that the slot stays available. Once it need not be
// relieved any more the two contest the slot as after any return. What is suspect
// as well is simply suspect. Its Remove may reach nobody for long, and its node may
// be unable to stop it: then the record stays, and nothing waits for its room.
// A slot is relieved by its rollout where that has its turn; so no spare that
// finds no room keeps a slot from being rolled.
//
// One that does not serve goes as soon as its spare runs, though that may not be
// ready either: the slot loses nothing. What is overdue (its node was to be empty by
// now) goes although nothing has taken its place, as far down as the floor.
//
// An incumbent that is back on a damped node keeps its spare, if that is ready:
// the node may be gone again in a moment.
//
// # Global services, and slots that are bound
//
// A slot of a global service belongs to a node (Seat): nothing stands in for it
// elsewhere, there is neither surge nor relief, and what is new comes when all is gone
// that was there. So there is at most one live filling on a node. A seat that is closed
// (its node takes nothing new) keeps what it has, and the rollout goes on without it; a
// seat to leave (the node is drained, or not fit any more) is emptied at once.
//
// The slots of a service with volumes are bound to where those are (Bound), and planned
// the same way: a slot has one live filling, whatever becomes of its node. One that is
// not bound yet may be filled anywhere. What is in a slot on another node than the one
// that it is bound to by now is rolled like an old revision.
//
// # How far a rollout goes
//
// A slot is reached when something of the wanted revision lives in it. Held lets the
// rollout reach AtMost slots: what the others lose is filled with the stable revision.
// While nothing of the wanted revision is ready it is on trial: it may leave as many
// slots down as MaxUnavailable allows, no more; and gives one back in which what
// served beside it was lost. Replicas of the wanted revision count as available when
// they were ready for MinReady; Wake is when the next one will. Recreate stops all of
// other revisions first, and waits for what cannot be heard: it may run. See bounds.go.
//
// # Jobs
//
// PlanJob plans what comes to an end. A slot is an index of the job; what fills it is a
// try, which completes the index or has failed. Nothing is begun for an index that is
// completed; what cannot be reached has a spare, and the first of the two that ends well
// counts. See job.go.
//
// # Exclusive slots
//
// A slot of an exclusive service has no spare and no successor beside it. It is
// filled when each filling in it is known to be gone or fenced: under a lease that
// has surely ended, or that it never got. An incumbent that cannot be reached is
// given up when its lease has ended; one on a node that cannot work is stopped
// first, within the floor. Decision.Wake is when the next slot can be filled, too. What
// runs without a lease, because the service was not exclusive before, has no
// fence: where its agent is not heard the slot waits, and keeps what serves in it.
package reconciler
