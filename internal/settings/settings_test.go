package settings

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// limits is a struct as those that use this package are.
type limits struct {
	wait  time.Duration
	max   int
	part  float64
	ratio float64
}

func (l *limits) settings() []Setting {
	return []Setting{
		Duration("wait", &l.wait, "how long"),
		Count("max", &l.max, "how many"),
		Share("part", &l.part, "how much of it"),
		Number("ratio", &l.ratio, "how much more"),
	}
}

func TestSet(t *testing.T) {
	for _, x := range []struct {
		name, value string
		want        string // what Value gives then; or a part of the error
	}{
		{"wait", "1500ms", "1.5s"},
		{"wait", "2m", "2m0s"},
		{"wait", "5", "duration"},
		{"wait", "-1s", "duration"},
		{"wait", "0s", "duration"},
		{"max", "7", "7"},
		{"max", "0", "whole number"},
		{"max", "1.5", "whole number"},
		{"part", "20%", "20%"},
		{"part", "0.125", "12.5%"},
		{"part", "7%", "7%"},
		{"part", "100%", "100%"},
		{"part", "101%", "share"},
		{"part", "1.01", "share"},
		{"part", "%", "share"},
		{"part", "NaN", "share"},
		{"ratio", "2.5", "2.5"},
		{"ratio", "Inf", "number"},
		{"ratio", "-1", "number"},
		{"colour", "red", "no such limit"},
	} {
		l := limits{wait: time.Second, max: 1, part: 0.5, ratio: 1}
		before := l
		err := Set(l.settings(), x.name, x.value)
		if err != nil {
			if !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), x.name) {
				t.Errorf("%s=%s: %v, want %q in it", x.name, x.value, err, x.want)
			}
			if errors.Is(err, ErrUnknown) != (x.name == "colour") {
				t.Errorf("%s=%s: %v, ErrUnknown: %v", x.name, x.value, err, errors.Is(err, ErrUnknown))
			}
			if l != before {
				t.Errorf("%s=%s: refused, but %v became %v", x.name, x.value, before, l)
			}
			continue
		}
		got := ""
		for _, s := range l.settings() {
			if s.Name == x.name {
				got = s.Value()
			}
		}
		if got != x.want {
			t.Errorf("%s=%s: value is %q, want %q", x.name, x.value, got, x.want)
		}
		// A value set again changes nothing.
		after := l
		if err := Set(l.settings(), x.name, got); err != nil || l != after {
			t.Errorf("%s=%s again: %v, %v became %v", x.name, got, err, after, l)
		}
	}
}

func TestCheck(t *testing.T) {
	good := limits{wait: time.Second, max: 1, part: 1, ratio: 0.1}
	if err := Check(good.settings()); err != nil {
		t.Error(err)
	}
	bad := limits{wait: -1, max: 1, part: 1.5}
	err := Check(bad.settings())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"limit wait is -1ns", "limit part is 150%", "limit ratio is 0"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q in it", err, want)
		}
	}
}
