package ctrd

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
)

// What every container gets.
const (
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// defaultPids holds off fork bombs where the user set no limit.
	defaultPids   = 1024
	cpuPeriod     = 100_000 // µs, the kernel's default
	minQuota      = 1_000   // µs, the least that the kernel takes
	minShares     = 2       // the least that the kernel takes
	sharesPerCore = 1024
	// Open files: enough for servers without surprising old programs that
	// walk over all descriptors; a process may raise it itself.
	openFilesSoft = 65_536
	openFilesHard = 1_048_576
	// groupAnnotation makes all containers of one replica share one shim.
	groupAnnotation = "io.containerd.runc.v2.group"
)

// specOpts turns a ContainerSpec into an OCI spec.
func (r *Runtime) specOpts(id string, s ContainerSpec, m imageMeta, cgroup string, mounts []specs.Mount) ([]oci.SpecOpts, error) {
	args := argsOf(s.Container, m)
	if len(args) == 0 {
		return nil, fmt.Errorf("neither the service nor image %s says what to run", s.Container.Image)
	}
	opts := []oci.SpecOpts{
		oci.WithDefaultUnixDevices,
		oci.WithoutRunMount, // images keep things in /run that a fresh one would hide
		oci.WithProcessArgs(r.withShim(s, args)...),
		oci.WithProcessCwd(cwdOf(s.Container, m)),
		oci.WithEnv(envOf(s, m)),
		oci.WithHostname(hostnameOf(s)),
		oci.WithCgroup(cgroup),
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.CgroupNamespace}),
		oci.WithMounts([]specs.Mount{{ // read-only, so that programs can see their limits
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"ro", "nosuid", "noexec", "nodev"},
		}}),
		oci.WithMounts(mounts),
		oci.WithRlimit(openFiles()),
		oci.WithAnnotations(map[string]string{groupAnnotation: s.Replica.ContainerName("")}),
		withResources(s.Container.Resources),
		withSysctls(s.Sysctls),
	}
	opts = append(opts, noCores(s)...)
	opts = append(opts, ulimits(s.Container.Ulimits)...)
	switch {
	case s.HostNetwork:
		opts = append(opts, oci.WithHostNamespace(specs.NetworkNamespace))
	case s.NetNS != "":
		opts = append(opts, oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: s.NetNS}))
	}
	security, err := securityOpts(s.Container, m)
	if err != nil {
		return nil, err
	}
	opts = append(opts, security...)
	return append(opts, makeVolumes(s), r.layMemory(id, s)), nil // its user is known now
}

func cwdOf(c api.Container, m imageMeta) string {
	return orDefault(orDefault(c.WorkingDir, m.config.WorkingDir), "/")
}

// argsOf follows Kubernetes: a command replaces entrypoint and the image's
// arguments, args alone replace the image's arguments.
func argsOf(c api.Container, m imageMeta) []string {
	switch {
	case len(c.Command) > 0:
		return slices.Concat(c.Command, c.Args)
	case len(c.Args) > 0:
		return slices.Concat(m.config.Entrypoint, c.Args)
	}
	return slices.Concat(m.config.Entrypoint, m.config.Cmd)
}

// envOf lays the environments over each other; WithEnv lets later ones win.
func envOf(s ContainerSpec, m imageMeta) []string {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + hostnameOf(s)}
	env = append(env, m.config.Env...)
	for _, list := range [][]api.EnvVar{s.Env, s.Container.Env} {
		for _, e := range list {
			env = append(env, e.Name+"="+e.Value)
		}
	}
	last := map[string]int{}
	for i, e := range env {
		name, _, _ := strings.Cut(e, "=")
		last[name] = i
	}
	var out []string
	for i, e := range env {
		if name, _, _ := strings.Cut(e, "="); last[name] == i {
			out = append(out, e)
		}
	}
	return out
}

func hostnameOf(s ContainerSpec) string {
	if s.Hostname != "" {
		return s.Hostname
	}
	return s.Replica.Name()
}

// withResources sets requests and limits for the kernel. The fields are
// cgroup v1's; runc translates them for v2.
func withResources(res api.Resources) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		l := s.Linux.Resources
		pids := int64(defaultPids)
		if q, ok := res.Limits[api.Pids]; ok {
			pids = q.Value()
		}
		l.Pids = &specs.LinuxPids{Limit: &pids}
		l.CPU = &specs.LinuxCPU{}
		request, ok := res.Requests[api.CPU]
		if !ok {
			request = res.Limits[api.CPU]
		}
		shares := max(uint64(request.Milli())*sharesPerCore/1000, minShares)
		l.CPU.Shares = &shares
		if q, ok := res.Limits[api.CPU]; ok {
			quota, period := max(q.Milli()*cpuPeriod/1000, minQuota), uint64(cpuPeriod)
			l.CPU.Quota, l.CPU.Period = &quota, &period
		}
		if q, ok := res.Limits[api.Memory]; ok {
			limit := q.Value()
			l.Memory = &specs.LinuxMemory{Limit: &limit}
			if swapLimited() {
				l.Memory.Swap = &limit // memory and swap together: no swap
			}
		}
		return nil
	}
}

// openFiles is the limit of open files, as far as this process may raise it:
// the runtime has the same rights, and asking for more would fail the start.
func openFiles() *specs.POSIXRlimit {
	l := &specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: openFilesSoft, Hard: openFilesHard}
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err == nil {
		l.Hard = min(l.Hard, own.Max)
		l.Soft = min(l.Soft, l.Hard)
	}
	return l
}

func (r *Runtime) cgroupOf(id string) string { return path.Join(r.cfg.CgroupParent, id) }
