package e2e

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/hub"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/ociimage"
)

// TestRegistry: images come from a registry that has an authority of its own, wants a
// login and has bad days. All at once, each with a registry of its own.
func TestRegistry(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"private": registryPrivate, "wrong-password": registryWrongPassword, "node-login": registryNodeLogin, "down": registryDown, "slow": registrySlow,
		"mismatch": registryMismatch, "platform": registryPlatform, "tag": registryTag, "policy": registryPolicy, "plain": registryPlain, "mirror": registryMirror,
		"late": registryLate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// The registries of the tests are beside the controller. Each has a port of its own; to
// plainPort the fleet speaks without TLS, as its operators allowed.
const (
	hubHost   = "10.200.0.1"
	plainPort = 5500
)

// registryArgs are flags of agents and of the controller; the folder is in shared.
func registryArgs(shared string) []string {
	return []string{"--registry-config", filepath.Join(shared, "certs.d"), "--registry-auth", filepath.Join(shared, "registry-auth.json"),
		"--insecure-registry", fmt.Sprintf("%s:%d", hubHost, plainPort)}
}

// registryOf is a registry of one test.
type registryOf struct {
	*hub.Hub
	fleet *rig.Fleet
	host  string // host:port
	cert  *tls.Certificate
	stop  func()
}

// newRegistry makes one that answers at a port, and has every node trust it.
func newRegistry(t *testing.T, port int) *registryOf {
	t.Helper()
	return newRegistryBeside(t, fleet, port)
}

// newRegistryBeside is newRegistry for another fleet than the shared one.
func newRegistryBeside(t *testing.T, f *rig.Fleet, port int) *registryOf {
	t.Helper()
	cert, authority, err := hub.Certificate(net.ParseIP(hubHost))
	must(t, err)
	r := &registryOf{Hub: hub.New(), fleet: f, host: fmt.Sprintf("%s:%d", hubHost, port), cert: cert}
	dir := filepath.Join(shared, "certs.d", r.host)
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "ca.crt"), authority, 0o644))
	r.start(t)
	t.Cleanup(func() { r.stop() })
	return r
}

// start has it answer; stop it first.
func (r *registryOf) start(t *testing.T) {
	t.Helper()
	l, err := r.fleet.Lab.Listen(t.Context(), "tcp", r.host)
	must(t, err)
	r.stop = r.Serve(l, r.cert)
}

// push makes an image of the web program with a version, and so many bytes that do not
// get smaller, and gives its full name.
func (r *registryOf) push(t *testing.T, path, version string, size int, arch string) string {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(rig.Root(), "bin", "web"))
	must(t, err)
	ballast := make([]byte, size)
	_, _ = rand.Read(ballast) // never fails
	image, err := ociimage.Image(ociimage.Options{Entrypoint: []string{"/bin/web"}, Env: []string{"PATH=/bin", "VERSION=" + version}, User: "65534:65534", Architecture: arch,
		Files: map[string]ociimage.File{"/bin/web": {Data: program, Mode: 0o755}, "/ballast": {Data: ballast}}})
	must(t, err)
	must(t, r.Push(t.Context(), path, image))
	return r.host + "/" + path
}

// pulled makes a service of an image.
func pulled(name string, replicas int, image, spec, container string) string {
	return strings.Replace(service(name, replicas, spec, httpProbe+container), "orch.local/web:1.0", image, 1)
}

// login makes a Secret of type registry.
func login(name, server, user, password string) string {
	return fmt.Sprintf("---\napiVersion: orch/v1\nkind: Secret\nmetadata: {name: %s}\ntype: registry\ndata: {server: %q, username: %q, password: %q}\n", name, server, user, password)
}

// told waits until a replica's description says all the words.
func told(t *testing.T, replica string, within time.Duration, words ...string) {
	t.Helper()
	must(t, rig.Until(t.Context(), within, "describe replica "+replica+" to tell why", func() error {
		out, errs, code := fleet.Orchctl(t.Context(), "describe", "replica", replica)
		for _, w := range words {
			if code != 0 || !strings.Contains(out, w) {
				return fmt.Errorf("exit %d, it does not say %q:\n%s%s", code, w, out, errs)
			}
		}
		return nil
	}))
}

