// Package report writes down what the benchmarks measured, in one form: a line
// of JSON for machines and a row beside the aim for people.
//
// It owns the files out/bench/<program>.jsonl. Invariant: a figure that was
// added is in the file, even if a later measurement fails; the file holds the
// figures of one run only.
//
//	samples ──► Of ──► Figure ──► Book.Add ──► out/bench/fleet.jsonl
//	                                      └──► failover.replaced  s  10  1.10 ... aim
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Figure is one line of out/bench.
type Figure struct {
	Name string `json:"name"`
	// Unit is s, ms, MB, MB/s, 1/s, % or 1 (a count or a ratio).
	Unit string `json:"unit"`
	// N is how many samples the rest is taken from.
	N      int     `json:"n"`
	Median float64 `json:"median"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
	// Load is the first value of /proc/loadavg before the measurement: how
	// busy the machine was with other things.
	Load float64 `json:"load"`
}

// ErrNoSamples is wrapped where a figure would rest on nothing.
var ErrNoSamples = errors.New("no samples")

// Of makes a figure from samples, which it leaves as they are.
func Of(name, unit string, samples []float64, load float64) (Figure, error) {
	if len(samples) == 0 {
		return Figure{}, fmt.Errorf("figure %s: %w", name, ErrNoSamples)
	}
	s := slices.Sorted(slices.Values(samples))
	return Figure{Name: name, Unit: unit, N: len(s), Median: rank(s, 50), P99: rank(s, 99), Max: s[len(s)-1], Load: load}, nil
}

// rank gives the value that the share p (in %) of the sorted values does not exceed.
func rank(sorted []float64, p int) float64 {
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// Aim is what a figure's median is held against. The zero value aims at nothing.
type Aim struct {
	Limit float64
	// Kind is "most" or "least"; anything else is no aim.
	Kind string
	// Beside says what others reach, as we measured it.
	Beside string
	// Max is what the largest sample must not exceed; 0: anything goes.
	Max float64
}

// AtMost and AtLeast make aims; beside may be empty.
func AtMost(limit float64, beside string) Aim {
	return Aim{Limit: limit, Kind: "most", Beside: beside}
}

// AtLeast: see AtMost.
func AtLeast(limit float64, beside string) Aim {
	return Aim{Limit: limit, Kind: "least", Beside: beside}
}

// AndMax aims at the largest sample too.
func (a Aim) AndMax(limit float64) Aim {
	a.Max = limit
	return a
}

// Met tells whether a figure reaches the aim; no aim is always met.
func (a Aim) Met(f Figure) bool {
	switch {
	case a.Max > 0 && f.Max > a.Max:
		return false
	case a.Kind == "most":
		return f.Median <= a.Limit
	case a.Kind == "least":
		return f.Median >= a.Limit
	}
	return true
}

func (a Aim) String() string {
	var words []string
	if a.Kind == "most" || a.Kind == "least" {
		words = append(words, "aim at "+a.Kind+" "+number(a.Limit))
	}
	if a.Max > 0 {
		words = append(words, "none above "+number(a.Max))
	}
	if a.Beside != "" {
		words = append(words, a.Beside)
	}
	return strings.Join(words, "; ")
}

// Book takes the figures of one program.
type Book struct {
	file   *os.File
	out    io.Writer
	missed []string
}

// Open starts the book of a program: dir/program.jsonl anew, rows to out.
func Open(dir, program string, out io.Writer) (*Book, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open figures of %s: %w", program, err)
	}
	f, err := os.Create(filepath.Join(dir, program+".jsonl"))
	if err != nil {
		return nil, fmt.Errorf("open figures of %s: %w", program, err)
	}
	return &Book{file: f, out: out}, nil
}

const row = "%-24s %-4s %4s %10s %10s %10s %6s  %s\n"

// Header prints what the columns of the rows are.
func (b *Book) Header() error {
	_, err := fmt.Fprintf(b.out, row, "FIGURE", "UNIT", "N", "MEDIAN", "P99", "MAX", "LOAD", "AIM (OF THE MEDIAN)")
	return err
}

// Add writes a figure down and prints its row.
func (b *Book) Add(f Figure, aim Aim) error {
	line, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("write figure %s: %w", f.Name, err)
	}
	if _, err := b.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write figure %s: %w", f.Name, err)
	}
	note := aim.String()
	if !aim.Met(f) {
		b.missed = append(b.missed, f.Name)
		note = "MISSED: " + note
	}
	_, err = fmt.Fprintf(b.out, row, f.Name, f.Unit, strconv.Itoa(f.N), number(f.Median), number(f.P99), number(f.Max), number(f.Load), note)
	return err
}

// Missed names the figures whose aims were not reached, in order.
func (b *Book) Missed() []string { return b.missed }

// Close ends the book.
func (b *Book) Close() error { return b.file.Close() }

// number prints three digits or so: more are noise.
func number(v float64) string {
	switch {
	case v == float64(int64(v)):
		return strconv.FormatInt(int64(v), 10)
	case v >= 1000 || v <= -1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 100 || v <= -100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// Load gives the first value of /proc/loadavg: processes that wanted to run,
// over the last minute.
func Load() (float64, error) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, fmt.Errorf("read the machine's load: %w", err)
	}
	first, _, _ := strings.Cut(string(b), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0, fmt.Errorf("read the machine's load: %w", err)
	}
	return load, nil
}
