package preflight

import (
	"net/netip"
	"time"
)

// Facts is what a machine shows. What was not looked for is zero.
type Facts struct {
	Root   bool
	Kernel string // "6.1.0-18-amd64"
	// Features are what the kernel refused to do when asked, with its reason; those
	// that work are there with "". Overlay, veth, vxlan, nft, namespaces.
	Features map[string]string
	Pressure bool // pressure stall information
	Cgroups  Cgroups
	Swap     bool
	// Programs are paths of programs by name, "" for one that is not there.
	Programs map[string]string
	// Plugins are the CNI plugins that are in the folder CNIBin.
	CNIBin  string
	Plugins []string
	Runtime Runtime
	Ports   []Port // as asked for, and what came of it
	Clock   Clock
	Disk    Disk
	Routes  []Route
	Files   uint64 // descriptors that the process may open
	// ForwardDrop: a firewall on the machine drops packets that are forwarded, unless
	// one of its rules lets them pass.
	ForwardDrop bool
	// Reached are controllers, with why they are not, or "".
	Reached map[string]string
}

// Cgroups is how the kernel's trees are mounted.
type Cgroups struct {
	Kind        string   // "v1", "v2", "hybrid"; "" if there are none
	Controllers []string // those that replicas can be limited by
}

// Runtime is what containerd answers.
type Runtime struct {
	Asked   bool
	Version string // "containerd 1.6.20"
	Problem string
}

// Port is one that the daemon will listen at.
type Port struct {
	What    string // "gossip"
	Network string // "tcp" or "udp"
	Address string // host:port
	Flag    string // what chooses another; "" if nothing does
	// Everywhere says that only who listens at all addresses is in the way: the
	// daemon will take one that the machine has not got yet.
	Everywhere bool
	// Problem is why nobody can listen there now; Holder who does, if known.
	Problem string
	Holder  string
}

// Clock is what the kernel says of it.
type Clock struct {
	Asked        bool
	Synchronized bool
}

// Disk is of the folder where the daemon keeps what it must not lose.
type Disk struct {
	Path        string
	Problem     string // of writing there
	Free, Total uint64 // bytes
	// Sync is the median time that a small write takes to be on disk, and Slowest the
	// longest of those tried.
	Sync, Slowest time.Duration
}

// Route is where the machine sends packets to.
type Route struct {
	To     netip.Prefix
	Device string
}