// registryPrivate: with the login of its manifest a service gets its image on every
// node, and the one image that its tag meant when it was applied.
func registryPrivate(t *testing.T) {
	r := newRegistry(t, 5001)
	r.Login("alice", "open sesame")
	image := r.push(t, "team/private:1", "1", 1<<20, "amd64")
	removeLater(t, "service/private", "secret/private")
	must(t, fleet.ApplyText(t.Context(), login("private", r.host, "alice", "open sesame")+"---\n"+pulled("private", 3, image, "  pullSecrets: [private]", ""), true))
	digests := map[string]bool{}
	for _, x := range replicas(t, "private") {
		digests[x.Status.Containers[0].ImageID] = true
	}
	if len(digests) != 1 {
		t.Errorf("the replicas run %d images: %v", len(digests), digests)
	}
	// Nothing of the login is told, on no node it is on disk: TestSecretIsNowhere looks
	// for all Secrets' values.
	out := orchctl(t, "describe", "secret", "private")
	contains(t, "describe secret", out, "registry", "private")
	if strings.Contains(out, "open sesame") {
		t.Errorf("describe tells the password:\n%s", out)
	}
	refused, errs, code := fleet.Orchctl(t.Context(), "delete", "secret/private", "--yes")
	if code == 0 {
		t.Errorf("a login that a service needs was deleted:\n%s", refused)
	}
	contains(t, "delete of a login in use", errs, "private", "service")
	list := orchctl(t, "image", "ls")
	contains(t, "image ls", list, image, "3 of 3")
}

// registryWrongPassword: it is said, and a new login is enough: nothing is rolled out.
func registryWrongPassword(t *testing.T) {
	r := newRegistry(t, 5002)
	r.Login("alice", "open sesame")
	image := r.push(t, "team/wrong:1", "1", 1<<10, "amd64")
	removeLater(t, "service/wrong", "secret/wrong")
	must(t, fleet.ApplyText(t.Context(), login("wrong", r.host, "alice", "hunter2")+"---\n"+pulled("wrong", 1, image, "  pullSecrets: [wrong]", ""), false))
	told(t, "wrong-0", 15*time.Second, r.host, "alice")
	out := orchctl(t, "describe", "replica", "wrong-0")
	if strings.Contains(out, "hunter2") {
		t.Errorf("describe tells the password:\n%s", out)
	}
	must(t, fleet.ApplyText(t.Context(), login("wrong", r.host, "alice", "open sesame"), false))
	must(t, fleet.WaitReady(t.Context(), "wrong", 1, 30*time.Second))
	s, err := fleet.Service(t.Context(), "wrong")
	must(t, err)
	if s.Status.Revision != 1 {
		t.Errorf("a new login made revision %d", s.Status.Revision)
	}
}

// registryNodeLogin: a docker config file on the nodes is a login too.
func registryNodeLogin(t *testing.T) {
	r := newRegistry(t, 5003)
	r.Login("node", "of the house")
	image := r.push(t, "team/house:1", "1", 1<<10, "amd64")
	auth := filepath.Join(shared, "registry-auth.json")
	must(t, os.WriteFile(auth+".new", []byte(fmt.Sprintf(`{"auths":{%q:{"username":"node","password":"of the house"}}}`, r.host)), 0o600))
	must(t, os.Rename(auth+".new", auth))
	apply(t, "house", pulled("house", 1, image, "", ""))
}

