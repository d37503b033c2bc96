package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
)

// TestContainers: what a replica's containers are promised, seen from inside. All at
// once, each with a service of its own.
func TestContainers(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"order": order, "init-fails": initFails, "sidecar-crashes": sidecarCrashes, "hook-fails": hookFails,
		"security": security, "privileged": privileged, "limits": limits, "mounts": mounts, "bind-refused": bindRefused,
		"downward": downward, "grpc": grpcAndStartup, "startup-fails": startupFails, "healthcheck": healthcheck,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// folder makes one that agents allow to be mounted and anybody may write to.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(shared, "")
	must(t, err)
	must(t, os.Chmod(dir, 0o777))
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// lines are those of a file.
func lines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// inOrder fails the test unless the lines that begin with words come one after the
// other, each once.
func inOrder(t *testing.T, noted []string, words ...string) {
	t.Helper()
	from := 0
	for _, w := range words {
		at := slices.IndexFunc(noted[from:], func(l string) bool { return strings.HasPrefix(l, w) })
		if at < 0 {
			t.Fatalf("no %q after %q:\n%s", w, noted[:from], strings.Join(noted, "\n"))
		}
		from += at + 1
	}
	if len(noted) != len(words) {
		t.Errorf("more was noted than %q:\n%s", words, strings.Join(noted, "\n"))
	}
}

// inside runs the web program in a container and gives what it printed.
func inside(t *testing.T, replica string, args ...string) string {
	t.Helper()
	return orchctl(t, append([]string{"exec", replica, "--", "/bin/web"}, args...)...)
}

// refusedInside is inside, for what must fail; it gives what was said.
func refusedInside(t *testing.T, replica string, args ...string) string {
	t.Helper()
	out, errs, code := fleet.Orchctl(t.Context(), append([]string{"exec", replica, "--", "/bin/web"}, args...)...)
	if code == 0 {
		t.Errorf("web %v in %s succeeded:\n%s", args, replica, out)
	}
	return out + errs
}

// field gives the words after "NAME:" in a file of the replica's main process.
func field(t *testing.T, replica, file, name string) []string {
	t.Helper()
	text := inside(t, replica, "-cat", "/proc/1/"+file)
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.Fields(strings.TrimPrefix(rest, ":"))
		}
	}
	t.Fatalf("no %s in %s of %s:\n%s", name, file, replica, text)
	return nil
}

// order: init containers one by one, then sidecars, each well before the next, then
// containers; hooks at their time; and back, the sidecar last.
func order(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "notes")
	mount := fmt.Sprintf("mounts: [{path: %s, bind: %s}]", dir, dir)
	note := func(line string) string { return fmt.Sprintf("-note, %s=%s", path, line) }
	yaml := fmt.Sprintf(`apiVersion: orch/v1
kind: Service
metadata: {name: order}
spec:
  initContainers:
    - {name: first, image: "orch.local/web:1.0", args: [%s, -exit, "0", -wait, 300ms], %s}
    - {name: second, image: "orch.local/web:1.0", args: [%s, -exit, "0"], %s}
  sidecars:
    - name: proxy
      image: orch.local/web:1.0
      args: [%s, -note-end, "%s=proxy ends", -port, "9000", -slow-start, 500ms]
      ports: [{name: proxy, port: 9000}]
      startupProbe: {http: {path: /healthz, port: proxy}, interval: 100ms, failureThreshold: 100}
      %s
  containers:
    - name: main
      image: orch.local/web:1.0
      args: [%s, -note-end, "%s=main ends"]
      ports: [{name: http, port: 8080}]
      readinessProbe: {http: {path: /healthz, port: http}}
      stopSignal: SIGQUIT
      lifecycle:
        postStart: {exec: {command: [/bin/web, -note, "%s=postStart", -exit, "0"]}}
        preStop: {exec: {command: [/bin/web, -note, "%s=preStop", -exit, "0"]}}
      %s
`, note("first"), mount, note("second"), mount, note("proxy"), path, mount, note("main"), path, path, path, mount)
	deleteLater(t, "order")
	ctx := t.Context()
	began := time.Now()
	must(t, fleet.ApplyText(ctx, yaml, true))
	if took := time.Since(began); took < 800*time.Millisecond {
		t.Errorf("ready after %s, but one init container and the sidecar take 800 ms in all", took)
	}
	noted := lines(t, path)
	slices.Sort(noted[min(3, len(noted)):]) // main and its hook begin together
	inOrder(t, noted, "first", "second", "proxy", "main", "postStart")
	must(t, fleet.Must(ctx, "delete", "service/order"))
	inOrder(t, lines(t, path)[5:], "preStop", "main ends: quit", "proxy ends: terminated")
}

