package report

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func upTo(n int) []float64 {
	var s []float64
	for i := n; i > 0; i-- {
		s = append(s, float64(i))
	}
	return s
}

func TestOf(t *testing.T) {
	for _, c := range []struct {
		samples          []float64
		median, p99, max float64
	}{
		{[]float64{7}, 7, 7, 7},
		{[]float64{3, 1, 2}, 2, 3, 3},
		{upTo(10), 5, 10, 10},
		{upTo(200), 100, 198, 200},
	} {
		given := slices.Clone(c.samples)
		f, err := Of("x", "s", c.samples, 0.5)
		want := Figure{Name: "x", Unit: "s", N: len(c.samples), Median: c.median, P99: c.p99, Max: c.max, Load: 0.5}
		if err != nil || f != want {
			t.Errorf("Of %d samples: %+v, %v; want %+v", len(c.samples), f, err, want)
		}
		if !slices.Equal(given, c.samples) {
			t.Errorf("Of changed its samples: %v", c.samples)
		}
	}
	if _, err := Of("x", "s", nil, 0); !errors.Is(err, ErrNoSamples) {
		t.Errorf("Of nothing: %v, want ErrNoSamples", err)
	}
}

func TestBook(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "p.jsonl"), []byte("of an earlier run\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	b, err := Open(dir, "p", &out)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		figure Figure
		aim    Aim
	}{
		{Figure{Name: "good", Unit: "s", N: 2, Median: 0.25, P99: 1, Max: 1}, AtMost(0.3, "Swarm 5.5")},
		{Figure{Name: "slow", Unit: "s", N: 1, Median: 0.31}, AtMost(0.3, "")},
		{Figure{Name: "few", Unit: "1/s", N: 1, Median: 99_000}, AtLeast(100_000, "")},
		{Figure{Name: "free", Unit: "%", N: 1, Median: 1e9}, Aim{}},
	} {
		if err := b.Add(f.figure, f.aim); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, "p.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	const first = `{"name":"good","unit":"s","n":2,"median":0.25,"p99":1,"max":1,"load":0}` + "\n"
	if got := string(file); !strings.HasPrefix(got, first) || strings.Count(got, "\n") != 4 {
		t.Errorf("file:\n%s\nwant four lines, the first:\n%s", got, first)
	}
	if got, want := b.Missed(), []string{"slow", "few"}; !slices.Equal(got, want) {
		t.Errorf("missed %v, want %v", got, want)
	}
	if !strings.Contains(out.String(), "aim at most 0.30; Swarm 5.5") || strings.Count(out.String(), "MISSED") != 2 {
		t.Errorf("rows:\n%s", out.String())
	}
}
