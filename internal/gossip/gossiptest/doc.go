// Package gossiptest carries gossip in memory, for tests in synctest bubbles:
// real sockets would stop a bubble's clock, and memberlist's own mock blocks at
// shutdown.
//
// Invariant: nothing here ever blocks a sender; what cannot be delivered is lost,
// as on a network.
//
//	member --WriteTo--> Network --unless cut--> packets of another member
//	member --Dial-----> Network --unless cut--> one end of a net.Pipe
package gossiptest