// initFails: it is told which one failed and how, and nothing else starts.
func initFails(t *testing.T) {
	ctx := t.Context()
	broken := func(code int) string {
		return service("init-fails", 1, fmt.Sprintf(`  rollout: {autoRollback: false}
  initContainers: [{name: migrate, image: "orch.local/web:1.0", args: [-exit, "%d"]}]`, code), httpProbe)
	}
	deleteLater(t, "init-fails")
	must(t, fleet.ApplyText(ctx, broken(4), false))
	must(t, rig.Until(ctx, 10*time.Second, "the init container's failure to be told", func() error {
		out, _, _ := fleet.Orchctl(ctx, "describe", "replica", "init-fails-0")
		for _, w := range []string{"migrate", "code 4"} {
			if !strings.Contains(out, w) {
				return fmt.Errorf("describe does not say %q:\n%s", w, out)
			}
		}
		return nil
	}))
	for id := range containers(t) {
		if strings.Contains(id, "init-fails-0") && strings.HasSuffix(id, "main") {
			t.Errorf("%s runs, though an init container failed", id)
		}
	}
	must(t, fleet.ApplyText(ctx, broken(0), true))
}

// sidecarCrashes: it is started again, and the container beside it is left alone.
func sidecarCrashes(t *testing.T) {
	apply(t, "beside", service("beside", 1, `  sidecars: [{name: proxy, image: "orch.local/web:1.0", args: [-port, "9000"]}]`, httpProbe))
	r := replicas(t, "beside")[0]
	pid := func() uint32 {
		for id, c := range containers(t) {
			if strings.Contains(id, "beside-0") && strings.HasSuffix(id, "main") {
				return c.Pid
			}
		}
		return 0
	}
	before := pid()
	must(t, fleet.KillContainer(t.Context(), r.Spec.Node, fmt.Sprintf("beside-0.%d.proxy", r.Spec.Epoch)))
	must(t, rig.Until(t.Context(), 10*time.Second, "the sidecar to be started again", func() error {
		r := replicas(t, "beside")[0]
		for _, c := range r.Status.Containers {
			if c.Name == "proxy" && c.Restarts == 1 && r.Status.Ready {
				return nil
			}
		}
		return fmt.Errorf("%+v", r.Status.Containers)
	}))
	if now := pid(); now != before || before == 0 {
		t.Errorf("main was process %d and is %d", before, now)
	}
}

// lastExit waits for a container of a replica to have ended for a reason.
func lastExit(t *testing.T, service, reason string) *api.Exit {
	t.Helper()
	var exit *api.Exit
	must(t, rig.Until(t.Context(), 15*time.Second, service+"-0 to end by "+reason, func() error {
		all := replicas(t, service)
		if len(all) == 0 {
			return fmt.Errorf("there is no replica")
		}
		for _, c := range all[0].Status.Containers {
			if c.LastExit != nil && c.LastExit.Reason == reason {
				exit = c.LastExit
				return nil
			}
		}
		return fmt.Errorf("%+v", all[0].Status)
	}))
	return exit
}

func hookFails(t *testing.T) {
	deleteLater(t, "hook-fails")
	must(t, fleet.ApplyText(t.Context(), service("hook-fails", 1, "  terminationGracePeriod: 1s", httpProbe+`
      lifecycle: {postStart: {exec: {command: [/bin/web, -exit, "7"]}}}`), false))
	exit := lastExit(t, "hook-fails", api.ExitHookFailed)
	contains(t, "the exit's message", exit.Message, "7")
	if s, err := fleet.Service(t.Context(), "hook-fails"); err != nil || s.Status.Ready != 0 {
		t.Errorf("%d replicas are ready whose hook never ended well: %v", s.Status.Ready, err)
	}
}

