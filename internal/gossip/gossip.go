package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// secretKeyLen is the size of the key in bytes: AES-256.
	secretKeyLen = 32
	// leaveTimeout is how long a member that stops waits until its farewell is
	// out: a few gossip rounds. Without it the others find out by probing.
	leaveTimeout = 250 * time.Millisecond
	// reclaimAfter is how long after its death a name may come back with another
	// address: a host that was booted again may have got one.
	reclaimAfter = 5 * time.Second
	// metaMax is what memberlist carries per member (bytes).
	metaMax = memberlist.MetaMaxSize
)

// Config says who this member is.
type Config struct {
	// Name is the node's name, unique in the fleet. Required.
	Name string
	// BindAddr is the address to listen on, and the one that the others are told
	// unless it is unspecified. Empty: all addresses.
	BindAddr string
	// Port is for UDP and TCP alike. Zero: the kernel chooses (see Addr).
	Port int
	// SecretKey encrypts all traffic: 32 bytes. Required. SetKeys changes it.
	SecretKey []byte
	// Meta is told to all members with the name, at most 512 bytes.
	Meta []byte
	// Quick probes and spreads several times as often: a power cut is then known
	// to ten members after 1.0 s (median), not 5.7 s. It is for fleets so large
	// that their beats are stretched; in others beats are quicker than either,
	// and gossip would cost an idle agent more than all else.
	Quick bool
	// Transport replaces the network, for tests. Nil: UDP and TCP.
	Transport memberlist.Transport
	// Logger gets memberlist's own lines, at debug. Required.
	Logger *slog.Logger
}

// Hint is gossip's opinion of another node.
type Hint struct {
	Node  string
	Alive bool
}

// Member is one that gossip holds to be alive.
type Member struct {
	Name string
	Addr netip.AddrPort
	Meta []byte
}

// Gossip is one member. Its methods may be called by any goroutine.
type Gossip struct {
	cfg     Config
	latest  *latest
	hints   chan Hint
	ring    *memberlist.Keyring
	started chan struct{} // closed when list is set
	list    *memberlist.Memberlist
}

// New checks the configuration. Nothing listens before Run.
func New(cfg Config) (*Gossip, error) {
	switch {
	case cfg.Name == "":
		return nil, errors.New("gossip: no name")
	case cfg.Logger == nil:
		return nil, errors.New("gossip: no logger")
	case len(cfg.SecretKey) != secretKeyLen:
		return nil, fmt.Errorf("gossip: secret key of %d bytes, want %d", len(cfg.SecretKey), secretKeyLen)
	case len(cfg.Meta) > metaMax:
		return nil, fmt.Errorf("gossip: meta of %d bytes, at most %d", len(cfg.Meta), metaMax)
	}
	ring, err := memberlist.NewKeyring(nil, cfg.SecretKey)
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	return &Gossip{cfg: cfg, latest: newLatest(), hints: make(chan Hint), ring: ring, started: make(chan struct{})}, nil
}

// SetKeys makes these the keys that are understood, the first one that to encrypt with;
// 32 bytes each, at least one. Members whose keys have none in common do not hear each
// other until they have.
func (g *Gossip) SetKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("gossip: no key")
	}
	for _, k := range keys {
		if len(k) != secretKeyLen {
			return fmt.Errorf("gossip: secret key of %d bytes, want %d", len(k), secretKeyLen)
		}
		if err := g.ring.AddKey(k); err != nil {
			return fmt.Errorf("gossip: add key: %w", err)
		}
	}
	if err := g.ring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("gossip: use key: %w", err)
	}
	for _, old := range slices.Clone(g.ring.GetKeys()) { // RemoveKey moves what GetKeys gave
		if slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, old) }) {
			continue
		}
		if err := g.ring.RemoveKey(old); err != nil {
			return fmt.Errorf("gossip: drop key: %w", err)
		}
	}
	return nil
}

