package netfilter

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
)

// A busy node has a hundred thousand connections, most of them at their end. They
// are read here, as the kernel writes them: that takes a fifth of the time that
// netlink's own list does, and clients of the dead wait for it.

// The kernel's states of a TCP connection (enum tcp_conntrack) that matter here.
const (
	synReceived = 2 // and below: it is being made
	lastAck     = 6 // both sides have closed it, and one has not heard so yet
	// timeWait: it is over, and a new one of the same ports is led anew. Not so in all
	// other states. Where the last word never came, because the server had gone, or
	// the server has reset it, a new connection from the same port goes where the old
	// one went, for up to half a minute.
	timeWait = 7
)

// Attributes of a port in a tuple, which nl does not name.
const (
	ctaProtoNum = 1
	ctaProtoSrc = 2
	ctaProtoDst = 3
)

// flows asks the kernel for all connections, and visits those over TCP and UDP that
// are not over.
func flows(visit func(network.Connection)) error {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	return req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(msg []byte) bool {
		if c, ok := read(msg); ok {
			visit(c)
		}
		return true
	})
}

// forget deletes one. One that is not there is no error.
func forget(c network.Connection) error {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	tuple := nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_ORIG, nil)
	ip := tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil)
	from, to := c.Client.Addr().As4(), c.To.Addr().As4()
	ip.AddRtAttr(nl.CTA_IP_V4_SRC, from[:])
	ip.AddRtAttr(nl.CTA_IP_V4_DST, to[:])
	ports := tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil)
	number := byte(unix.IPPROTO_TCP)
	if c.Protocol == api.UDP {
		number = unix.IPPROTO_UDP
	}
	ports.AddRtAttr(ctaProtoNum, []byte{number})
	ports.AddRtAttr(ctaProtoSrc, binary.BigEndian.AppendUint16(nil, c.Client.Port()))
	ports.AddRtAttr(ctaProtoDst, binary.BigEndian.AppendUint16(nil, c.To.Port()))
	req.AddData(tuple)
	if c.ID != 0 { // so that one that took its place meanwhile stays
		req.AddData(nl.NewRtAttr(nl.CTA_ID, binary.BigEndian.AppendUint32(nil, c.ID)))
	}
	if _, err := req.Execute(unix.NETLINK_NETFILTER, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// read reads one message; false: it is none that matters.
func read(msg []byte) (c network.Connection, ok bool) {
	if len(msg) < nl.SizeofNfgenmsg {
		return c, false
	}
	var number byte
	var state byte
	attributes(msg[nl.SizeofNfgenmsg:], func(kind uint16, value []byte) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			number, c.Client, c.To = readTuple(value)
		case nl.CTA_TUPLE_REPLY:
			_, c.Server, _ = readTuple(value)
		case nl.CTA_ID:
			if len(value) == 4 {
				c.ID = binary.BigEndian.Uint32(value)
			}
		case nl.CTA_PROTOINFO:
			attributes(value, func(kind uint16, value []byte) {
				if kind == nl.CTA_PROTOINFO_TCP {
					attributes(value, func(kind uint16, value []byte) {
						if kind == nl.CTA_PROTOINFO_TCP_STATE && len(value) == 1 {
							state = value[0]
						}
					})
				}
			})
		}
	})
	switch number {
	case unix.IPPROTO_UDP:
		c.Protocol = api.UDP
		return c, true
	case unix.IPPROTO_TCP:
		c.Protocol, c.Ending = api.TCP, state >= lastAck
		c.Open = state > synReceived && !c.Ending
		return c, state != timeWait
	}
	return c, false
}

// readTuple reads one direction.
func readTuple(b []byte) (number byte, src, dst netip.AddrPort) {
	var from, to netip.Addr
	var ports [2]uint16
	attributes(b, func(kind uint16, value []byte) {
		attributes(value, func(inner uint16, value []byte) {
			switch {
			case kind == nl.CTA_TUPLE_IP && inner == nl.CTA_IP_V4_SRC:
				from, _ = netip.AddrFromSlice(value)
			case kind == nl.CTA_TUPLE_IP && inner == nl.CTA_IP_V4_DST:
				to, _ = netip.AddrFromSlice(value)
			case kind == nl.CTA_TUPLE_PROTO && inner == ctaProtoNum && len(value) == 1:
				number = value[0]
			case kind == nl.CTA_TUPLE_PROTO && (inner == ctaProtoSrc || inner == ctaProtoDst) && len(value) == 2:
				ports[inner-ctaProtoSrc] = binary.BigEndian.Uint16(value)
			}
		})
	})
	return number, netip.AddrPortFrom(from, ports[0]), netip.AddrPortFrom(to, ports[1])
}

// attributes visits those of a message; what is cut off is left out.
func attributes(b []byte, visit func(kind uint16, value []byte)) {
	const head = 4
	for len(b) >= head {
		size := int(binary.NativeEndian.Uint16(b))
		if size < head || size > len(b) {
			return
		}
		visit(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[head:size])
		b = b[min((size+3)&^3, len(b)):]
	}
}
