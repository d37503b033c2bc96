// Package reconciler decides what one service needs next: which of its slots
// are to be filled, which fillings are to go, which spare becomes the replica.
// It is pure: Plan takes a picture of the service and the time and returns
// actions, each with its reason in words. Where a new filling goes is not its
// affair: it knows nothing of capacity, and asks again for what was not placed.
//
// It owns the rules of scaling, spares and rollouts. Invariants: its actions
// never take the slots that are available below Replicas - MaxUnavailable (I4);
// planning what has been applied plans nothing (I10); beyond one filling for
// each slot there are never more than MaxSurge by its doing, spares apart.
//
//	View ─► void ─► unwanted ─► contest ─► prune ─► spare ─► stop-first ─► fill ─► start-first ─► Decision
//	        dead    deleted,    spare or   old and  for      within the    empty   within the
//	        nodes   scaled away incumbent  double   suspect  floor         slots   surge
//
// Three words for what is known of a filling's node:
//
//	heard      Healthy, Back                       its fillings may be removed
//	reachable  heard, and AgentLost and Unknown    its fillings count as last known and are left alone
//	suspect    Suspect                             its fillings do not count, are left alone, and get a spare
//
// Left alone has one exception: what the user no longer wants (the service is
// deleted, the slot is scaled away) is removed wherever it is.
//
// Spares are apart from the surge: a spare stands in for a filling that may be
// running nothing at all, so it takes no room from a rollout, and a rollout
// never delays a spare. A slot with a spare is not rolled until exactly one of
// the two is left.
package reconciler
