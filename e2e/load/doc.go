// Package load puts bounded load on a network and counts what fails: HTTP
// requests, TCP and UDP echoes, connections that are held, names that are looked
// up, raw DNS queries, streams of bytes. The program images/web runs its jobs, in a
// replica (POST /run) or on a host (web -run), so that the client is where the
// tests want it to be.
//
//	test ──Job──► web -load in a replica ──► VIP ──► web
//	     ◄─Report─                    (or web -run in a node's namespace)
//
// It owns nothing. Invariants: a job never asks faster than its rate, with more
// workers than it names, or more often than its count; a request that did not
// bring the whole of the answer it wants is a failed one; none is tried again,
// but by what net/http does by itself: a GET on a kept connection that the server
// had closed before it answered anything.
package load