// security: what may be done by default, and where it is narrowed.
func security(t *testing.T) {
	yaml := service("security", 1, `  sidecars: [{name: plain, image: "orch.local/web:1.0", args: [-port, "9000"]}]`, httpProbe+`
      securityContext:
        user: "1234"
        group: "5678"
        readOnlyRoot: true
        capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}`)
	apply(t, "security", yaml)
	for name, want := range map[string]string{"Uid": "1234", "Gid": "5678", "NoNewPrivs": "1", "Seccomp": "2", "CapBnd": "0000000000000400"} {
		if got := field(t, "security-0", "status", name); got[0] != want {
			t.Errorf("%s is %v, want %s", name, got, want)
		}
	}
	contains(t, "a write to a root that is read-only", refusedInside(t, "security-0", "-try-write", "/bin/x"), "read-only file system")
	plain := orchctl(t, "exec", "security-0", "-c", "plain", "--", "/bin/web", "-cat", "/proc/1/status")
	contains(t, "the status of a container with the defaults", plain, "Uid:\t65534", "NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t00000000800405fb")
}

// privileged containers have everything; here the caller is an admin.
func privileged(t *testing.T) {
	apply(t, "privileged", service("privileged", 1, "", httpProbe+"\n      securityContext: {privileged: true, user: \"0\"}"))
	// The node's agent, and so the replica, has what this machine gives to root.
	own, err := os.ReadFile("/proc/self/status")
	must(t, err)
	_, all, _ := strings.Cut(string(own), "CapEff:\t")
	all, _, _ = strings.Cut(all, "\n")
	for name, want := range map[string]string{"Uid": "0", "CapEff": all, "Seccomp": "0"} {
		if got := field(t, "privileged-0", "status", name); got[0] != want {
			t.Errorf("%s is %v, want %s", name, got, want)
		}
	}
}

func limits(t *testing.T) {
	apply(t, "limits", service("limits", 1, `  sysctls: {net.core.somaxconn: "1234"}`, httpProbe+"\n      ulimits: {nofile: {soft: 2048, hard: 4096}}"))
	if got := field(t, "limits-0", "limits", "Max open files"); got[1] != "4096" { // Go raises its soft limit to the hard one
		t.Errorf("open files: %v, want a hard limit of 4096", got)
	}
	if got := strings.TrimSpace(inside(t, "limits-0", "-cat", "/proc/sys/net/core/somaxconn")); got != "1234" {
		t.Errorf("somaxconn is %s", got)
	}
}

// mounts: a tmpfs of its size, and a folder of the node, to write to or only to read.
func mounts(t *testing.T) {
	dir := folder(t)
	apply(t, "mounts", service("mounts", 1, "", httpProbe+fmt.Sprintf(`
      mounts:
        - {path: /scratch, tmpfs: {size: 1Mi}}
        - {path: /data, bind: %s}
        - {path: /fixed, bind: %s, readOnly: true}`, dir, dir)))
	inside(t, "mounts-0", "-try-write", "/scratch/x")
	inside(t, "mounts-0", "-try-write", "/data/x")
	contains(t, "a write to a mount that is read-only", refusedInside(t, "mounts-0", "-try-write", "/fixed/x"), "read-only file system")
	contains(t, "the mounts", inside(t, "mounts-0", "-cat", "/proc/1/mountinfo"), "/scratch ", "size=1024k")
	must(t, os.WriteFile(filepath.Join(dir, "greeting"), []byte("hello\n"), 0o644))
	if got := inside(t, "mounts-0", "-cat", "/fixed/greeting"); got != "hello\n" {
		t.Errorf("the node's file reads %q", got)
	}
}

// bindRefused: what an agent does not allow is not mounted, also not by a link out of
// what it does; and it is said what would allow it.
func bindRefused(t *testing.T) {
	link := filepath.Join(folder(t), "out")
	must(t, os.Symlink("/etc", link))
	for name, path := range map[string]string{"bind-refused": "/etc", "bind-link": link} {
		deleteLater(t, name)
		must(t, fleet.ApplyText(t.Context(), service(name, 1, "", httpProbe+"\n      mounts: [{path: /data, bind: "+path+"}]"), false))
		must(t, rig.Until(t.Context(), 10*time.Second, "the bind mount to be refused", func() error {
			out, errs, _ := fleet.Orchctl(t.Context(), "describe", "replica", name+"-0")
			for _, w := range []string{api.ReasonBindRefused, "--allow-bind"} {
				if !strings.Contains(out, w) {
					return fmt.Errorf("describe does not say %q:\n%s%s", w, out, errs)
				}
			}
			return nil
		}))
	}
}

