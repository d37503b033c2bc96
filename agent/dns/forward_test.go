package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// upstream stands for the host's servers: reply says what one answers.
type upstream struct {
	mu    sync.Mutex
	asked []string
	reply func(m *dns.Msg, server string) (*dns.Msg, error)
}

var errDeaf = errors.New("no answer")

func (u *upstream) exchange(ctx context.Context, m *dns.Msg, server netip.AddrPort) (*dns.Msg, error) {
	u.mu.Lock()
	u.asked = append(u.asked, server.Addr().String())
	reply := u.reply
	u.mu.Unlock()
	r, err := reply(m, server.Addr().String())
	if errors.Is(err, errDeaf) {
		select {
		case <-time.After(serverTime):
		case <-ctx.Done():
		}
	}
	return r, err
}

func (u *upstream) answers(f func(m *dns.Msg, server string) (*dns.Msg, error)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reply, u.asked = f, nil
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.asked)
}

func silent(*dns.Msg, string) (*dns.Msg, error) { return nil, errDeaf }

// records answers with these, in zone file form.
func records(list ...string) func(m *dns.Msg, server string) (*dns.Msg, error) {
	return func(m *dns.Msg, _ string) (*dns.Msg, error) {
		r := new(dns.Msg).SetReply(m)
		for _, text := range list {
			rr, err := dns.NewRR(text)
			if err != nil {
				return nil, err
			}
			if rr.Header().Rrtype == dns.TypeSOA {
				r.Ns = append(r.Ns, rr)
			} else {
				r.Answer = append(r.Answer, rr)
			}
		}
		return r, nil
	}
}

func coded(code int, then func(m *dns.Msg, server string) (*dns.Msg, error)) func(m *dns.Msg, server string) (*dns.Msg, error) {
	return func(m *dns.Msg, server string) (*dns.Msg, error) {
		r, err := then(m, server)
		if err == nil {
			r.Rcode = code
		}
		return r, err
	}
}

// asking makes a forwarder with these servers in a bubble.
func asking(t *testing.T, servers ...string) (*forwarder, *upstream) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	hosts(t, file, servers...)
	u := &upstream{reply: records("a.example. 60 A 198.51.100.1")}
	f := newForwarder(file, func(a netip.Addr) bool { return a == netip.MustParseAddr("10.64.1.1") })
	f.exchange = u.exchange
	return f, u
}

func hosts(t *testing.T, file string, servers ...string) {
	text := "search example.com\n"
	for _, s := range servers {
		text += "nameserver " + s + "\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

var aExample = question{name: "a.example.", qtype: dns.TypeA}

// said asks, and puts the answer and how long it took in words.
func said(t *testing.T, f *forwarder, q question) string {
	start := time.Now()
	r, err := f.resolve(t.Context(), q)
	took := time.Since(start)
	if err != nil {
		return fmt.Sprintf("fails after %s", took)
	}
	text := dns.RcodeToString[r.Rcode]
	for _, rr := range r.Answer {
		text += " " + strings.Join(strings.Fields(rr.String())[1:], " ")
	}
	return fmt.Sprintf("%s after %s", text, took)
}

func wants(t *testing.T, f *forwarder, q question, want string) {
	t.Helper()
	if got := said(t, f, q); got != want {
		t.Errorf("%s: got %s, want %s", q.name, got, want)
	}
}

func TestCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, u := asking(t, "192.0.2.53")
		wants(t, f, aExample, "NOERROR 60 IN A 198.51.100.1 after 0s")
		time.Sleep(10 * time.Second)
		wants(t, f, aExample, "NOERROR 50 IN A 198.51.100.1 after 0s")
		if u.count() != 1 {
			t.Errorf("asked %d times, want once: it is remembered", u.count())
		}
		time.Sleep(50 * time.Second)
		wants(t, f, aExample, "NOERROR 60 IN A 198.51.100.1 after 0s")
		if u.count() != 2 {
			t.Errorf("asked %d times, want twice: its time was over", u.count())
		}
		// Another type, or with signatures, is another question.
		wants(t, f, question{name: "a.example.", qtype: dns.TypeA, dnssec: true}, "NOERROR 60 IN A 198.51.100.1 after 0s")
		if u.count() != 3 {
			t.Errorf("asked %d times, want 3", u.count())
		}
	})
}

func TestStaleWhereNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, u := asking(t, "192.0.2.53")
		defer f.wait()
		wants(t, f, aExample, "NOERROR 60 IN A 198.51.100.1 after 0s")
		u.answers(silent)
		time.Sleep(61 * time.Second)
		wants(t, f, aExample, "NOERROR 5 IN A 198.51.100.1 after 1.8s") // the patience
		time.Sleep(3 * time.Second)                                     // by now the servers have failed
		wants(t, f, aExample, "NOERROR 5 IN A 198.51.100.1 after 0s")
		if u.count() != 2 { // a single server is asked twice
			t.Errorf("asked %d times, want 2", u.count())
		}
		// They answer again: within the retry the new answer comes.
		u.answers(records("a.example. 60 A 198.51.100.2"))
		time.Sleep(staleRetry)
		wants(t, f, aExample, "NOERROR 60 IN A 198.51.100.2 after 0s")
		// Past its extra time nothing is said any more.
		u.answers(silent)
		time.Sleep(60*time.Second + staleMax)
		wants(t, f, aExample, "fails after 1.8s")
		if f.cache.size != 0 || f.cache.used.Len() != 0 {
			t.Errorf("the cache holds %d bytes in %d entries, want none", f.cache.size, f.cache.used.Len())
		}
	})
}

func TestNegative(t *testing.T) {
	const soa = "example. 3600 SOA ns.example. me.example. 1 3600 600 86400 30"
	for what, c := range map[string]struct {
		reply func(m *dns.Msg, server string) (*dns.Msg, error)
		holds time.Duration
	}{
		"no such name":              {coded(dns.RcodeNameError, records(soa)), 30 * time.Second},
		"no such record":            {records(soa), 30 * time.Second},
		"an alias to nothing":       {coded(dns.RcodeNameError, records("a.example. 5 CNAME b.example.", soa)), 5 * time.Second},
		"the zone says nothing":     {coded(dns.RcodeNameError, records()), 0},
		"the zone says a day":       {coded(dns.RcodeNameError, records("example. 86400 SOA ns.example. me.example. 1 3600 600 86400 86400")), negativeMax},
		"a record that never holds": {records("a.example. 0 A 198.51.100.1"), 0},
		"a record for a year":       {records("a.example. 31536000 A 198.51.100.1"), ageMax},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, u := asking(t, "192.0.2.53")
				u.answers(c.reply)
				said(t, f, aExample)
				if c.holds > 0 {
					time.Sleep(c.holds - time.Second)
					if said(t, f, aExample); u.count() != 1 {
						t.Errorf("asked again within %s", c.holds)
					}
					time.Sleep(time.Second)
				}
				if said(t, f, aExample); u.count() != 2 {
					t.Errorf("asked %d times by %s, want it asked again", u.count(), c.holds)
				}
			})
		})
	}
}

func TestServersInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, u := asking(t, "192.0.2.1", "10.64.1.1", "192.0.2.3", "192.0.2.4", "192.0.2.5")
		good := records("a.example. 0 A 198.51.100.1")
		only := func(alive string) func(m *dns.Msg, server string) (*dns.Msg, error) {
			return func(m *dns.Msg, server string) (*dns.Msg, error) {
				if server == alive {
					return good(m, server)
				}
				return nil, errDeaf
			}
		}
		// Ourselves is left out, and what comes after the third.
		u.answers(only("192.0.2.3"))
		wants(t, f, aExample, "NOERROR 0 IN A 198.51.100.1 after 900ms")
		wants(t, f, aExample, "NOERROR 0 IN A 198.51.100.1 after 0s") // it comes first by now
		u.answers(only("192.0.2.1"))
		wants(t, f, aExample, "NOERROR 0 IN A 198.51.100.1 after 900ms")
		u.answers(only("192.0.2.4"))
		wants(t, f, aExample, "fails after 1.8s")
		if !slices.Equal(u.asked, []string{"192.0.2.1", "192.0.2.3"}) {
			t.Errorf("asked %v, want the last good one first, and three of the file at most", u.asked)
		}
		// While all are silent nobody waits for them, but one at a time who sees.
		wants(t, f, aExample, "fails after 0s")
		time.Sleep(silentFor)
		u.answers(only("192.0.2.4"))
		go wants(t, f, question{name: "b.example.", qtype: dns.TypeA}, "fails after 1.8s")
		synctest.Wait()
		wants(t, f, aExample, "fails after 0s")
		time.Sleep(2*serverTime + silentFor)
		// One that refuses, or is broken, is no answer either.
		u.answers(func(m *dns.Msg, server string) (*dns.Msg, error) {
			if server == "192.0.2.1" {
				return coded(dns.RcodeRefused, records())(m, server)
			}
			return good(m, server)
		})
		wants(t, f, aExample, "NOERROR 0 IN A 198.51.100.1 after 0s")
		u.answers(coded(dns.RcodeServerFailure, records()))
		wants(t, f, aExample, "fails after 0s")
		// One that does not know EDNS0 is asked without.
		u.answers(func(m *dns.Msg, server string) (*dns.Msg, error) {
			if m.IsEdns0() != nil {
				return coded(dns.RcodeFormatError, records())(m, server)
			}
			return good(m, server)
		})
		wants(t, f, aExample, "NOERROR 0 IN A 198.51.100.1 after 0s")
	})
}

