package api

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// What Linux knows by name. The grammars return "" for good text, as those of
// names.go do.

// signals of signal(7) by number, on the machines that orch runs on (amd64, arm64).
var signals = []string{1: "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1",
	"SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN",
	"SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS"}

// realtime signals, by which systemd and others are stopped: 34 to 64.
var realtime = regexp.MustCompile(`^SIGRT(MIN(\+([1-9]|1[0-5]))?|MAX(-([1-9]|1[0-4]))?)$`)

// capabilities of capabilities(7).
var capabilities = []string{"AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN",
	"DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN",
	"MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP",
	"SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM"}

// ulimits of getrlimit(2), as ulimit(1) and limits.conf(5) name them. "as" is none of
// them: the runtime itself does not start within it.
var ulimits = []string{"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
	"rttime", "sigpending", "stack"}

// neverZero are those limits within which no program runs when they are 0.
var neverZero = []string{"cpu", "data", "fsize", "nofile", "nproc", "rss", "stack"}

// sysctls are those that belong to a replica's own namespaces; a name ending in "."
// stands for all below it. Any other would change the node.
var sysctls = []string{"fs.mqueue.", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shm_rmid_forced",
	"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "net."}

var (
	sysctlName  = regexp.MustCompile(`^[a-z][-a-z0-9_]*(\.[-A-Za-z0-9_]+)+$`)
	accountName = regexp.MustCompile(`^[A-Za-z_][-A-Za-z0-9_.]{0,31}\$?$`)
	digits      = regexp.MustCompile(`^[0-9]+$`)
)

// maxAccount is the last user or group number; the one above it means none to the kernel.
const maxAccount = 1<<32 - 2

func signalProblem(s string) string {
	switch {
	case s == "SIGSTOP":
		return "is SIGSTOP, which freezes a process and does not end it: want a signal that ends it, such as SIGTERM"
	case slices.Contains(signals, s) && s != "", realtime.MatchString(s):
		return ""
	}
	if n, ok := decimal(s); ok && n > 0 && n < uint64(len(signals)) {
		return fmt.Sprintf("is the number %d: write %s", n, signals[n])
	}
	right := strings.ToUpper(s)
	if !strings.HasPrefix(right, "SIG") {
		right = "SIG" + right
	}
	if slices.Contains(signals, right) || realtime.MatchString(right) {
		return fmt.Sprintf("%q is not a signal: write %s", clip(s), right)
	}
	return fmt.Sprintf("%q is not a signal: want a name such as SIGTERM, SIGINT or SIGQUIT", clip(s))
}

// capabilityProblem takes a name with or without "CAP_".
func capabilityProblem(s string) string {
	name := strings.TrimPrefix(s, "CAP_")
	switch {
	case s == "ALL", slices.Contains(capabilities, name):
		return ""
	case s == "CAP_ALL", s == "all":
		return fmt.Sprintf("%q is not a capability: write ALL", s)
	}
	if right := strings.TrimPrefix(strings.ToUpper(s), "CAP_"); slices.Contains(capabilities, right) {
		return fmt.Sprintf("%q is not a capability: write %s", clip(s), right)
	}
	return fmt.Sprintf("%q is not a capability: want a name of capabilities(7), such as NET_BIND_SERVICE, or ALL", clip(s))
}

// accountProblem checks a user's or group's name or number; what is "user" or "group".
func accountProblem(what, s string) string {
	if digits.MatchString(s) {
		if n, ok := decimal(s); !ok || n > maxAccount {
			return fmt.Sprintf("%q is not a %s's number: want 0 to %d, without zeros in front", clip(s), what, uint64(maxAccount))
		}
		return ""
	}
	if accountName.MatchString(s) {
		return ""
	}
	if user, group, both := strings.Cut(s, ":"); both && what == "user" && accountProblem("user", user) == "" && accountProblem("group", group) == "" {
		return fmt.Sprintf("%q is a user and a group: write user: %q and group: %q", clip(s), user, group)
	}
	return fmt.Sprintf("%q is not a %s: want a number such as 1000, or a name of up to 32 letters, digits, \"_\", \"-\" and \".\", not starting with a digit", clip(s), what)
}

func sysctlProblem(name string, hostNetwork bool) string {
	if !sysctlName.MatchString(name) {
		return fmt.Sprintf("%q is not a sysctl: want a name such as net.core.somaxconn", clip(name))
	}
	for _, own := range sysctls {
		if name != own && !(strings.HasSuffix(own, ".") && strings.HasPrefix(name, own)) {
			continue
		}
		if hostNetwork && own == "net." {
			return "would change the node, whose network a hostNetwork replica uses: remove this line, or hostNetwork"
		}
		return ""
	}
	own := strings.ReplaceAll(strings.Join(sysctls, ", ")+",", ".,", ".*,")
	return fmt.Sprintf("%q is no sysctl of a replica's own, and would change the node: want one of %s", clip(name), strings.TrimSuffix(own, ","))
}
