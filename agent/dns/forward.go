package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// question is what is asked of others, and what their answers are known by.
type question struct {
	name              string // in lower case, with the last dot
	qtype             uint16
	dnssec, unchecked bool
}

// forwarder asks the host's servers and remembers what they said. The same question
// is asked once at a time.
type forwarder struct {
	file string
	// ours tells whether a server is one of us: it would ask us back.
	ours     func(netip.Addr) bool
	exchange func(ctx context.Context, m *dns.Msg, server netip.AddrPort) (*dns.Msg, error)
	now      func() time.Time

	flying sync.WaitGroup

	mu      sync.Mutex
	cache   *cache
	flights map[question]*flight
	// silentAt is when all servers were last found silent, or a question was let
	// through to see whether they still are; zero: they answer.
	silentAt time.Time
	silent   []netip.AddrPort // those that were

	hosts    sync.Mutex
	looked   time.Time
	seen     os.FileInfo
	servers  []netip.AddrPort
	lastGood netip.AddrPort
}

// flight is one question under way.
type flight struct {
	done  chan struct{}
	reply *dns.Msg // once done is closed
	err   error
}

var (
	errNoServers = errors.New("the host has no name servers")
	errSilent    = errors.New("the host's name servers do not answer")
)

func newForwarder(file string, ours func(netip.Addr) bool) *forwarder {
	return &forwarder{file: file, ours: ours, exchange: exchange, now: time.Now, cache: newCache(cacheEntries, cacheBytes), flights: map[question]*flight{}}
}

// wait returns when nothing is under way any more.
func (f *forwarder) wait() { f.flying.Wait() }

// resolve answers a question: from the cache, from the servers, or, where they do not
// answer, with what they said last. ctx is the server's, not one asker's: others may
// wait for the same answer.
func (f *forwarder) resolve(ctx context.Context, q question) (*dns.Msg, error) {
	now := f.now()
	servers := f.upstreams()
	f.mu.Lock()
	e := f.cache.get(q, now)
	if e != nil && (now.Before(e.end) || now.Sub(e.failed) < staleRetry) {
		f.mu.Unlock()
		return e.message(now)
	}
	fl := f.flights[q]
	if fl == nil && !f.silentAt.IsZero() && slices.Equal(servers, f.silent) {
		if now.Sub(f.silentAt) < silentFor {
			f.mu.Unlock()
			if e != nil {
				return e.message(now)
			}
			return nil, errSilent
		}
		f.silentAt = now // this one sees
	}
	if fl == nil {
		fl = &flight{done: make(chan struct{})}
		f.flights[q] = fl
		f.flying.Go(func() { f.fly(ctx, q, fl) })
	}
	f.mu.Unlock()

	var patience <-chan time.Time
	if e != nil {
		t := time.NewTimer(stalePatience)
		defer t.Stop()
		patience = t.C
	}
	select {
	case <-fl.done:
		if fl.err != nil && e != nil {
			return e.message(f.now())
		}
		if fl.err != nil {
			return nil, fl.err
		}
		return fl.reply.Copy(), nil
	case <-patience:
		return e.message(f.now())
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fly asks, remembers and tells.
func (f *forwarder) fly(ctx context.Context, q question, fl *flight) {
	fl.reply, fl.err = f.ask(ctx, q)
	now := f.now()
	f.mu.Lock()
	switch {
	case errors.Is(fl.err, errSilent):
		f.silentAt, f.silent = now, f.upstreams()
	case ctx.Err() == nil:
		f.silentAt = time.Time{}
	}
	if fl.err != nil {
		f.cache.fail(q, now)
	} else {
		f.cache.put(q, fl.reply, now)
	}
	delete(f.flights, q)
	f.mu.Unlock()
	close(fl.done)
}

// ask asks the servers in turn, the last good one first. A single one is asked twice,
// for a packet may be lost.
func (f *forwarder) ask(ctx context.Context, q question) (*dns.Msg, error) {
	servers := f.upstreams()
	f.hosts.Lock()
	if i := slices.Index(servers, f.lastGood); i > 0 {
		servers = slices.Concat(servers[i:i+1], servers[:i], servers[i+1:])
	}
	f.hosts.Unlock()
	if len(servers) == 1 {
		servers = append(servers, servers[0])
	}
	if len(servers) == 0 {
		return nil, errNoServers
	}
	var err error
	heard := false
	for _, server := range servers {
		m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id(), RecursionDesired: true, CheckingDisabled: q.unchecked},
			Question: []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: dns.ClassINET}}}
		m.SetEdns0(packetMax, q.dnssec)
		var r *dns.Msg
		r, err = f.exchange(ctx, m, server)
		if err == nil && r.Rcode == dns.RcodeFormatError {
			m.Extra = nil // it is older than EDNS0
			r, err = f.exchange(ctx, m, server)
		}
		if err != nil {
			continue
		}
		heard = true
		if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
			err = fmt.Errorf("ask %s for %s: %s", server, q.name, dns.RcodeToString[r.Rcode])
			continue
		}
		f.hosts.Lock()
		f.lastGood = server
		f.hosts.Unlock()
		return r, nil
	}
	if !heard && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", errSilent, err)
	}
	return nil, err
}

