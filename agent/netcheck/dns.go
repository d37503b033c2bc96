package netcheck

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/orchctl/orch/internal/network"
)

const (
	// dnsMax is how long this node's own server may take: it may ask others.
	dnsMax = 3 * time.Second
	// upstreamMax is how long the host's may take. A resolver that knows the root's
	// servers, as all do, needs no longer.
	upstreamMax = time.Second
)

// dns asks this node's own server for orch's names, and for those of others if the
// host's servers answer: names that the host cannot look up either are not orch's
// affair.
func (c Checker) dns(ctx context.Context) (bool, string) {
	own := network.Gateway(c.Standing.Subnet).String()
	got, err := query(ctx, own, network.Domain, dns.TypeSOA, dnsMax)
	switch {
	case err != nil:
		return false, c.with(fmt.Sprintf("this node's name server at %s does not answer (%v): replicas find no names; the agent's log says why", own, err))
	case got.Rcode != dns.RcodeSuccess || len(got.Answer) == 0:
		return false, c.with(fmt.Sprintf("the name server at %s does not know %s (%s): is another program's server there?", own, network.Domain, dns.RcodeToString[got.Rcode]))
	}
	words := network.Domain + " is answered at " + own
	conf, err := dns.ClientConfigFromFile(c.Resolvers)
	if err != nil || len(conf.Servers) == 0 {
		return true, words + "; this host has no name servers of its own, so replicas find no other names"
	}
	upstream := ""
	for _, s := range conf.Servers {
		if s == own {
			continue
		}
		if got, err := query(ctx, s, ".", dns.TypeNS, upstreamMax); err == nil && got.Rcode == dns.RcodeSuccess {
			upstream = s
			break
		}
	}
	if upstream == "" {
		return true, fmt.Sprintf("%s; the host's own name servers (%s) do not answer, so replicas find no other names", words, strings.Join(conf.Servers, ", "))
	}
	if got, err := query(ctx, own, ".", dns.TypeNS, dnsMax); err != nil || got.Rcode != dns.RcodeSuccess {
		why := ""
		if err != nil {
			why = err.Error()
		} else {
			why = dns.RcodeToString[got.Rcode]
		}
		return false, c.with(fmt.Sprintf("%s, but other names are not (%s), though the host's server %s answers: the agent's log says why", words, why, upstream))
	}
	return true, words + ", other names by " + upstream
}

// query asks one server one question, by UDP and, where the answer is too large for
// that, by TCP.
func query(ctx context.Context, server, name string, kind uint16, limit time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	m.SetEdns0(1232, false)
	at := net.JoinHostPort(server, "53")
	got, _, err := (&dns.Client{Timeout: limit}).ExchangeContext(ctx, m, at)
	if err == nil && got.Truncated {
		got, _, err = (&dns.Client{Net: "tcp", Timeout: limit}).ExchangeContext(ctx, m, at)
	}
	return got, err
}