// registryDown: what cannot be asked is said; when it is back the service comes up by
// itself. A rollout is not taken back for it: that says nothing of the revision.
func registryDown(t *testing.T) {
	r := newRegistry(t, 5004)
	first, second := r.push(t, "team/down:1", "1", 1<<10, "amd64"), r.push(t, "team/down:2", "2", 1<<10, "amd64")
	r.stop()
	deleteLater(t, "down")
	must(t, fleet.ApplyText(t.Context(), pulled("down", 2, first, "", ""), false))
	told(t, "down-0", 15*time.Second, r.host, "nothing listens", api.ReasonRegistryUnreachable)
	r.start(t)
	must(t, fleet.WaitReady(t.Context(), "down", 2, 45*time.Second))

	r.stop()
	must(t, fleet.ApplyText(t.Context(), pulled("down", 2, second, "", ""), false))
	told(t, "down-0", 15*time.Second, second, "nothing listens")
	for range 15 { // longer than the controller's --rollout-image
		time.Sleep(time.Second)
		if s, err := fleet.Service(t.Context(), "down"); err != nil || s.Status.Rollout.State != api.RolloutProgressing {
			t.Fatalf("the registry is down, and the rollout is %s (%s), %v", s.Status.Rollout.State, s.Status.Rollout.Why, err)
		}
	}
	r.start(t)
	must(t, fleet.WaitRollout(t.Context(), "down", 2, api.RolloutComplete, 90*time.Second))
}

// registrySlow: how far it is can be seen.
func registrySlow(t *testing.T) {
	r := newRegistry(t, 5005)
	r.Break(hub.Fault{BytesPerSecond: 4 << 20})
	image := r.push(t, "team/slow:1", "1", 16<<20, "amd64")
	deleteLater(t, "slow")
	out, errs, code := fleet.OrchctlIn(t.Context(), strings.NewReader(pulled("slow", 1, image, "", "")), "apply", "-f", "-", "--timeout", "60s")
	if code != 0 {
		t.Fatalf("apply: exit %d\n%s%s", code, out, errs)
	}
	contains(t, "apply", out+errs, "pulling", "MiB")
}

// registryMismatch: bytes that are not those of the digest are not run.
func registryMismatch(t *testing.T) {
	r := newRegistry(t, 5006)
	r.Break(hub.Fault{Corrupt: true})
	image := r.push(t, "team/bent:1", "1", 1<<20, "amd64")
	deleteLater(t, "bent")
	must(t, fleet.ApplyText(t.Context(), pulled("bent", 1, image, "", ""), false))
	told(t, "bent-0", 20*time.Second, "digest")
	r.Break(hub.Fault{})
	must(t, fleet.WaitReady(t.Context(), "bent", 1, 45*time.Second))
}

// registryPlatform: an image of another platform is told apart from one that is broken.
func registryPlatform(t *testing.T) {
	r := newRegistry(t, 5007)
	image := r.push(t, "team/arm:1", "1", 1<<10, "arm64")
	deleteLater(t, "arm")
	must(t, fleet.ApplyText(t.Context(), pulled("arm", 1, image, "", ""), false))
	told(t, "arm-0", 15*time.Second, "linux/arm64", "linux/amd64")
}

// registryTag: a tag that moves afterwards means nothing for a revision, wherever its
// replicas come to be placed.
func registryTag(t *testing.T) {
	r := newRegistry(t, 5008)
	image := r.push(t, "team/tag:1", "old", 1<<10, "amd64")
	apply(t, "tag", pulled("tag", 1, image, "", ""))
	r.push(t, "team/tag:1", "new", 1<<10, "amd64")
	must(t, fleet.Must(t.Context(), "scale", "service/tag", "--replicas", "3"))
	must(t, fleet.WaitReady(t.Context(), "tag", 3, 30*time.Second))
	for i := range 3 {
		contains(t, "the environment", inside(t, fmt.Sprintf("tag-%d", i), "-cat", "/proc/self/environ"), "VERSION=old")
	}
	must(t, fleet.Must(t.Context(), "rollout", "restart", "service/tag"))
	must(t, fleet.WaitReady(t.Context(), "tag", 3, 30*time.Second))
	for i := range 3 {
		contains(t, "the environment after restart", inside(t, fmt.Sprintf("tag-%d", i), "-cat", "/proc/self/environ"), "VERSION=new")
	}
}