// Run listens and gossips until ctx ends, then says farewell. It is to be called
// once; an error means that it could not listen. memberlist's last goroutines end
// by themselves shortly after it returned.
func (g *Gossip) Run(ctx context.Context) error {
	list, err := memberlist.Create(g.memberlistConfig())
	if err != nil {
		return fmt.Errorf("listen for gossip on %s port %d: %w", g.cfg.BindAddr, g.cfg.Port, err)
	}
	g.list = list
	close(g.started)
	g.latest.pump(ctx, g.hints)

	if err := list.Leave(leaveTimeout); err != nil {
		g.cfg.Logger.Debug("gossip farewell", "err", err)
	}
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("shut down gossip: %w", err)
	}
	return nil
}

// Join meets the fleet through any of these members ("host:port") and returns how
// many answered. It waits for Run to listen. The error is nil where at least one
// answered.
func (g *Gossip) Join(ctx context.Context, addrs []string) (int, error) {
	select {
	case <-g.started:
	case <-ctx.Done():
		return 0, fmt.Errorf("join gossip: not running: %w", ctx.Err())
	}
	n, err := g.list.Join(addrs)
	if n == 0 && err != nil {
		return 0, fmt.Errorf("join gossip through %s: %w", strings.Join(addrs, ", "), err)
	}
	return n, nil
}

// Hints gives the latest opinion of each other node whenever it changes. It is
// never closed.
func (g *Gossip) Hints() <-chan Hint { return g.hints }

// Members gives everybody who is held to be alive, this member included, by name.
// It is empty before Run listens.
func (g *Gossip) Members() []Member {
	if !g.running() {
		return nil
	}
	var members []Member
	for _, n := range g.list.Members() {
		members = append(members, memberOf(n))
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return members
}

// Addr is where the others reach this member; not valid before Run listens.
func (g *Gossip) Addr() netip.AddrPort {
	if !g.running() {
		return netip.AddrPort{}
	}
	return memberOf(g.list.LocalNode()).Addr
}

func (g *Gossip) running() bool {
	select {
	case <-g.started:
		return true
	default:
		return false
	}
}

func memberOf(n *memberlist.Node) Member {
	addr, _ := netip.AddrFromSlice(n.Addr)
	return Member{Name: n.Name, Addr: netip.AddrPortFrom(addr.Unmap(), n.Port), Meta: slices.Clone(n.Meta)}
}

// memberlistConfig tunes memberlist. Busy loops on every core for 20 s raise no
// false alarm with either setting.
func (g *Gossip) memberlistConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.cfg.Name
	c.BindAddr, c.BindPort, c.AdvertisePort = g.cfg.BindAddr, g.cfg.Port, g.cfg.Port
	if c.BindAddr == "" {
		c.BindAddr = "0.0.0.0"
	}
	if g.cfg.Quick {
		c.ProbeInterval, c.ProbeTimeout, c.GossipInterval = 200*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond
	}
	c.SuspicionMult = 3
	// Our packets hold a few dozen bytes; packing one costs a table of 80 KiB,
	// which was a quarter of what an idle agent used.
	c.EnableCompression = false
	c.DeadNodeReclaimTime = reclaimAfter
	c.Keyring = g.ring
	c.Transport = g.cfg.Transport
	c.Delegate = metaDelegate(g.cfg.Meta)
	c.Events = events{self: g.cfg.Name, latest: g.latest}
	c.Logger = slog.NewLogLogger(g.cfg.Logger.Handler(), slog.LevelDebug)
	c.LogOutput = nil
	return c
}

// metaDelegate gives memberlist the member's meta and wants no messages.
type metaDelegate []byte

func (m metaDelegate) NodeMeta(int) []byte             { return m }
func (metaDelegate) NotifyMsg([]byte)                  {}
func (metaDelegate) GetBroadcasts(int, int) [][]byte   { return nil }
func (metaDelegate) LocalState(bool) []byte            { return nil }
func (metaDelegate) MergeRemoteState(_ []byte, _ bool) {}
