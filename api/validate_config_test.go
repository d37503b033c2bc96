package api

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func configOf(kind string, data map[string]string, binary map[string][]byte) *Config {
	return &Config{TypeMeta: TypeMeta{Version, kind}, Metadata: Metadata{Name: "app"}, Data: data, BinaryData: binary}
}

// TestValidateConfig covers what a manifest's own table (manifests/testdata/broken)
// cannot write down, or not in a file of decent size.
func TestValidateConfig(t *testing.T) {
	long := func(n int) map[string]string { return map[string]string{"a": strings.Repeat("x", n)} }
	for name, c := range map[string]struct {
		config *Config
		want   string
	}{
		"empty":          {configOf(KindConfig, nil, nil), ""},
		"empty values":   {configOf(KindSecret, map[string]string{"a": ""}, map[string][]byte{"b": nil}), ""},
		"kind":           {configOf(KindNode, nil, nil), `kind: want "Config", but found "Node"`},
		"no kind":        {configOf("", nil, nil), ""},
		"nul":            {configOf(KindConfig, map[string]string{"a": "\x00"}, nil), ""}, // in a file it may be
		"not UTF-8":      {configOf(KindConfig, map[string]string{"a": "\xff"}, nil), "data[a]: is no UTF-8 text: move it to binaryData, in base64"},
		"just fits":      {configOf(KindConfig, long(MaxConfigBytes), nil), ""},
		"large":          {configOf(KindConfig, long(MaxConfigBytes+1), nil), "data: all values together have 500001 bytes: at most 500000 are allowed; split the config, or put large files into the image or a volume"},
		"large together": {configOf(KindSecret, long(MaxConfigBytes), map[string][]byte{"b": {0}}), "split the secret"},
		"large binary":   {configOf(KindConfig, nil, map[string][]byte{"b": make([]byte, MaxConfigBytes)}), ""}, // four thirds of it are stored
		"large stored":   {configOf(KindConfig, map[string]string{"a": strings.Repeat("\x01", MaxConfigBytes/2)}, nil), "control characters"},
		"large notes":    {&Config{Metadata: Metadata{Name: "app", Annotations: long(maxConfigJSON)}}, "annotations count"},
		"key fits":       {configOf(KindConfig, map[string]string{strings.Repeat("k", MaxConfigKey): ""}, nil), ""},
		"key line":       {configOf(KindConfig, map[string]string{"a\n": ""}, nil), "is not a key"},
		"dots":           {configOf(KindConfig, map[string]string{"...": "", ".a": ""}, nil), ""},
	} {
		t.Run(name, func(t *testing.T) {
			switch got := Validate(c.config).Err(); {
			case c.want == "" && got != nil:
				t.Errorf("refused: %v", got)
			case c.want != "" && (got == nil || !strings.Contains(got.Error(), c.want)):
				t.Errorf("got %v, want %s", got, c.want)
			}
			once := overWire(t, c.config)
			if again := overWire(t, once); !reflect.DeepEqual(again, once) {
				t.Errorf("Default is not idempotent: %+v\n%+v", again, once)
			}
		})
	}
}

// overWire gives what comes of the object after Default and by JSON, which has to be
// the same.
func overWire[T any, P interface {
	*T
	Object
}](t *testing.T, o P) P {
	t.Helper()
	copied := *o
	P(&copied).Default()
	text, err := json.Marshal(&copied)
	if err != nil {
		t.Fatal(err)
	}
	back := new(T)
	if err := json.Unmarshal(text, back); err != nil {
		t.Fatal(err)
	}
	if strings.ToValidUTF8(string(text), "") == string(text) && !strings.Contains(string(text), `\ufffd`) && !reflect.DeepEqual(back, &copied) {
		t.Errorf("over the wire:\n%+v\n%+v", back, &copied)
	}
	return back
}

// FuzzConfigKey: what is taken is the name of one file in a folder.
func FuzzConfigKey(f *testing.F) {
	for _, s := range []string{"a", "..", "a/b", "tls.key", "", "-", "a b", "ä"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if configKeyProblem(key) == "" && (key == "" || key == "." || key == ".." || len(key) > 255 || strings.ContainsAny(key, "/\x00 \n")) {
			t.Errorf("%q was taken", key)
		}
	})
}

// taking is a service that takes values in every way.
func taking() *Service {
	return &Service{Metadata: Metadata{Name: "web"}, Spec: ServiceSpec{Template: Template{Containers: []Container{{
		Name: "main", Image: "web",
		EnvFrom: []EnvFrom{{Config: "app"}, {Secret: "db", Prefix: "DB_"}},
		Env: []EnvVar{{Name: "A", ValueFrom: &EnvSource{Config: &KeyRef{"app", "a"}}}, {Name: "B", ValueFrom: &EnvSource{Secret: &KeyRef{"db", "b"}}},
			{Name: "C", ValueFrom: &EnvSource{Field: FieldName}}},
		Mounts: []Mount{{Path: "/etc/app", Config: "app"}, {Path: "/run/db", Secret: "db", Mode: "400", ReadOnly: true}, {Path: "/run/key", Secret: "db", Key: "b", Mode: "0600"},
			{Path: "/data", Volume: "data"}, {Path: "/log", Volume: "log", ReadOnly: true}},
	}}}}}
}

