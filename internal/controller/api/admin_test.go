package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const operator, admin = "user/bob?role=operator", "user/eve?role=admin"

// TestAdminOnly: what may take over a node only an admin hands out.
func TestAdminOnly(t *testing.T) {
	adds := func(names ...string) api.SecurityContext {
		return api.SecurityContext{Capabilities: api.Capabilities{Add: names}}
	}
	for _, c := range []struct {
		name        string
		x           api.SecurityContext
		hostNetwork bool
		want        string // in the refusal; empty: an operator may
	}{
		{"nothing", api.SecurityContext{}, true, ""},
		{"privileged", api.SecurityContext{Privileged: true}, false, "container setup asks for securityContext.privileged"},
		{"no filter", api.SecurityContext{Seccomp: api.SeccompUnconfined}, false, "container setup asks for securityContext.seccomp unconfined"},
		{"the filter", api.SecurityContext{Seccomp: api.SeccompDefault, AllowPrivilegeEscalation: true}, false, ""},
		{"harmless", adds("NET_ADMIN", "CAP_NET_RAW", "SYS_NICE", "SYS_RESOURCE", "CHOWN"), false, ""},
		{"ALL", adds("ALL"), false, "capabilities ALL"},
		{"the second", adds("IPC_LOCK", "CAP_SYS_ADMIN"), false, "capabilities CAP_SYS_ADMIN"},
		{"by any spelling", adds("cap_sys_module"), false, "capabilities cap_sys_module"},
		{"opens files by handle", adds("DAC_READ_SEARCH"), false, "DAC_READ_SEARCH"},
		{"the node's network", adds("CAP_NET_ADMIN"), true, "CAP_NET_ADMIN with hostNetwork"},
		{"a low port of the node", adds("NET_BIND_SERVICE"), true, ""},
		{"dropped", api.SecurityContext{Capabilities: api.Capabilities{Drop: []string{"ALL"}}}, true, ""},
	} {
		s := plain("web", "a:1")
		s.Spec.HostNetwork = c.hostNetwork
		s.Spec.InitContainers = []api.Container{{Name: "setup", Image: "a:1", SecurityContext: &c.x}}
		services := []api.Object{plain("api", "a:1"), s}
		if err := mayApply(as(t.Context(), admin), services); err != nil {
			t.Errorf("%s: an admin: %v", c.name, err)
		}
		err := mayApply(as(t.Context(), operator), services)
		if c.want == "" && err != nil || c.want != "" && (status.Code(err) != codes.PermissionDenied ||
			!strings.Contains(err.Error(), "may not apply service default/web: objects[1]: ") || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: an operator: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestHarmless: the list is of what there is.
func TestHarmless(t *testing.T) {
	for _, name := range slices.Concat(harmless, ofNetwork) {
		s := plain("web", "a:1")
		s.Spec.Containers[0].SecurityContext = &api.SecurityContext{Capabilities: api.Capabilities{Add: []string{name}}}
		if err := api.Validate(s); len(err) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// ownsNode is a world in which replica web-0 of revision 1 has a container that owns
// its node, and the service's newest revision has none.
func ownsNode() *view.View {
	old, now := plain("web", "a:1", "a:2"), plain("web", "a:1")
	old.Spec.Containers[1].SecurityContext = &api.SecurityContext{Privileged: true}
	v := view.New()
	v.Publish(core.Publish{Put: []core.Entry{
		{Key: core.ViewKey{Kind: api.KindService, Namespace: "default", Name: "web"}, Object: now},
		{Key: core.ViewKey{Kind: api.KindService, Namespace: "default", Name: "tuner"}, Object: old},
		{Key: core.ViewKey{Kind: api.KindRevision, Namespace: "default", Name: "web@1"}, Object: &api.Revision{Number: 1, Template: old.Spec.Template}},
	}})
	return v
}

// TestMayExec: the revision that runs counts, and the container that is meant.
func TestMayExec(t *testing.T) {
	s := New(Config{View: ownsNode()})
	for _, c := range []struct {
		who       string
		service   string
		revision  int64
		container int // -1: none is named
		want      codes.Code
	}{
		{operator, "web", 1, -1, codes.PermissionDenied},
		{operator, "web", 1, 1, codes.PermissionDenied},
		{operator, "web", 1, 0, codes.OK},
		{operator, "web", 2, -1, codes.OK},
		{operator, "tuner", 9, -1, codes.PermissionDenied}, // its revision is not known: the service's
		{admin, "web", 1, -1, codes.OK},
	} {
		x := &api.Replica{Metadata: api.Metadata{Namespace: "default", Name: c.service + "-0@1"}}
		x.Spec.Service, x.Spec.Revision = c.service, c.revision
		name := ""
		if c.container >= 0 {
			name = plain("web", "a:1", "a:2").Spec.Containers[c.container].Name
		}
		if err := s.mayExec(as(t.Context(), c.who), x, name); status.Code(err) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestMayChange: what a container that owns its node reads, only an admin changes.
func TestMayChange(t *testing.T) {
	config := func(kind, name string) *api.Config {
		c := &api.Config{TypeMeta: api.TypeMeta{Kind: kind}, Metadata: api.Metadata{Name: name}, Data: map[string]string{"LD_PRELOAD": "/tmp/x.so"}}
		c.Default()
		return c
	}
	taking := func(name string, privileged bool) *api.Service {
		x := plain(name, "a:1")
		x.Spec.Containers[0].EnvFrom = []api.EnvFrom{{Config: name}, {Secret: name}}
		x.Spec.PullSecrets = []string{"hub"}
		x.Spec.Containers[0].SecurityContext = &api.SecurityContext{Privileged: privileged}
		return x
	}
	v := view.New()
	v.Publish(core.Publish{Put: []core.Entry{
		{Key: core.ViewKey{Kind: api.KindService, Namespace: "default", Name: "tuner"}, Object: taking("tuner", true)},
		{Key: core.ViewKey{Kind: api.KindService, Namespace: "default", Name: "web"}, Object: taking("web", false)},
	}})
	s := New(Config{View: v})
	elsewhere := config(api.KindConfig, "tuner")
	elsewhere.Metadata.Namespace = "other"
	for _, c := range []struct {
		name    string
		who     string
		objects []api.Object
		want    codes.Code
	}{
		{"a config of it", operator, []api.Object{config(api.KindConfig, "web"), config(api.KindConfig, "tuner")}, codes.PermissionDenied},
		{"a secret of it", operator, []api.Object{config(api.KindSecret, "tuner")}, codes.PermissionDenied},
		{"by an admin", admin, []api.Object{config(api.KindSecret, "tuner")}, codes.OK},
		{"another service's", operator, []api.Object{config(api.KindConfig, "web"), config(api.KindSecret, "web")}, codes.OK},
		{"another namespace's", operator, []api.Object{elsewhere}, codes.OK},
		{"with the service as it owns nothing", operator, []api.Object{config(api.KindConfig, "tuner"), taking("tuner", false)}, codes.OK},
		{"nobody's", operator, []api.Object{config(api.KindConfig, "new")}, codes.OK},
		{"a login that it pulls with", operator, []api.Object{config(api.KindSecret, "hub")}, codes.OK},
	} {
		err := s.mayChange(as(t.Context(), c.who), c.objects)
		if status.Code(err) != c.want || c.want != codes.OK && !strings.Contains(err.Error(), "default/tuner: service default/tuner takes values of it, and its container") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestMayRestart: a restart takes up what an image's name means now.
func TestMayRestart(t *testing.T) {
	for _, c := range []struct {
		service, word string
		want          codes.Code
	}{{"tuner", "restart", codes.PermissionDenied}, {"tuner", "pause", codes.OK}, {"web", "restart", codes.OK}} {
		l := &applier{}
		s := New(Config{View: ownsNode(), Leader: l})
		_, err := s.Rollout(as(t.Context(), operator), &orchv1.RolloutRequest{Name: c.service, Word: c.word})
		if status.Code(err) != c.want || (len(l.told) > 0) != (c.want == codes.OK) {
			t.Errorf("%s %s: %v, told %v", c.word, c.service, err, fmt.Sprint(l.told))
		}
	}
}
