package controller

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/internal/boottime"
)

func TestSleepIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, suspended := time.Now(), time.Duration(0)
		s := newSleep(func() time.Duration { return time.Hour + time.Since(began) + suspended })
		expect := func(want time.Duration) {
			t.Helper()
			if got := s.slept(); got != want {
				t.Errorf("slept %s, want %s", got, want)
			}
		}
		expect(0)
		time.Sleep(10 * time.Second)
		expect(0)
		suspended = 3 * time.Second
		expect(3 * time.Second)
		expect(0)
		suspended += sleptMin - 1
		expect(0)
		suspended++
		expect(sleptMin)
	})
	if newSleep(nil).slept() != 0 {
		t.Error("slept though nobody looks")
	}
}

func TestSinceBootGoesOn(t *testing.T) {
	a := boottime.Now()
	if b := boottime.Now(); a <= 0 || b < a || b > a+time.Minute {
		t.Errorf("%s, then %s", a, b)
	}
	if s := newSleep(boottime.Now); s.slept() != 0 {
		t.Error("this machine was not suspended")
	}
}
