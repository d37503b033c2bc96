package initspec

import (
	"path/filepath"
	"reflect"
	"testing"
)

func TestStateLine(t *testing.T) {
	for _, s := range []State{
		{Name: "agent"},
		{Name: "agent", Pid: 12},
		{Name: "agent", Ended: "exit 1"},
	} {
		if got, err := ParseState(s.String()); err != nil || got != s {
			t.Errorf("%q read as %+v, %v", s.String(), got, err)
		}
	}
	for _, bad := range []string{"", "agent", "agent x"} {
		if got, err := ParseState(bad); err == nil {
			t.Errorf("%q read as %+v", bad, got)
		}
	}
}

func TestSpecFile(t *testing.T) {
	want := &Spec{
		Hostname: "n1", Socket: "/s", Cgroups: []string{"/c"}, VarLib: "/v", Keep: []string{"/k"},
		Programs: []Program{{Name: "agent", Args: []string{"/a", "b c"}, Env: []string{"X=1"}, Log: "/l", OOMScore: -900}},
	}
	path := filepath.Join(t.TempDir(), "spec.json")
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(path); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}
