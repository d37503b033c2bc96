package dns

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// BenchmarkAnswers asks a running server over loopback, each asker on its own socket
// and one question at a time.
func BenchmarkAnswers(b *testing.B) {
	at := running(b, fleet(), "127.53.6.0/24")
	for _, name := range []string{"web.default.orch.internal.", "db.default.orch.internal."} {
		b.Run(name, func(b *testing.B) {
			packet, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
			if err != nil {
				b.Fatal(err)
			}
			var mu sync.Mutex
			var took []time.Duration
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("udp", at)
				if err != nil {
					b.Error(err)
					return
				}
				defer func() { _ = conn.Close() }()
				var mine []time.Duration
				buffer := make([]byte, packetMax)
				for pb.Next() {
					start := time.Now()
					_ = conn.SetDeadline(start.Add(5 * time.Second))
					if _, err := conn.Write(packet); err != nil {
						b.Error(err)
						return
					}
					if n, err := conn.Read(buffer); err != nil || n <= len(packet) {
						b.Errorf("got %d bytes, %v", n, err)
						return
					}
					mine = append(mine, time.Since(start))
				}
				mu.Lock()
				took = append(took, mine...)
				mu.Unlock()
			})
			if len(took) == 0 {
				return
			}
			slices.Sort(took)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
}

// BenchmarkTake is the answer alone, without sockets.
func BenchmarkTake(b *testing.B) {
	s := fleet()
	packet, err := new(dns.Msg).SetQuestion("web.default.orch.internal.", dns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	out := make([]byte, packetMax)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.read(packet, replicaAddr).reply.PackBuffer(out); err != nil {
			b.Fatal(err)
		}
	}
}
