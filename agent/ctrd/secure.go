package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/orchctl/orch/api"
)

// defaultCapabilities are those that root needs inside ordinary images: to change
// owners and users, and to bind low ports. No raw sockets, no device nodes.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_SETFCAP", "CAP_SYS_CHROOT",
}

// allCapabilities is how manifests name all that there are.
const allCapabilities = "ALL"

// securityOpts are what a container may do, and as whom. They come after the mounts,
// of which a privileged container's become writable.
func securityOpts(c api.Container, m imageMeta) ([]oci.SpecOpts, error) {
	var sc api.SecurityContext
	if c.SecurityContext != nil {
		sc = *c.SecurityContext
	}
	// Not more than we have ourselves: runc could not give it.
	all, err := cap.Current()
	if err != nil {
		return nil, fmt.Errorf("read the agent's own capabilities: %w", err)
	}
	caps := capabilitiesOf(sc, all)
	opts := []oci.SpecOpts{withUser(sc, m), oci.WithCapabilities(caps), withAmbient(added(sc.Capabilities, all))}
	if sc.ReadOnlyRoot {
		opts = append(opts, oci.WithRootFSReadonly())
	}
	if sc.AllowPrivilegeEscalation || sc.Privileged {
		opts = append(opts, oci.WithNewPrivileges)
	} else {
		opts = append(opts, oci.WithNoNewPrivileges)
	}
	switch {
	case sc.Privileged:
		opts = append(opts, oci.WithHostDevices, oci.WithAllDevicesAllowed, oci.WithMaskedPaths(nil), oci.WithReadonlyPaths(nil),
			oci.WithWriteableSysfs, oci.WithWriteableCgroupfs, oci.WithApparmorProfile(""), oci.WithSeccompUnconfined)
	case sc.Seccomp == api.SeccompUnconfined:
		opts = append(opts, oci.WithSeccompUnconfined)
	default: // last, as the profile depends on the capabilities
		opts = append(opts, seccomp.WithDefaultProfile())
	}
	return opts, nil
}

// capabilitiesOf drops from the default set, then adds to it.
func capabilitiesOf(sc api.SecurityContext, all []string) []string {
	set := map[string]bool{}
	base := defaultCapabilities
	if sc.Privileged {
		base = all
	}
	for _, c := range base {
		set[c] = true
	}
	for _, c := range sc.Capabilities.Drop {
		if strings.EqualFold(c, allCapabilities) {
			clear(set)
		}
		delete(set, capability(c))
	}
	for _, c := range added(sc.Capabilities, all) {
		set[c] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// added are the capabilities that the manifest adds.
func added(c api.Capabilities, all []string) []string {
	var out []string
	for _, name := range c.Add {
		if strings.EqualFold(name, allCapabilities) {
			return all
		}
		out = append(out, capability(name))
	}
	return out
}

// capability gives the kernel's name: "net_admin" is CAP_NET_ADMIN.
func capability(name string) string {
	name = strings.ToUpper(name)
	if strings.HasPrefix(name, "CAP_") {
		return name
	}
	return "CAP_" + name
}

// withAmbient lets a process that is not root's have what was added: the kernel
// takes all else from it, and the manifest would have said it for nothing.
func withAmbient(caps []string) oci.SpecOpts {
	return func(ctx context.Context, cl oci.Client, c *containers.Container, s *oci.Spec) error {
		if len(caps) == 0 || s.Process.User.UID == 0 {
			return nil
		}
		return oci.WithAmbientCapabilities(caps)(ctx, cl, c, s)
	}
}

// badUser says that the image has no such user or group.
type badUser struct {
	user string
	err  error
}

func (e *badUser) Error() string { return fmt.Sprintf("user %q: %v", e.user, e.err) }
func (e *badUser) Unwrap() error { return e.err }

// withUser sets the manifest's user and group, else the image's, and the further
// groups which the image's /etc/group gives to that user.
func withUser(sc api.SecurityContext, m imageMeta) oci.SpecOpts {
	user := m.config.User
	if sc.User != "" {
		user = sc.User
		if sc.Group != "" {
			user += ":" + sc.Group
		}
	}
	return func(ctx context.Context, cl oci.Client, c *containers.Container, s *oci.Spec) error {
		if user == "" || user == "0" || user == "root" || user == "0:0" {
			return nil // as every container is
		}
		err := oci.WithUser(user)(ctx, cl, c, s)
		switch {
		case errors.Is(err, oci.ErrNoUsersFound):
			return &badUser{user, errors.New("the image's /etc/passwd has no such user")}
		case errors.Is(err, oci.ErrNoGroupsFound):
			return &badUser{user, errors.New("the image's /etc/group has no such group")}
		case errors.Is(err, fs.ErrNotExist):
			return &badUser{user, fmt.Errorf("the image has no file to look it up in: %w", err)}
		case err != nil && strings.Contains(err.Error(), "invalid USER value"):
			return &badUser{user, err}
		case err != nil:
			return err
		}
		gid := s.Process.User.GID
		name, _, _ := strings.Cut(user, ":")
		if err := oci.WithAdditionalGIDs(name)(ctx, cl, c, s); err != nil {
			return err
		}
		if !slices.Contains(s.Process.User.AdditionalGids, gid) {
			s.Process.User.AdditionalGids = append([]uint32{gid}, s.Process.User.AdditionalGids...)
		}
		return nil
	}
}

// ulimits are the manifest's, by the kernel's names.
func ulimits(limits map[string]api.Ulimit) []oci.SpecOpts {
	var opts []oci.SpecOpts
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		l := limits[name]
		if l.Hard == 0 {
			l.Hard = l.Soft
		}
		most := uint64(math.MaxUint64)
		if strings.EqualFold(name, "nofile") {
			most = mostOpenFiles()
		}
		opts = append(opts, oci.WithRlimit(&specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: orMost(l.Soft, most), Hard: orMost(l.Hard, most)}))
	}
	return opts
}

// orMost: below 0 means none.
func orMost(n int64, most uint64) uint64 {
	if n < 0 {
		return most
	}
	return uint64(n)
}

// mostOpenFiles is what "no limit" of open files comes to: the kernel has one for
// them always, and who may not raise limits has its own.
func mostOpenFiles() uint64 {
	caps, err := cap.Current()
	if err != nil || !slices.Contains(caps, "CAP_SYS_RESOURCE") {
		return openFiles().Hard
	}
	b, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
			return n
		}
	}
	return openFilesHard // the kernel's default
}

// withSysctls sets kernel parameters of the container's own namespaces.
func withSysctls(set map[string]string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		if len(set) > 0 {
			s.Linux.Sysctl = maps.Clone(set)
		}
		return nil
	}
}
