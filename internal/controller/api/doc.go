// Package api serves users: orch.v1.Orch, and the door through which every call
// to this controller comes.
//
// It owns the rules of who may call what, the strict reading of what users send,
// and the words and codes in which errors go back. Reads come from the published
// view; changes are events for the leader's core.
//
// Invariant: a call without a rule is refused, and so is one whose certificate
// does not fit its rule; nothing that was sent is taken up in part; no values of a Secret
// leave here but encrypted.
//
//	call ──► Gate (certificate, role) ──► Apply, Rollout, Scale, Delete, NodeWord, Rebalance, RotateSecretKey ──► Leader.Ask ──► core
//	                                  ├──► Get, List, Watch ◄── view
//	                                  └──► Logs, Exec, PortForward, NetCheck, LoadImage ──► relays ──► agents
//	                  Apply and Rollout ask agents by a relay, too: which digests their images have
package api