// exchange asks one server, by TCP where the answer does not fit a packet.
func exchange(ctx context.Context, m *dns.Msg, server netip.AddrPort) (*dns.Msg, error) {
	for _, transport := range []string{"udp", "tcp"} {
		r, err := exchangeBy(ctx, transport, m, server)
		switch {
		case err != nil:
			return nil, fmt.Errorf("ask %s for %s by %s: %w", server, m.Question[0].Name, transport, err)
		case len(r.Question) != 1 || !sameQuestion(r.Question[0], m.Question[0]):
			return nil, fmt.Errorf("ask %s for %s by %s: it answered another question", server, m.Question[0].Name, transport)
		case !r.Truncated:
			return r, nil
		}
	}
	return nil, fmt.Errorf("ask %s for %s: the answer is cut off even by tcp", server, m.Question[0].Name)
}

func exchangeBy(ctx context.Context, transport string, m *dns.Msg, server netip.AddrPort) (*dns.Msg, error) {
	c := dns.Client{Net: transport, Timeout: serverTime, UDPSize: packetMax}
	conn, err := c.DialContext(ctx, server.String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	// The library looks at ctx's deadline only.
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	r, _, err := c.ExchangeWithConnContext(ctx, m, conn)
	return r, err
}

func sameQuestion(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && dns.CanonicalName(a.Name) == dns.CanonicalName(b.Name)
}

// upstreams are the servers in resolv.conf that are not ourselves. The file is looked
// at again when it changed.
func (f *forwarder) upstreams() []netip.AddrPort {
	f.hosts.Lock()
	defer f.hosts.Unlock()
	if now := f.now(); f.looked.IsZero() || now.Sub(f.looked) >= recheck {
		f.looked = now
		if info, err := os.Stat(f.file); err != nil {
			f.servers, f.seen = nil, nil
		} else if f.seen == nil || !os.SameFile(info, f.seen) || !info.ModTime().Equal(f.seen.ModTime()) || info.Size() != f.seen.Size() {
			f.servers, f.seen = readServers(f.file), info
		}
	}
	return slices.DeleteFunc(slices.Clone(f.servers), func(a netip.AddrPort) bool { return f.ours(a.Addr().Unmap()) })
}

func readServers(file string) []netip.AddrPort {
	conf, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return nil
	}
	var list []netip.AddrPort
	for _, text := range conf.Servers {
		a, err := netip.ParseAddrPort(net.JoinHostPort(text, conf.Port))
		if err == nil && len(list) < serversMax {
			list = append(list, a)
		}
	}
	return list
}
