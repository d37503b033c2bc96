package ctrd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/registry"
)

// Config says where containerd is and where things lie. Address, ShimPath and
// LogDir are required.
type Config struct {
	// Address is containerd's socket; Namespace defaults to "orch".
	Address   string
	Namespace string
	// ShimPath is the absolute path of the shim program: it takes containers' output, and
	// is mounted into those that have secret variables or wait for an attach.
	ShimPath string
	// LogDir gets the containers' output; see the logs package for its layout.
	LogDir string
	// StateDir holds the small files mounted into containers, and leases; it may
	// vanish at a reboot. It should be in memory, for a disk that hangs would hold
	// up renewals. It defaults to /run/orch/containers.
	StateDir string
	// MemoryDir holds the values of Configs and Secrets that containers have, in a file
	// system in memory that Dial mounts there and that is never swapped out. It defaults to
	// /run/orch/memory.
	MemoryDir string
	// AttachWithin is how long a container whose command reads its input waits for
	// somebody to attach; then it ends with code 125. It defaults to 5 minutes.
	AttachWithin time.Duration
	// CgroupParent is the cgroup under which each container gets its own; it
	// defaults to "/orch".
	CgroupParent string
	// Snapshotter defaults to "overlayfs".
	Snapshotter string
	// Incarnation is the cluster's; it is only used where a ContainerSpec has none.
	Incarnation string
	// Registries are how registries are spoken to; nil trusts the system's authorities, and
	// knows no login.
	Registries *registry.Client
	// MaxPulls is how many images are fetched at once; 0 means 3.
	MaxPulls int
	// AllowBind are the folders of the node of which containers may be given
	// something (api.Mount.Bind), absolute; none: bind mounts are refused.
	AllowBind []string
	// Counts is told how long things took; nil: nobody wants to know.
	Counts Counts
	// Node is this node's name, for words.
	Node string
	// Logger gets what no caller can be told; nil discards.
	Logger *slog.Logger
}

// Counts is told what is worth counting. It waits for nothing.
type Counts interface {
	// Phase of a container's start that worked: "create" or "start".
	Phase(phase string, took time.Duration)
	// Pulled is told of each pull: "ok", or why not: "missing", "denied", "unreachable",
	// "error". bytes is the image's size, where it worked.
	Pulled(outcome string, bytes int64, took time.Duration)
}

// uncounted is where nobody wants to know.
type uncounted struct{}

func (uncounted) Phase(string, time.Duration)         {}
func (uncounted) Pulled(string, int64, time.Duration) {}

// ContainerSpec is one run of one container of a replica.
type ContainerSpec struct {
	Replica  api.ReplicaKey
	Revision int64
	// Incarnation of the cluster that wants it.
	Incarnation string
	// Attempt counts the restarts in place before this run, from 0.
	Attempt   int
	Container api.Container
	// ImageID pins the image to what EnsureImage gave; empty means whatever
	// Container.Image names on this node.
	ImageID string
	// NetNS is the path of the network namespace to join; empty gives the
	// container an empty one of its own, or with HostNetwork the node's.
	NetNS       string
	HostNetwork bool
	// IP is the replica's; it goes into the label and /etc/hosts.
	IP string
	// Hostname defaults to the replica's name.
	Hostname string
	// Hosts and ResolvConf are files on the node that the container gets, to read
	// and to write, as its own. Empty Hosts means localhost and the replica's own
	// name; empty ResolvConf a copy of the node's.
	Hosts      string
	ResolvConf string
	// Sysctls are set in the container's own namespaces, and for net.* in NetNS.
	Sysctls map[string]string
	// Env is set on top of the image's environment and below Container.Env, of
	// which only name and value are read.
	Env []api.EnvVar
	// SecretEnv is set on top of all others, and never in containerd's database: the shim
	// puts it there from memory when the container starts, and for each command that Exec
	// runs in it. No value holds a NUL. A container that has some writes no core files,
	// unless its ulimits say otherwise: they would hold them.
	SecretEnv []api.EnvVar
	// Files are laid into the container from memory, for Container.Mounts of Configs and
	// Secrets, which are passed over.
	Files []FileMount
	// Volumes are the folders on this node of the volumes in Container.Mounts, by name. One
	// that is not there is made, and belongs to the container's user from then on.
	Volumes map[string]string
	// Grace is kept for whoever stops the container without knowing the service.
	Grace time.Duration
	// SpecHash lets the caller see whether a container is the one it means.
	SpecHash string
	// Lease is the end of a container that runs only under one; nil for none.
	Lease *Lease
}

// FileMount is a folder of files, or one file, that lies in the node's memory.
type FileMount struct {
	// Path in the container.
	Path string
	// Single: Path is the one file in Files, whatever its name there.
	Single bool
	// Files are contents by name.
	Files map[string][]byte
	// Mode of each; they belong to the container's user, who cannot write to them.
	Mode fs.FileMode
}

// maxID is the longest id that containerd takes.
const maxID = 76

// ID is the container's id in containerd: that of the replica's container, and
// from the first restart on "_1", "_2" and so on. It is what Start uses.
func (s ContainerSpec) ID() string {
	base := s.Replica.ContainerName(s.Container.Name)
	if s.Attempt == 0 {
		return base
	}
	// No other id ends so: names in orch hold no underscore.
	suffix := "_" + strconv.Itoa(s.Attempt)
	if len(base)+len(suffix) > maxID {
		sum := sha256.Sum256([]byte(base))
		hash := "." + hex.EncodeToString(sum[:8])
		base = strings.TrimRight(base[:maxID-len(hash)-len(suffix)], "-._") + hash
	}
	return base + suffix
}

