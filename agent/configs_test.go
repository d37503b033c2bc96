package agent

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// using gives web-0 with a Config's variables and a Secret's, of these versions.
func using(k api.ReplicaKey, config, secret int64) wire.Assignment {
	a := web(k)
	a.Configs = map[api.ConfigRef]int64{}
	c := &a.Template.Containers[0]
	if config > 0 {
		a.Configs["config/app"] = config
		c.EnvFrom = append(c.EnvFrom, api.EnvFrom{Config: "app"})
	}
	if secret > 0 {
		a.Configs["secret/db"] = secret
		c.EnvFrom = append(c.EnvFrom, api.EnvFrom{Secret: "db"})
	}
	return a
}

func (r *rig) wantEnv(id string, plain, secret string) {
	r.t.Helper()
	join := func(env []api.EnvVar) string {
		var words []string
		for _, v := range env {
			words = append(words, v.Name+"="+v.Value)
		}
		return strings.Join(words, " ")
	}
	s := r.runtime.SpecOf(id)
	if p, x := join(s.Container.Env), join(s.SecretEnv); p != plain || x != secret {
		r.t.Errorf("%s has %q and in secret %q, want %q and %q", id, p, x, plain, secret)
	}
}

// wantNowhere looks for a value in all that the agent has on disk and in its log.
func (r *rig) wantNowhere(value string) {
	r.t.Helper()
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(value)) {
			r.t.Errorf("%s holds the secret %q", path, value)
		}
		return err
	})
	if err != nil {
		r.t.Error(err)
	}
	if strings.Contains(r.log.String(), value) {
		r.t.Errorf("the log holds the secret %q", value)
	}
}

// Without a leader, a restart in place has what a Config holds, from disk, and after a
// restart of the agent waits for what a Secret does. What runs is left alone.
func TestSecretsComeWithASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		web1 := api.ReplicaKey{Namespace: "default", Service: "web", Slot: 1, Epoch: 2}
		set := wire.AssignmentSet{Complete: true, Put: []wire.Assignment{using(web0, 3, 2), using(web1, 3, 0)},
			Configs: []wire.ConfigVersion{version("config/app", 3, map[string]string{"LEVEL": "debug"}), version("secret/db", 2, map[string]string{"PASSWORD": "hunter2"})}}
		l.assign(t, set)
		l.hear(ready)
		time.Sleep(time.Second)
		synctest.Wait()
		r.runtime.Took() // two at once, in either order
		r.wantEnv("default.web-0.1.main", "LEVEL=debug", "PASSWORD=hunter2")
		// It restarts in place, with a leader or without, as long as the agent lives.
		r.c.Stop()
		r.runtime.Exit("default.web-0.1.main", 1)
		time.Sleep(time.Second)
		r.wantTook("remove default.web-0.1.main", "start default.web-0.1.main_1")
		r.wantEnv("default.web-0.1.main_1", "LEVEL=debug", "PASSWORD=hunter2")

		r.restart()
		time.Sleep(time.Minute)
		r.wantTook()
		r.runtime.Exit("default.web-0.1.main_1", 1)
		time.Sleep(time.Minute)
		r.runtime.Exit("default.web-1.2.main", 1)
		time.Sleep(time.Minute)
		r.wantTook("remove default.web-0.1.main_1", "remove default.web-1.2.main", "start default.web-1.2.main_1")
		r.wantEnv("default.web-1.2.main_1", "LEVEL=debug", "")
		r.wantNowhere("hunter2")

		r.c.Serve(nil)
		l = r.next(11)
		late := set
		late.Configs = set.Configs[:1] // the leader cannot open the other one
		l.assign(t, late)
		l.hear(func(s wire.StatusReport) bool {
			return slices.ContainsFunc(s.Replicas, func(x wire.Report) bool {
				return x.Key == web0 && x.Status.Reason == api.ReasonConfigMissing && x.Status.Message == "secret default/db version 2 is not on this node yet: it comes with the next session" &&
					x.Status.Restarts == 2 && x.Status.Containers[0].State == api.ContainerWaiting
			})
		})
		r.wantTook()
		l.assign(t, wire.AssignmentSet{Put: set.Put[:1], Configs: set.Configs})
		l.hear(ready)
		r.wantTook("start default.web-0.1.main_2")
		r.wantEnv("default.web-0.1.main_2", "LEVEL=debug", "PASSWORD=hunter2")
		r.wantNowhere("hunter2")
		r.stop()
	})
}

