package ctrd

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Where the shim and what it needs lie in a container. Not in /run or any other place on
// which manifests mount things of the node: what is mounted there would get these, too.
const (
	insideDir   = "/.orch"
	insideShim  = insideDir + "/shim"
	insideEnv   = insideDir + "/env"
	insideCalls = insideDir + "/attach"
	// insideSocket is where a command that reads its input waits for who attaches.
	insideSocket = insideCalls + "/socket"
)

// The shim's subcommands inside of containers: cmd/shim.
const (
	shimEnv    = "env"
	shimHold   = "hold"
	shimAttach = "attach"
)

// withShim puts before a container's command what the shim has to do first.
func (r *Runtime) withShim(s ContainerSpec, args []string) []string {
	if s.Container.Stdin {
		args = slices.Concat([]string{insideShim, shimHold, insideSocket, r.cfg.AttachWithin.String(), "--"}, args)
	}
	if len(s.SecretEnv) > 0 {
		args = withSecrets(args)
	}
	return args
}

func withSecrets(args []string) []string {
	return slices.Concat([]string{insideShim, shimEnv, insideEnv, "--"}, args)
}

// holdsSecrets and holdsCommand read from a container's arguments what withShim did.
func holdsSecrets(args []string) bool {
	return len(args) > 4 && args[0] == insideShim && args[1] == shimEnv
}

func holdsCommand(args []string) bool {
	if holdsSecrets(args) {
		args = args[4:]
	}
	return len(args) > 5 && args[0] == insideShim && args[1] == shimHold
}

// lookInside looks for a command in a container, whose process is made, where the shim
// would look: the runtime, which refuses one that is not there before it starts
// anything, sees only the shim. Its words are the runtime's. What is not certain is no
// error: the shim will say it.
func lookInside(pid uint32, name, cwd string, env []string) error {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(root)
	stat := func(file string) (unix.Stat_t, error) {
		var st unix.Stat_t
		fd, err := unix.Openat2(root, path.Join("/", file), &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
		if err == nil {
			err = unix.Fstat(fd, &st)
			unix.Close(fd)
		}
		return st, err
	}
	absent := func(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }
	runs := func(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Mode&0o111 != 0 }
	in := func(dir, file string) string {
		if path.IsAbs(dir) {
			return path.Join(dir, file)
		}
		return path.Join(cwd, dir, file)
	}
	if strings.Contains(name, "/") {
		file := name
		if !path.IsAbs(file) {
			file = in("", file)
		}
		if strings.HasPrefix(path.Clean(file), "/proc/") { // where each process sees its own
			return nil
		}
		st, err := stat(file)
		if absent(err) {
			return fmt.Errorf("exec: %q: stat %s: %w", name, name, err)
		}
		if err == nil && !runs(st) {
			return fmt.Errorf("exec: %q: %w", name, unix.EACCES)
		}
		return nil
	}
	search := defaultPath
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			search = value
		}
	}
	for dir := range strings.SplitSeq(search, ":") {
		st, err := stat(in(dir, name))
		if err == nil && runs(st) || err != nil && !absent(err) {
			return nil
		}
	}
	return fmt.Errorf("exec: %q: executable file not found in $PATH", name)
}
