package ctrd

import (
	"math"
	"reflect"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/orchctl/orch/api"
)

func healthcheck(retries int, interval, timeout, startPeriod time.Duration, command ...string) *Healthcheck {
	i, o := api.Duration(interval), api.Duration(timeout)
	return &Healthcheck{StartPeriod: startPeriod, Probe: api.Probe{Exec: &api.ExecProbe{Command: command}, Interval: &i, Timeout: &o, FailureThreshold: retries}}
}

func TestHealthcheckOf(t *testing.T) {
	for _, c := range []struct {
		name  string
		image *healthConfig
		shell []string
		want  *Healthcheck
	}{
		{"none", nil, nil, nil},
		{"NONE", &healthConfig{Test: []string{"NONE"}}, nil, nil},
		{"inherited", &healthConfig{Interval: time.Second}, nil, nil},
		{"of the future", &healthConfig{Test: []string{"HTTP", "/"}}, nil, nil},
		{"command", &healthConfig{Test: []string{"CMD", "check", "-q"}}, nil, healthcheck(3, 30*time.Second, 30*time.Second, 0, "check", "-q")},
		{"shell", &healthConfig{Test: []string{"CMD-SHELL", "a || b"}, Retries: 5, Interval: time.Second, Timeout: 2 * time.Second, StartPeriod: time.Minute}, nil,
			healthcheck(5, time.Second, 2*time.Second, time.Minute, "/bin/sh", "-c", "a || b")},
		{"the image's shell", &healthConfig{Test: []string{"CMD-SHELL", "a"}}, []string{"/bin/bash", "-ec"}, healthcheck(3, 30*time.Second, 30*time.Second, 0, "/bin/bash", "-ec", "a")},
		{"too often", &healthConfig{Test: []string{"CMD", "check"}, Interval: 1, Timeout: 1, Retries: 1e9}, nil, healthcheck(api.MaxThreshold, api.MinProbeInterval, api.MinProbeInterval, 0, "check")},
		{"never", &healthConfig{Test: []string{"CMD", "check"}, StartPeriod: math.MaxInt64}, nil, healthcheck(3, 30*time.Second, 30*time.Second, 24*time.Hour, "check")},
	} {
		if got := healthcheckOf(c.image, c.shell); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestHealthcheckIsTold by the start, by every look at the container, and when its
// image is gone.
func TestHealthcheckIsTold(t *testing.T) {
	const ref = "orch.test/health:1"
	cfg := v1Config("wait=0")
	cfg.Healthcheck = &v1.HealthConfig{Test: []string{"CMD", "/probe", "exit=0"}, Interval: 5 * time.Second, StartPeriod: 7 * time.Second}
	image, err := pack(cfg)
	if err == nil {
		err = load(ref, image)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := spec()
	s.Container.Image = ref
	o := start(t, s)
	want := healthcheck(3, 5*time.Second, 30*time.Second, 7*time.Second, "/probe", "exit=0")
	if !reflect.DeepEqual(o.Healthcheck, want) {
		t.Errorf("started %+v, want %+v", o.Healthcheck, want)
	}
	if err := env.r.client.ImageService().Delete(env.r.in(t.Context()), ref); err != nil {
		t.Fatal(err)
	}
	if got := observe(t, o.ID).Healthcheck; !reflect.DeepEqual(got, want) {
		t.Errorf("listed %+v, want %+v", got, want)
	}
	if again, err := env.r.Start(t.Context(), s); err != nil || !reflect.DeepEqual(again, o) {
		t.Errorf("adopted %+v, %v\nstarted %+v", again, err, o)
	}
	if o := start(t, spec("exit=0")); o.Healthcheck != nil {
		t.Errorf("without one: %+v", o.Healthcheck)
	}
}