func downward(t *testing.T) {
	yaml := service("downward", 1, "", httpProbe+`
      env:
        - {name: A_NAME, valueFrom: {field: name}}
        - {name: A_SLOT, valueFrom: {field: slot}}
        - {name: A_EPOCH, valueFrom: {field: epoch}}
        - {name: A_REVISION, valueFrom: {field: revision}}
        - {name: A_SERVICE, valueFrom: {field: service}}
        - {name: A_NAMESPACE, valueFrom: {field: namespace}}
        - {name: A_NODE, valueFrom: {field: node}}
        - {name: A_IP, valueFrom: {field: ip}}
        - {name: A_LABEL, valueFrom: {field: labels.team}}
        - {name: A_NOTHING, valueFrom: {field: labels.none}}`)
	apply(t, "downward", strings.Replace(yaml, "{name: downward}", "{name: downward, labels: {team: blue}}", 1))
	r := replicas(t, "downward")[0]
	lines := strings.Split(inside(t, "downward-0", "-cat", "/proc/1/environ"), "\n")
	for name, want := range map[string]string{"NAME": "downward-0", "SLOT": "0", "EPOCH": fmt.Sprint(r.Spec.Epoch), "REVISION": "1", "SERVICE": "downward",
		"NAMESPACE": "default", "NODE": r.Spec.Node, "IP": r.Status.IP, "LABEL": "blue", "NOTHING": ""} {
		if line := "A_" + name + "=" + want; !slices.Contains(lines, line) {
			t.Errorf("no %s in the environment:\n%s", line, strings.Join(lines, "\n"))
		}
	}
}

// grpcAndStartup: a liveness probe that would kill a slow start waits for the startup
// probe; all three ask by gRPC.
func grpcAndStartup(t *testing.T) {
	yaml := func(args, revision string) string {
		return service("grpc", 1, "  rollout: {autoRollback: false}", `      ports: [{name: health, port: 9000}]
      args: [-grpc, ":9000", `+args+`]
      env: [{name: REVISION, value: "`+revision+`"}]
      startupProbe: {grpc: {port: health}, interval: 100ms, failureThreshold: 100}
      readinessProbe: {grpc: {port: health, service: web}, interval: 200ms}
      livenessProbe: {grpc: {port: health}, interval: 100ms, failureThreshold: 1}`)
	}
	apply(t, "grpc", yaml("-slow-start, 1500ms", "1"))
	if r := replicas(t, "grpc")[0]; r.Status.Restarts != 0 {
		t.Errorf("restarted %d times before it had started", r.Status.Restarts)
	}
	must(t, fleet.ApplyText(t.Context(), yaml("-never-ready", "2"), false))
	must(t, rig.Until(t.Context(), 10*time.Second, "the probe's answer to be told", func() error {
		var out string
		for _, r := range replicas(t, "grpc") {
			out += r.Status.Message
			for _, c := range r.Status.Containers {
				out += c.Message
			}
		}
		if !strings.Contains(out, "NOT_SERVING") {
			return fmt.Errorf("the replicas say %q", out)
		}
		return nil
	}))
}

func startupFails(t *testing.T) {
	deleteLater(t, "startup")
	must(t, fleet.ApplyText(t.Context(), service("startup", 1, "", `      ports: [{name: http, port: 8080}]
      args: [-never-ready]
      startupProbe: {http: {path: /healthz, port: http}, interval: 100ms, failureThreshold: 3}`), false))
	exit := lastExit(t, "startup", api.ExitStartupFailed)
	contains(t, "what it printed last", exit.Output, "drained")
}

// healthcheck: an image that says how its containers are asked is asked so, unless
// the manifest has a probe; and its stop signal is what they get.
func healthcheck(t *testing.T) {
	must(t, fleet.LoadImage(t.Context(), "web-checked.tar"))
	deleteLater(t, "healthcheck")
	yaml := func(probe string) string {
		return strings.Replace(service("healthcheck", 1, "  rollout: {autoRollback: false}", "      args: [-never-ready]\n"+probe), "web:1.0", "web:checked", 1)
	}
	must(t, fleet.ApplyText(t.Context(), yaml(""), false))
	exit := lastExit(t, "healthcheck", api.ExitLivenessFailed)
	contains(t, "what it printed last", exit.Output, "interrupt signal", "drained")
	must(t, fleet.ApplyText(t.Context(), yaml("      ports: [{name: http, port: 8080}]\n      readinessProbe: {tcp: {port: http}}"), true))
}
