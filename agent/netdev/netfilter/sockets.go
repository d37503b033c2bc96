package netfilter

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// sockets ends TCP sockets of one network namespace. The library's own way would
// take the next best: where the one that is meant has gone, the kernel finds who
// listens on its port. So it is asked for first, and ended by its cookie.
type sockets struct{ handle *nl.SocketHandle }

func openSockets(ns netns.NsHandle) (sockets, error) {
	s, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_INET_DIAG)
	if err != nil {
		return sockets{}, err
	}
	limit := unix.NsecToTimeval(diagTimeout.Nanoseconds())
	if err := s.SetReceiveTimeout(&limit); err != nil {
		s.Close()
		return sockets{}, err
	}
	return sockets{&nl.SocketHandle{Socket: s}}, nil
}

func (s sockets) Close() { s.handle.Close() }

// What of an inet_diag_msg matters, in bytes, and the state (enum tcp_state) of a
// socket that waits for connections.
const (
	listening     = 10
	stateAt       = 1
	cookieAt      = 4 + 40
	cookieSize    = 8
	diagMsgLength = 72
)

// end ends a client's socket. It is unix.ENOENT if there is none.
func (s sockets) end(client, to netip.AddrPort) error {
	var whichever [cookieSize]byte
	for i := range whichever {
		whichever[i] = 0xff
	}
	got, err := s.ask(nl.SOCK_DIAG_BY_FAMILY, 0, client, to, whichever[:])
	if err != nil {
		return err
	}
	if len(got) != 1 || len(got[0]) < diagMsgLength {
		return fmt.Errorf("the kernel's answer is no socket: %x", got)
	}
	if got[0][stateAt] == listening {
		return unix.ENOENT
	}
	_, err = s.ask(nl.SOCK_DESTROY, unix.NLM_F_ACK, client, to, got[0][cookieAt:cookieAt+cookieSize])
	return err
}

// ask sends an inet_diag_req_v2.
func (s sockets) ask(kind, flags int, client, to netip.AddrPort, cookie []byte) ([][]byte, error) {
	const everyState = 1<<32 - 1
	b := []byte{unix.AF_INET, unix.IPPROTO_TCP, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, everyState)
	b = binary.BigEndian.AppendUint16(b, client.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	for _, a := range []netip.Addr{client.Addr(), to.Addr()} {
		four := a.As4()
		b = append(append(b, four[:]...), make([]byte, 12)...) // room for IPv6
	}
	b = append(append(b, 0, 0, 0, 0), cookie...) // on any interface
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_INET_DIAG: s.handle}
	req.AddRawData(b)
	return req.Execute(unix.NETLINK_INET_DIAG, 0)
}
