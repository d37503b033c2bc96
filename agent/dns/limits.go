package dns

import "time"

const (
	// ttlStays is for what stays as it is for a service's whole life: its virtual IP.
	// A service that is deleted and made anew gets another, which clients that were
	// told the old one find in that time.
	ttlStays = 5 // seconds
	// ttlMoves is for replicas' addresses, and for names that do not exist: each may
	// be otherwise in a moment, and to ask again costs a tenth of a millisecond.
	ttlMoves = 1 // seconds

	// packetMax is how much a UDP answer may hold: what passes unfragmented
	// everywhere, as agreed on the DNS flag day of 2020.
	packetMax = 1232 // bytes
	// packetPlain is what those take who say nothing (no EDNS0).
	packetPlain = 512 // bytes
	// streamMax is what the length in front of a message on TCP can tell.
	streamMax = 65535 // bytes
	// udpRecords and tcpRecords of one name are put in an answer before it is cut to
	// size: more would not fit anyhow.
	udpRecords = 100
	tcpRecords = 4000

	// forwardsMax are asked of the host's servers at one time; forwardsEach is one
	// asker's share, so that a replica gone wild leaves the others theirs.
	forwardsMax  = 1000
	forwardsEach = 100
	// streamsMax and streamsEach are TCP connections at one time, likewise.
	streamsMax  = 500
	streamsEach = 50
	// streamIdle ends a connection on which nothing is asked.
	streamIdle = 5 * time.Second
	// streamQueries ends a connection after so many, to let others in.
	streamQueries = 1000

	// serverTime is how long one of the host's servers is waited for: two of them, or
	// one that is asked twice, are silent before a replica asks anew after 2 s.
	serverTime = 900 * time.Millisecond
	// silentFor is how long after all servers were silent the next are not waited
	// for: where they cannot be reached, every name that is not ours would take
	// seconds to fail. One question in that time still goes to them.
	silentFor = 3 * time.Second
	// serversMax of /etc/resolv.conf count, as for the C library.
	serversMax = 3

	// cacheEntries and cacheBytes bound what is remembered of the host's servers'
	// answers; cacheMessage keeps single large ones out.
	cacheEntries = 10_000
	cacheBytes   = 16 << 20
	cacheMessage = 4096 // bytes
	// ageMax and negativeMax cap what servers allow: a slip in somebody's zone is
	// not to outlast a working day's coffee break.
	ageMax      = time.Hour
	negativeMax = 5 * time.Minute
	// staleMax is how long after its end an answer is still given where no server
	// answers (RFC 8767); staleTTL is what clients are told then.
	staleMax = time.Minute
	staleTTL = 5 // seconds
	// stalePatience is how long servers are waited for before a stale answer is
	// given: RFC 8767's 1.8 s, before clients ask a second time.
	stalePatience = 1800 * time.Millisecond
	// staleRetry is how long after a failure the stale answer is given at once.
	staleRetry = 5 * time.Second

	// bindRetry: the address comes with the first network configuration.
	bindRetry = 200 * time.Millisecond
	// recheck is how often resolv.conf and the host's addresses are looked at anew,
	// at most, and only when somebody asks.
	recheck = time.Second
)