func TestValuesAndVolumes(t *testing.T) {
	s := taking()
	before, _ := json.Marshal(s)
	shared := *s
	shared.Spec.Containers = slices.Clone(s.Spec.Containers)
	shared.Default()
	if after, _ := json.Marshal(s); string(after) != string(before) {
		t.Errorf("Default wrote into the other's mounts:\n%s\n%s", before, after)
	}
	s = overWire(t, s)
	if v := Validate(s); v != nil {
		t.Fatalf("refused: %v", v)
	}
	mounts := s.Spec.Containers[0].Mounts
	want := []Mount{{Path: "/etc/app", Config: "app", Mode: "0444"}, {Path: "/run/db", Secret: "db", Mode: "0400"}, {Path: "/run/key", Secret: "db", Key: "b", Mode: "0600"},
		{Path: "/data", Volume: "data"}, {Path: "/log", Volume: "log", ReadOnly: true}}
	if !reflect.DeepEqual(mounts, want) {
		t.Errorf("got %+v\nwant %+v", mounts, want)
	}
	if refs := s.Spec.ConfigRefs(); !slices.Equal(refs, []ConfigRef{"config/app", "secret/db"}) {
		t.Errorf("takes %v", refs)
	}
	if got := s.Spec.Template.Volumes(); !slices.Equal(got, []string{"data", "log"}) {
		t.Errorf("volumes %v", got)
	}
	var where []string
	for _, u := range s.Spec.ConfigUses() {
		where = append(where, u.Ref.String()+": "+u.Where)
		if u.Variables != strings.HasSuffix(u.Where, "envFrom") {
			t.Errorf("%+v", u)
		}
	}
	if !slices.Contains(where, "secret db: container main, env B") || len(where) != 7 {
		t.Errorf("uses %q", where)
	}
}

func TestFileMode(t *testing.T) {
	for mode, good := range map[string]bool{"": true, "0444": true, "400": true, "0000": true, "777": true, "0777": true, "1777": false, "0888": false, "7": false, "04444": false, "0x1ff": false, "0o400": false, "-400": false, "u=r": false, "400\n": false} {
		if why := modeProblem(mode); (why == "") != good {
			t.Errorf("mode %q: %q", mode, why)
		}
	}
}

// TestVolumeBounds: a slot's volumes are one replica's, written or not.
func TestVolumeBounds(t *testing.T) {
	with := func(r Rollout) *Service {
		s := taking()
		s.Spec.Rollout = r
		return s
	}
	for name, c := range map[string]struct {
		rollout         Rollout
		n, surge, fewer int
		want            string
	}{
		"usual":             {Rollout{}, 10, 0, 2, ""},
		"one":               {Rollout{}, 1, 0, 1, ""},
		"stop first":        {Rollout{Order: OrderStopFirst}, 10, 0, 2, ""},
		"told":              {Rollout{MaxUnavailable: Count(5)}, 10, 0, 5, ""},
		"no surge told":     {Rollout{MaxSurge: Count(0), MaxUnavailable: Count(1)}, 10, 0, 1, ""},
		"recreate":          {Rollout{Strategy: StrategyRecreate}, 10, 0, 10, ""},
		"surge":             {Rollout{MaxSurge: Count(3)}, 10, 0, 2, "spec.rollout.maxSurge: is 3, but a service with volumes has one replica for each slot"},
		"surge share":       {Rollout{MaxSurge: Percent(1)}, 10, 0, 2, "spec.rollout.maxSurge: is 1%"},
		"start first":       {Rollout{Order: OrderStartFirst}, 10, 0, 2, "spec.rollout.order: is startFirst, but two replicas of a slot"},
		"none may be fewer": {Rollout{MaxUnavailable: Count(0)}, 10, 0, 1, "spec.rollout.maxUnavailable: is 0, and a service with volumes has no surge"},
	} {
		s := with(c.rollout)
		if surge, fewer := s.Spec.Surge(c.n), s.Spec.Unavailable(c.n); surge != c.surge || fewer != c.fewer {
			t.Errorf("%s: %d more and %d fewer, want %d and %d", name, surge, fewer, c.surge, c.fewer)
		}
		switch got := Validate(s).Err(); {
		case c.want == "" && got != nil:
			t.Errorf("%s: refused: %v", name, got)
		case c.want != "" && (got == nil || !strings.Contains(got.Error(), c.want)):
			t.Errorf("%s: got %v, want %s", name, got, c.want)
		case c.want == "":
			s.Default()
			if v := Validate(s); v != nil {
				t.Errorf("%s: refused after Default: %v", name, v)
			}
		}
	}
	global := taking()
	global.Spec.Mode = ModeGlobal
	alone := taking()
	alone.Spec.Exclusive = true
	for _, s := range []*Service{global, alone} {
		if s.Default(); Validate(s) != nil {
			t.Errorf("refused: %v", Validate(s))
		}
	}
}
