package session

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/wire"
)

func version(ref api.ConfigRef, n int64, payload string) wire.ConfigVersion {
	return wire.ConfigVersion{ConfigKey: wire.ConfigKey{Namespace: "default", Ref: ref, Version: n}, Payload: []byte(payload)}
}

// TestOpened: a node gets values and no payloads; what cannot be opened, or is too much,
// is left out and said.
func TestOpened(t *testing.T) {
	var log bytes.Buffer
	large := strings.Repeat("x", wire.ConfigsMax/2)
	s := &Server{cfg: Config{Log: slog.New(slog.NewTextHandler(&log, nil)), OpenConfig: func(v wire.ConfigVersion) (map[string][]byte, error) {
		switch p := string(v.Payload); p {
		case "broken":
			return nil, errors.New("it is damaged")
		case "large":
			return map[string][]byte{"k": []byte(large)}, nil
		default:
			return map[string][]byte{"k": []byte("opened " + p)}, nil
		}
	}}}
	set := wire.AssignmentSet{Complete: true, Sequence: 7, Configs: []wire.ConfigVersion{version("config/a", 1, "one"), version("secret/b", 2, "broken"),
		version("config/c", 1, "large"), version("config/d", 1, "large"), version("secret/e", 3, "two")}}
	got := s.opened(core.SendAssignments{Node: "n1", Set: set})
	names := ""
	for _, v := range got.Configs {
		names += fmt.Sprintf("%s@%d:%.10s ", string(v.Ref), v.Version, v.Values["k"])
		if v.Payload != nil {
			t.Errorf("%s goes with its payload", v.Ref)
		}
	}
	if want := "config/a@1:opened one config/c@1:xxxxxxxxxx secret/e@3:opened two "; names != want {
		t.Errorf("got %s, want %s", names, want)
	}
	if !got.Complete || got.Sequence != 7 {
		t.Errorf("the rest of the set is lost: %+v", got)
	}
	for i, v := range set.Configs {
		if v.Values != nil || len(v.Payload) == 0 {
			t.Errorf("config %d of the core's own set was changed", i)
		}
	}
	for _, want := range []string{"config=\"secret default/b version 2\"", "it is damaged", "config=\"config default/d version 1\"", "too many for one node", "node=n1"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q: %s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "opened") || strings.Contains(log.String(), "xxx") {
		t.Errorf("the log shows values: %.500s", log.String())
	}
	// What is opened fits into one message.
	pb, err := got.ToPB()
	if err != nil || len(pb.GetConfigs()) != 3 || len(pb.GetConfigs()[1].GetValues()["k"]) != len(large) {
		t.Errorf("as it is sent: %d configs, %v", len(pb.GetConfigs()), err)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", got.Configs, got.Configs, got.Configs, got.Configs[0]); strings.Contains(text, "opened") || strings.Contains(text, "xxx") || !strings.Contains(text, "config default/a version 1") {
		t.Errorf("a print shows values: %.500s", text)
	}
}

func TestVolumesGone(t *testing.T) {
	good := api.VolumeKey{Namespace: "default", Service: "web", Slot: 3, Volume: "data"}
	long := good
	long.Volume = strings.Repeat("x", wordBytes+1)
	negative := good
	negative.Slot = -1
	for _, c := range []struct {
		name string
		gone []api.VolumeKey
		want string
	}{
		{"one", []api.VolumeKey{good}, ""},
		{"a long name", []api.VolumeKey{good, long}, "there is no volume"},
		{"no slot", []api.VolumeKey{negative}, "there is no volume"},
		{"too many", make([]api.VolumeKey, volumesMax+1), "at most"},
	} {
		err := checkReport(&wire.StatusReport{VolumesGone: c.gone})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