// Versions are kept as long as an assignment takes them, and no longer.
func TestConfigsGoWithTheirLastUser(t *testing.T) {
	c := newConfigs()
	c.take("A", []wire.ConfigVersion{version("config/app", 3, nil), version("config/app", 4, nil), version("secret/db", 2, nil)})
	c.take("Z", []wire.ConfigVersion{version("config/app", 3, nil)})
	s := plan.Saved{Incarnation: "A", Assignments: []wire.Assignment{using(web0, 4, 2)}}
	disk := c.keepOnly(s)
	if len(c.values) != 2 || disk == nil || len(disk.Configs) != 1 || disk.Configs[0].Version != 4 || disk.Incarnation != "A" {
		t.Errorf("%v, on disk %+v", c.values, disk)
	}
	if again := c.keepOnly(s); again != nil {
		t.Errorf("written again: %+v", again)
	}
	c.take("A", []wire.ConfigVersion{version("config/app", 4, nil), version("secret/db", 2, nil)}) // as each session does
	if again := c.keepOnly(s); again != nil {
		t.Errorf("written again: %+v", again)
	}
	s.Assignments = []wire.Assignment{using(web0, 4, 0)}
	if disk := c.keepOnly(s); len(c.values) != 1 || disk != nil {
		t.Errorf("%v, on disk %+v", c.values, disk)
	}
	s.Assignments = nil
	if disk := c.keepOnly(s); len(c.values) != 0 || disk == nil || len(disk.Configs) != 0 {
		t.Errorf("%v, on disk %+v", c.values, disk)
	}
}

func TestSavedConfigsComeBack(t *testing.T) {
	dir := t.TempDir()
	if c, err := loadConfigs(dir); err != nil || len(c.values) != 0 {
		t.Fatalf("nothing saved: %v, %v", c.values, err)
	}
	s := newSaver(Config{Data: dir, Logger: slog.New(slog.DiscardHandler)})
	was := newConfigs()
	was.take("A", []wire.ConfigVersion{version("config/app", 3, map[string]string{"bin": "\xff\x00"})})
	saved := plan.Saved{Incarnation: "A", Assignments: []wire.Assignment{using(web0, 3, 2)}}
	s.save(saved, was.keepOnly(saved))
	if !s.write() {
		t.Fatal("not written")
	}
	got, err := loadConfigs(dir)
	values, ok := got.of("A", wire.ConfigKey{Namespace: "default", Ref: "config/app", Version: 3})
	if err != nil || !ok || string(values["bin"]) != "\xff\x00" {
		t.Errorf("%v, %v", got.values, err)
	}
	if disk := got.keepOnly(saved); disk != nil {
		t.Errorf("written again: %+v", disk)
	}
	if info, err := os.Stat(savedConfigsPath(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(savedConfigsPath(dir), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := loadConfigs(dir); err == nil || len(c.values) != 0 {
		t.Errorf("torn: %v, %v", c.values, err)
	}
}

// A Config that was deleted and made anew begins with version 1 again: what lies on disk
// of the one before goes.
func TestANumberThatIsGivenAnew(t *testing.T) {
	c, saved := newConfigs(), plan.Saved{Incarnation: "i", Assignments: []wire.Assignment{using(web0, 1, 0)}}
	version := func(value string) []wire.ConfigVersion {
		return []wire.ConfigVersion{{ConfigKey: wire.ConfigKey{Namespace: "default", Ref: "config/app", Version: 1}, Values: map[string][]byte{"A": []byte(value)}}}
	}
	for _, step := range []struct {
		value  string
		writes bool
	}{{"old", true}, {"old", false}, {"new", true}, {"new", false}} {
		c.take("i", version(step.value))
		out := c.keepOnly(saved)
		if (out != nil) != step.writes {
			t.Errorf("with %q there is %+v to write, want some: %t", step.value, out, step.writes)
		}
		if out != nil && string(out.Configs[0].Values["A"]) != step.value {
			t.Errorf("on disk goes %+v, want %q", out, step.value)
		}
	}
}
