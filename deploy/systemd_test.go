package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"
)

// settings of a unit, by section and name; those given twice are joined.
func settings(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	options, err := unit.DeserializeOptions(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, o := range options {
		key := o.Section + "." + o.Name
		out[key] = strings.TrimSpace(out[key] + " " + o.Value)
	}
	return out
}

func TestUnits(t *testing.T) {
	for file, want := range map[string]map[string]string{
		"orch-agent.service": {
			"Service.ExecStart": "/usr/lib/orch/agent", "Service.Type": "notify", "Service.Restart": "always",
			"Service.KillMode": "process", // else systemd ends what the agent has started with it
			"Service.TasksMax": "infinity", "Service.OOMScoreAdjust": "-999", "Service.CPUWeight": "10000",
			"Unit.Wants": "network-online.target containerd.service", "Unit.Requires": "", "Unit.BindsTo": "", "Unit.PartOf": "",
			"Unit.StartLimitIntervalSec": "0", "Install.WantedBy": "multi-user.target",
		},
		"orch-controller.service": {
			"Service.ExecStart": "/usr/lib/orch/controller", "Service.Type": "notify", "Service.Restart": "always",
			"Service.OOMScoreAdjust": "-999", "Service.CPUWeight": "10000", "Unit.Wants": "network-online.target",
			"Unit.StartLimitIntervalSec": "0", "Install.WantedBy": "multi-user.target",
		},
	} {
		have := settings(t, filepath.Join("systemd", file))
		for key, value := range want {
			if have[key] != value {
				t.Errorf("%s: %s=%s, want %s", file, key, have[key], value)
			}
		}
	}
}

// mountNamespace are settings that give a service mounts of its own, as
// systemd.exec(5) says: what the agent mounts would be hidden from containerd.
var mountNamespace = []string{"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateUsers",
	"ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectProc", "ProcSubset",
	"ReadOnlyPaths", "ReadWritePaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths", "TemporaryFileSystem", "BindPaths", "BindReadOnlyPaths",
	"RootDirectory", "RootImage", "MountAPIVFS", "MountFlags", "DynamicUser", "LogNamespace",
	// And what it could not do its work under.
	"PrivateNetwork", "PrivateIPC", "RestrictNamespaces", "IPAddressDeny", "User", "Group", "ProtectHostname", "DevicePolicy"}

func TestAgentSeesTheMachine(t *testing.T) {
	have := settings(t, "systemd/orch-agent.service")
	for _, name := range mountNamespace {
		if v, ok := have["Service."+name]; ok {
			t.Errorf("%s=%s would keep the agent from its work", name, v)
		}
	}
	// What it does without, and what it needs: a name in the list is taken away.
	gone := strings.Fields(strings.TrimPrefix(have["Service.CapabilityBoundingSet"], "~"))
	for _, needed := range []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_CHROOT",
		"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_CHOWN", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_MKNOD"} {
		if slices.Contains(gone, needed) {
			t.Errorf("the agent needs %s", needed)
		}
	}
	for _, family := range []string{"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET"} { // the last for CNI's announcements
		if !slices.Contains(strings.Fields(have["Service.RestrictAddressFamilies"]), family) {
			t.Errorf("the agent needs %s", family)
		}
	}
}

// exposureMax is what systemd-analyze may find of a unit, ten times its figure: 100 is
// a service without any hardening. The agent can have little.
var exposureMax = map[string]string{"orch-agent.service": "75", "orch-controller.service": "30"}

// TestSystemdTakesTheUnits asks systemd itself.
func TestSystemdTakesTheUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatalf("%v: make deps installs it", err)
	}
	dir := t.TempDir()
	for file, exposure := range exposureMax {
		text, err := os.ReadFile(filepath.Join("systemd", file))
		if err != nil {
			t.Fatal(err)
		}
		// The programs need not be installed here.
		path := filepath.Join(dir, file)
		for _, program := range []string{"agent", "controller"} {
			text = []byte(strings.ReplaceAll(string(text), "ExecStart=/usr/lib/orch/"+program+"\n", "ExecStart=/bin/true\n"))
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
		if out, err := exec.Command(analyze, "security", "--offline=true", "--no-pager", "--threshold="+exposure, path).CombinedOutput(); err != nil {
			t.Errorf("%s is more exposed than %s: %v\n%s", file, exposure, err, out)
		}
	}
}
