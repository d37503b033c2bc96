package load

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// repeatLookup looks each target up as often as Count says, by Go's own resolver
// and this place's resolv.conf. A target is "NAME" for addresses, "srv:NAME" for
// "target:port", or "ptr:ADDRESS" for names. A name that does not exist fails.
func repeatLookup(ctx context.Context, j Job) Report {
	var mu sync.Mutex
	answers := map[string][]string{}
	resolver := &net.Resolver{PreferGo: true}
	r := repeat(ctx, j, func(ctx context.Context, n int) (answer, error) {
		target := j.Targets[n%len(j.Targets)]
		found, err := lookup(ctx, resolver, target)
		if err != nil {
			return answer{}, err
		}
		slices.Sort(found)
		mu.Lock()
		defer mu.Unlock()
		answers[target] = found
		return answer{by: strings.Join(found, " ")}, nil
	})
	r.Answers = answers
	return r
}

func lookup(ctx context.Context, r *net.Resolver, target string) ([]string, error) {
	how, name, ok := strings.Cut(target, ":")
	switch {
	case ok && how == "srv":
		_, records, err := r.LookupSRV(ctx, "", "", name)
		var out []string
		for _, x := range records {
			out = append(out, fmt.Sprintf("%s:%d", x.Target, x.Port))
		}
		return out, err
	case ok && how == "ptr":
		return r.LookupAddr(ctx, name)
	}
	addrs, err := r.LookupNetIP(ctx, "ip4", target)
	var out []string
	for _, a := range addrs {
		out = append(out, a.Unmap().String()) // what /etc/hosts says comes mapped
	}
	return out, err
}

// runDNS asks a server for A records, each worker on a socket of its own.
func runDNS(ctx context.Context, j Job) (Report, error) {
	questions := make([][]byte, len(j.Targets))
	for i, name := range j.Targets {
		n, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
		if err != nil {
			return Report{}, fmt.Errorf("job: name %q: %w", name, err)
		}
		m := dnsmessage.Message{Header: dnsmessage.Header{RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: n, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
		if questions[i], err = m.Pack(); err != nil {
			return Report{}, fmt.Errorf("job: name %q: %w", name, err)
		}
	}
	// Sockets are lent to one request at a time; one that failed is not used again,
	// for an answer may still be under way to it.
	sockets := make(chan net.Conn, j.Workers)
	defer func() {
		close(sockets)
		for c := range sockets {
			_ = c.Close()
		}
	}()
	return repeat(ctx, j, func(ctx context.Context, n int) (answer, error) {
		var conn net.Conn
		select {
		case conn = <-sockets:
		default:
			var err error
			if conn, err = net.Dial("udp", j.Server); err != nil {
				return answer{}, err
			}
		}
		a, err := askDNS(ctx, conn, uint16(n), questions[n%len(questions)])
		if err != nil {
			_ = conn.Close()
			return answer{}, err
		}
		sockets <- conn
		return a, nil
	}), nil
}

func askDNS(ctx context.Context, conn net.Conn, id uint16, question []byte) (answer, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(defaultTimeout)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return answer{}, err
	}
	out := slices.Clone(question)
	binary.BigEndian.PutUint16(out, id)
	if _, err := conn.Write(out); err != nil {
		return answer{}, err
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		return answer{}, err
	}
	var p dnsmessage.Parser
	h, err := p.Start(buf[:n])
	switch {
	case err != nil:
		return answer{}, fmt.Errorf("read answer: %w", err)
	case h.ID != id:
		return answer{}, fmt.Errorf("answer %d came for question %d", h.ID, id)
	case h.RCode != dnsmessage.RCodeSuccess:
		return answer{}, fmt.Errorf("answered %s", h.RCode)
	}
	if err := p.SkipAllQuestions(); err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	first, err := p.Answer()
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	a, ok := first.Body.(*dnsmessage.AResource)
	if !ok {
		return answer{}, fmt.Errorf("answered with a %s", first.Header.Type)
	}
	return answer{by: net.IP(a.A[:]).String()}, nil
}
