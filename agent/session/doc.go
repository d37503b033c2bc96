// Package session is the agent's side of its stream to the leader: dialling,
// joining the cluster, renewing its certificate, beats, and the further streams
// (logs, exec, images) that are asked for.
//
// It owns the connection, the node's certificate and the highest (incarnation,
// term) seen, which lies on disk. It decides nothing about replicas: sets go to
// a Handler, what is to be said comes through Send.
//
// Invariant: nothing of a deposed leader reaches the Handler: a term below the
// highest seen in its incarnation, and every incarnation that was replaced, is
// refused, also after a restart.
//
//	Handler ◄─Connected, Assignments, Endpoints─┐
//	Send ──► outbox ──┐                         │
//	beats ────────────┴──► stream ◄──► leader ──┘
//	                       Relay  ◄──► logs, exec, image
package session
