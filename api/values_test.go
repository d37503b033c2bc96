package api

import (
	"encoding/json"
	"testing"
	"time"
)

func TestQuantity(t *testing.T) {
	for text, want := range map[string]Quantity{
		"0": 0, "1": 1000, "500m": 500, "1.5": 1500, ".5": 500, "2.": 2000, "1k": Whole(1000), "1Ki": Whole(1024),
		"512Mi": Whole(512 << 20), "1.5Gi": Whole(3 << 29), "4G": Whole(4e9), "0.001": 1, "8Pi": Whole(8 << 50),
	} {
		got, err := ParseQuantity(text)
		if err != nil || got != want {
			t.Errorf("ParseQuantity(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "m", "-1", "+1", "1e3", "1/2", "0x10", "1 Gi", "1gi", "1MB", "0.0001", "1.5m", "9Pi1", "9223372036854775807", "1_000", "٣", ".", "1.2.3"} {
		if got, err := ParseQuantity(text); err == nil {
			t.Errorf("ParseQuantity(%q) = %s, want an error", text, got)
		}
	}
	for q, want := range map[Quantity]string{0: "0", 500: "500m", 2000: "2", Whole(2000): "2000", Whole(1 << 30): "1Gi", Whole(1536 << 20): "1536Mi", Whole(5e6): "5M", MaxQuantity: "9223372036854775807m"} {
		if q.String() != want {
			t.Errorf("%d prints %s, want %s", int64(q), q, want)
		}
	}
	if v := Quantity(1001).Value(); v != 2 {
		t.Errorf("1001m is %d whole, want 2", v)
	}
}

func FuzzQuantity(f *testing.F) {
	for _, s := range []string{"1", "500m", "1.5Gi", "0.001", "9Pi", "1e3", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := ParseQuantity(s)
		if err != nil {
			return
		}
		if again, err := ParseQuantity(q.String()); q < 0 || err != nil || again != q {
			t.Errorf("%q is %d, prints %s, reads back %d, %v", s, q, q, again, err)
		}
	})
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", time.Second: "1s", time.Minute: "1m", 90 * time.Second: "1m30s", time.Hour: "1h", 61 * time.Minute: "1h1m", time.Hour + time.Second: "1h0m1s", 100 * time.Millisecond: "100ms", 10 * time.Minute: "10m", -time.Minute: "-1m"} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%d prints %s, want %s", d, got, want)
		}
		var again Duration
		b, err := json.Marshal(Duration(d))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &again); err != nil || time.Duration(again) != d {
			t.Errorf("%s reads back %s, %v", b, again, err)
		}
	}
}

func TestIntOrPercent(t *testing.T) {
	for _, c := range []struct {
		v        *IntOrPercent
		n        int
		up, down int
	}{{Count(2), 10, 2, 2}, {Percent(25), 4, 1, 1}, {Percent(25), 3, 1, 0}, {Percent(0), 9, 0, 0}, {Percent(100), 7, 7, 7}, {Percent(10), 0, 0, 0}} {
		if up, down := c.v.Of(c.n, true), c.v.Of(c.n, false); up != c.up || down != c.down {
			t.Errorf("%s of %d: %d and %d, want %d and %d", c.v, c.n, up, down, c.up, c.down)
		}
	}
	for text, want := range map[string]IntOrPercent{`2`: *Count(2), `"25%"`: *Percent(25), `-1`: *Count(-1)} {
		var v IntOrPercent
		if err := json.Unmarshal([]byte(text), &v); err != nil || v != want {
			t.Errorf("%s reads %v, %v", text, v, err)
		}
	}
	for _, text := range []string{`"25"`, `2.5`, `"%"`, `[]`, `true`} {
		var v IntOrPercent
		if err := json.Unmarshal([]byte(text), &v); err == nil {
			t.Errorf("%s was taken as %v", text, v)
		}
	}
}
