package traffic

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/network"
)

// packet is one over UDP, with its IP header, from whoever it says.
func packet(from, to netip.AddrPort, data []byte) []byte {
	b := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(20+8+len(data)))
	b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	return append(append(b, 0, 0), data...) // without a checksum
}

// wrapped is a packet as it comes through the tunnel to a node.
func wrapped(node netip.Addr, inner []byte) []byte {
	mac := network.TunnelMAC(node)
	b := []byte{0x08, 0, 0, 0, 0, network.TunnelID >> 8, network.TunnelID & 0xff, 0}
	b = append(b, mac[:]...)
	b = append(b, 0x02, 0x6f, 1, 1, 1, 1, 0x08, 0x00)
	return append(b, inner...)
}

// hears gives who is heard on a UDP port, with what they said.
func (w *world) hears(space, at string) <-chan string {
	w.Helper()
	heard := make(chan string, 100)
	w.within(space, func() error {
		u, err := net.ListenPacket("udp4", at)
		if err != nil {
			return err
		}
		w.Cleanup(func() { u.Close() })
		go func() {
			b := make([]byte, 100)
			for {
				n, from, err := u.ReadFrom(b)
				if err != nil {
					return
				}
				heard <- from.(*net.UDPAddr).IP.String() + " " + string(b[:n])
			}
		}()
		return nil
	})
	return heard
}

// sends sends over UDP from a namespace; raw: data holds the IP header.
func (w *world) sends(space, to string, raw bool, data []byte) {
	w.Helper()
	w.within(space, func() error {
		if !raw {
			c, err := net.Dial("udp4", to)
			if err == nil {
				_, err = c.Write(data)
				c.Close()
			}
			return err
		}
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		return syscall.Sendto(fd, data, 0, &syscall.SockaddrInet4{Addr: netip.MustParseAddrPort(to).Addr().As4()})
	})
}

// until gives what is heard up to a word that is sent openly, and comes last.
func (w *world) until(heard <-chan string, word string) (before []string) {
	w.Helper()
	for {
		select {
		case said := <-heard:
			if strings.HasSuffix(said, " "+word) {
				return before
			}
			before = append(before, said)
		case <-time.After(5 * time.Second):
			w.Fatalf("%q is not heard, only %q", word, before)
		}
	}
}

// A replica that speaks VXLAN to a node could send as whoever it likes, and past all
// rules. Nodes among each other can.
func TestReplicasDoNotSpeakVXLAN(t *testing.T) {
	w := newWorld(t)
	w.replica("web", 0, "10.64.7.2", http)
	w.replica("other", 0, "10.64.7.5")
	tunnel := `ip link add orch-vxlan type vxlan id 4097 dstport 4789 local %[1]s nolearning
		ip link set orch-vxlan address %[2]s; ip addr add 10.64.%[3]d.1/32 dev orch-vxlan; ip link set orch-vxlan up`
	hardware := func(node string) string {
		mac := network.TunnelMAC(netip.MustParseAddr(node))
		return net.HardwareAddr(mac[:]).String()
	}
	sh(t, tunnel, nodeIP, hardware(nodeIP), 7)
	t.Cleanup(func() { sh(t, "ip link del orch-vxlan") })
	w.in("n2", tunnel, otherIP, hardware(otherIP), 8)
	w.in("n2", "ip addr add 10.64.8.2/32 dev lo")
	w.serving(web())
	for _, c := range []struct{ node, space, to string }{
		{nodeIP, "web0", "10.64.7.2:5000"},
		{otherIP, "n2", "10.64.8.2:5000"},
	} {
		heard := w.hears(c.space, c.to)
		at := netip.MustParseAddr(c.node)
		victim, to := netip.MustParseAddrPort("10.64.9.9:53"), netip.MustParseAddrPort(c.to)
		w.sends("other0", c.node+":4789", false, wrapped(at, packet(victim, to, []byte("forged"))))
		w.sends("other0", c.to, false, []byte("last"))
		if got := w.until(heard, "last"); len(got) > 0 {
			t.Errorf("a replica is heard at %s as %q", c.to, got)
		}
	}
	// That the packet was one, and nodes are let pass.
	heard := w.hears("web0", "10.64.7.2:5001")
	w.sends("n2", nodeIP+":4789", false, wrapped(netip.MustParseAddr(nodeIP), packet(netip.MustParseAddrPort("10.64.8.2:53"), netip.MustParseAddrPort("10.64.7.2:5001"), []byte("from a node"))))
	select {
	case got := <-heard:
		if got != "10.64.8.2 from a node" {
			t.Errorf("heard %q; packet %s", got, hex.EncodeToString(packet(netip.MustParseAddrPort("10.64.8.2:53"), netip.MustParseAddrPort("10.64.7.2:5001"), []byte("from a node"))))
		}
	case <-time.After(5 * time.Second):
		t.Error("a node is not heard through the tunnel")
	}
}

// A host that lets loopback addresses out must not believe those that come in.
func TestNobodyElseComesFromLoopback(t *testing.T) {
	w := newWorld(t)
	heard := w.hears("", nodeIP+":5000")
	w.serving(web())
	to := netip.MustParseAddrPort(nodeIP + ":5000")
	w.sends("out", to.String(), true, packet(netip.MustParseAddrPort("127.0.0.2:53"), to, []byte("forged")))
	w.sends("out", to.String(), true, packet(netip.MustParseAddrPort(outsideIP+":53"), to, []byte("last")))
	if got := w.until(heard, "last"); len(got) > 0 {
		t.Errorf("a neighbour is heard as %q", got)
	}
}