// Observed is a container of ours as containerd has it.
type Observed struct {
	ID          string
	Replica     api.ReplicaKey
	Container   string
	Revision    int64
	Incarnation string
	Attempt     int
	SpecHash    string
	// Image is the reference it was made from, ImageID that image's digest.
	Image   string
	ImageID string
	NetNS   string
	IP      string
	Grace   time.Duration
	// Leased is set if it runs only under a lease (SetLease).
	Leased bool
	// Healthcheck is its image's; nil: it has none.
	Healthcheck *Healthcheck

	// Running is set while its first process lives.
	Running bool
	// Uncertain is set when containerd did not tell; Running is then true, for
	// a container must not be taken for ended without evidence.
	Uncertain bool
	Pid       uint32
	// StartedAt is zero if it never started.
	StartedAt time.Time
	// Exit is how the run ended; nil while it runs, and nil together with
	// Running == false for a leftover that never started.
	Exit *api.Exit
}

// Event is Exited, OOM or Reconnected.
type Event interface{ event() }

// Exited tells that a container's first process ended. Evidence is taken
// before it is told, so Exit is final.
type Exited struct {
	ID   string
	Exit api.Exit
}

// OOM tells that the kernel killed a process in the container for want of
// memory; the container may go on.
type OOM struct{ ID string }

// Reconnected tells that events arrive from now on. It is the first event, and
// comes again after every break: what happened before must be listed.
type Reconnected struct{}

func (Exited) event()      {}
func (OOM) event()         {}
func (Reconnected) event() {}

// ImageInfo is an image on this node.
type ImageInfo struct {
	// ID is the digest of what the reference names (an index or a manifest).
	ID string
	// Ref is the full reference: with registry, path and tag or digest.
	Ref string
	// Size is in bytes, as stored; 0 where it was not asked for.
	Size      int64
	CreatedAt time.Time
}

// Size is a terminal's, in characters.
type Size struct{ Width, Height uint16 }

// ExecSpec is a command to run in a container that runs.
type ExecSpec struct {
	Args []string
	// Attach starts the container's own command, which waits for that (Container.Stdin), with
	// these streams, and gives its exit code; Args, Env and WorkDir are unused then. What
	// the command writes goes here and not into the container's log. When the caller goes,
	// the command gets a SIGHUP and, without a terminal, its input ends. A container takes
	// one such: of another, the code is 125, and Stderr says why.
	Attach bool
	// TTY gives it a terminal; Stderr is unused then.
	TTY bool
	// Nil readers and writers are an empty input and a discarded output.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize tells the terminal's size; nil for none.
	Resize <-chan Size
	// Env is set on top of the container's.
	Env []api.EnvVar
	// WorkDir defaults to the container's.
	WorkDir string
}

// Errors for decisions.
var (
	// ErrImageMissing: the image is not on this node, and nowhere to be had: its registry
	// does not have it, does not give it, or is not known.
	ErrImageMissing = errors.New("image missing")
	// ErrRegistryUnreachable: the image is not on this node, and its registry cannot be asked
	// now.
	ErrRegistryUnreachable = errors.New("registry unreachable")
	// ErrImageError: the image is there but cannot be fetched or unpacked.
	ErrImageError = errors.New("image error")
	// ErrNotFound: there is no such container.
	ErrNotFound = errors.New("no such container")
	// ErrNotRunning: the container does not run.
	ErrNotRunning = errors.New("container is not running")
	// ErrNoAttach: the container's command does not wait for an attach.
	ErrNoAttach = errors.New("takes no attach: its container does not say stdin")
	// ErrAway: containerd does not answer, which says nothing of the container.
	ErrAway = errors.New("containerd does not answer")
	// ErrLeaseOver: the lease is over before the container was started; nothing
	// of it is left.
	ErrLeaseOver = errors.New("lease is over")
	// ErrBindRefused: a bind mount is not allowed, or not possible, on this node.
	ErrBindRefused = errors.New("bind mount refused")
	// ErrNoSpace: the disk on which images lie is full.
	ErrNoSpace = errors.New("no space left")
	// ErrImageInUse: something needs the image.
	ErrImageInUse = errors.New("image is in use")
	// ErrVolume: a volume cannot be made, or mounted.
	ErrVolume = errors.New("volume error")
	// ErrUnguarded: the container needs a watchdog and has none that lives.
	ErrUnguarded = errors.New("no watchdog is alive")
)

// StartError says that the container itself could not be started, as its image
// or command does not allow it; nothing of it is left.
type StartError struct {
	ID   string
	Exit api.Exit // Reason is StartFailed, Message the runtime's own words
	err  error
}

func (e *StartError) Error() string { return "start " + e.ID + ": " + e.Exit.Message }
func (e *StartError) Unwrap() error { return e.err }

// BindError says why something of the node was not mounted: its words are all that
// there is to say. It is an ErrBindRefused; nothing of the container is left.
type BindError struct{ words string }

func (e *BindError) Error() string        { return e.words }
func (e *BindError) Is(target error) bool { return target == ErrBindRefused }