// registryPolicy: never asks nobody, always asks the registry though nodes have the name.
func registryPolicy(t *testing.T) {
	r := newRegistry(t, 5009)
	image := r.push(t, "team/policy:1", "1", 1<<10, "amd64")
	deleteLater(t, "never")
	must(t, fleet.ApplyText(t.Context(), pulled("never", 1, image, "", "\n      pullPolicy: never"), false))
	told(t, "never-0", 15*time.Second, "never")
	if manifests, blobs := r.Asked(); manifests+blobs != 0 {
		t.Errorf("with pullPolicy never the registry gave out %d manifests and %d blobs", manifests, blobs)
	}
	must(t, fleet.Must(t.Context(), "image", "pull", image))
	must(t, fleet.WaitReady(t.Context(), "never", 1, 30*time.Second))

	r.push(t, "team/policy:1", "2", 1<<10, "amd64")
	deleteLater(t, "always")
	must(t, fleet.ApplyText(t.Context(), pulled("always", 1, image, "", "\n      pullPolicy: always"), true))
	contains(t, "the environment", inside(t, "always-0", "-cat", "/proc/self/environ"), "VERSION=2")
}

// registryPlain: without TLS only where an operator allowed it by name.
func registryPlain(t *testing.T) {
	for _, c := range []struct {
		name    string
		port    int
		allowed bool
	}{{"plain-no", plainPort + 1, false}, {"plain-yes", plainPort, true}} {
		r := &registryOf{Hub: hub.New(), fleet: fleet, host: fmt.Sprintf("%s:%d", hubHost, c.port)}
		r.start(t)
		defer r.stop()
		image := r.push(t, "team/plain:1", "1", 1<<10, "amd64")
		deleteLater(t, c.name)
		must(t, fleet.ApplyText(t.Context(), pulled(c.name, 1, image, "", ""), false))
		if c.allowed {
			must(t, fleet.WaitReady(t.Context(), c.name, 1, 30*time.Second))
			continue
		}
		told(t, c.name+"-0", 15*time.Second, "--insecure-registry")
		if manifests, _ := r.Asked(); manifests != 0 {
			t.Error("a registry was spoken to without TLS that nobody allowed")
		}
	}
}

// registryMirror: what a host's hosts.toml says is asked in its stead.
func registryMirror(t *testing.T) {
	r := newRegistry(t, 5010)
	image := r.push(t, "team/mirrored:1", "1", 1<<10, "amd64")
	const elsewhere = "registry.example"
	dir := filepath.Join(shared, "certs.d", elsewhere)
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = %q\n",
		"https://"+elsewhere, "https://"+r.host, filepath.Join(shared, "certs.d", r.host, "ca.crt"))), 0o644))
	apply(t, "mirrored", pulled("mirrored", 2, strings.Replace(image, r.host, elsewhere, 1), "", ""))
}

// registryLate: where nobody could tell what a tag means when it was applied, the first
// replica's image becomes that of all.
func registryLate(t *testing.T) {
	r := newRegistry(t, 5011)
	r.Break(hub.Fault{Status: http.StatusServiceUnavailable})
	image := r.push(t, "team/late:1", "1", 1<<10, "amd64")
	deleteLater(t, "late")
	must(t, fleet.ApplyText(t.Context(), pulled("late", 3, image, "", ""), false))
	told(t, "late-0", 15*time.Second, "503")
	if n := len(replicas(t, "late")); n != 1 {
		t.Errorf("%d replicas are placed although it is not known of what image", n)
	}
	r.Break(hub.Fault{})
	must(t, fleet.WaitReady(t.Context(), "late", 3, 60*time.Second))
	all, err := fleet.Revisions(t.Context(), "late")
	must(t, err)
	if got := all[0].Images[image]; !strings.HasPrefix(got, "sha256:") {
		t.Errorf("revision 1 has the image %q", got)
	}
	for _, x := range replicas(t, "late") {
		if x.Status.Containers[0].ImageID != all[0].Images[image] && x.Status.Phase == api.PhaseRunning {
			t.Errorf("%s runs %s, the revision has %s", x.Metadata.Name, x.Status.Containers[0].ImageID, all[0].Images[image])
		}
	}
}