func TestResolvConfChanges(t *testing.T) {
	f, u := asking(t)
	clock := time.Unix(0, 0)
	f.now = func() time.Time { return clock }
	step := func(want ...string) {
		t.Helper()
		clock = clock.Add(recheck)
		u.answers(silentAtOnce)
		said(t, f, aExample)
		if !slices.Equal(u.asked, want) {
			t.Errorf("asked %v, want %v", u.asked, want)
		}
	}
	step()
	hosts(t, f.file, "192.0.2.1", "192.0.2.2")
	step("192.0.2.1", "192.0.2.2")
	// As those do who write a new file and rename it.
	hosts(t, f.file+".new", "192.0.2.3", "192.0.2.4")
	if err := os.Rename(f.file+".new", f.file); err != nil {
		t.Fatal(err)
	}
	step("192.0.2.3", "192.0.2.4")
	if err := os.Remove(f.file); err != nil {
		t.Fatal(err)
	}
	step()
}

func silentAtOnce(*dns.Msg, string) (*dns.Msg, error) { return nil, errors.New("refused") }

// TestAskedOnce: who asks the same at the same time shares one answer, each with its
// own copy.
func TestAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, u := asking(t, "192.0.2.53")
		slow := records("a.example. 60 A 198.51.100.1")
		u.answers(func(m *dns.Msg, server string) (*dns.Msg, error) {
			time.Sleep(time.Second)
			return slow(m, server)
		})
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				r, err := f.resolve(t.Context(), aExample)
				if err != nil || len(r.Answer) != 1 {
					t.Errorf("got %v, %v", r, err)
					return
				}
				r.Answer[0].Header().Ttl = rand.Uint32() // it is the asker's own
			})
		}
		all.Wait()
		if u.count() != 1 {
			t.Errorf("asked %d times, want once", u.count())
		}
		wants(t, f, aExample, "NOERROR 60 IN A 198.51.100.1 after 0s")
	})
}

// TestCacheBounds: neither many nor large answers make it grow, and what is used stays.
func TestCacheBounds(t *testing.T) {
	now := time.Unix(0, 0)
	answer := func(name string, size int) *dns.Msg {
		m := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
		m.Response = true
		txt := &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}}
		for ; size > 0; size -= 250 {
			txt.Txt = append(txt.Txt, strings.Repeat("x", 249))
		}
		m.Answer = []dns.RR{txt}
		return m
	}
	c := newCache(100, 50_000)
	used := question{name: "used.example.", qtype: dns.TypeTXT}
	c.put(used, answer(used.name, 10), now)
	for i := range 1000 {
		q := question{name: fmt.Sprintf("n%d.example.", i), qtype: dns.TypeTXT}
		c.put(q, answer(q.name, rand.IntN(2*cacheMessage)), now)
		c.put(q, answer(q.name, rand.IntN(2000)), now)
		if c.get(used, now) == nil {
			t.Fatalf("what is used was forgotten after %d others", i)
		}
		sum := 0
		for x := c.used.Front(); x != nil; x = x.Next() {
			sum += x.Value.(*entry).cost()
		}
		if sum != c.size || c.size > 50_000 || len(c.byQuestion) > 100 || len(c.byQuestion) != c.used.Len() {
			t.Fatalf("%d bytes (counted %d) in %d entries (%d listed)", sum, c.size, len(c.byQuestion), c.used.Len())
		}
	}
	if len(c.byQuestion) < 20 {
		t.Errorf("only %d entries are kept", len(c.byQuestion))
	}
}
