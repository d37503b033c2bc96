package preflight

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Level is how much a finding matters.
type Level string

// The levels. Fail means that orch does not work, or not as it promises.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "FAIL"
)

// Finding is what was found of one thing.
type Finding struct {
	Check  string `json:"check"` // "clock"
	Level  Level  `json:"level"`
	What   string `json:"what"`
	Remedy string `json:"remedy,omitempty"` // empty only where Level is OK
	// Hard says of a failed one that the daemon cannot even start.
	Hard bool `json:"hard,omitempty"`
}

// Report is the findings in the order in which they are shown.
type Report []Finding

func (r *Report) ok(check, format string, args ...any) {
	*r = append(*r, Finding{Check: check, Level: OK, What: fmt.Sprintf(format, args...)})
}

func (r *Report) warn(check, what, remedy string) {
	*r = append(*r, Finding{Check: check, Level: Warn, What: what, Remedy: remedy})
}

func (r *Report) fail(check, what, remedy string) {
	*r = append(*r, Finding{Check: check, Level: Fail, What: what, Remedy: remedy})
}

func (r *Report) hard(check, what, remedy string) {
	*r = append(*r, Finding{Check: check, Level: Fail, What: what, Remedy: remedy, Hard: true})
}

// Failed tells whether anything is FAIL.
func (r Report) Failed() bool {
	for _, f := range r {
		if f.Level == Fail {
			return true
		}
	}
	return false
}

// String is "cgroups: no cpu controller: boot with ...".
func (f Finding) String() string {
	if f.Remedy == "" {
		return f.Check + ": " + f.What
	}
	return f.Check + ": " + f.What + ": " + f.Remedy
}

// Err has what keeps a daemon from starting, nil if nothing does.
func (r Report) Err() error {
	var all []error
	for _, f := range r {
		if f.Hard {
			all = append(all, errors.New(f.String()))
		}
	}
	return errors.Join(all...)
}

// Print writes the report as a table (format "") or JSON, and gives an error that
// says how many checks failed, if any did.
func (r Report) Print(out io.Writer, format string) error {
	write := r.WriteTable
	if format == "json" {
		write = r.WriteJSON
	}
	if err := write(out); err != nil {
		return err
	}
	if r.Failed() {
		return errors.New(r.Summary())
	}
	if format == "" {
		fmt.Fprintln(out, r.Summary())
	}
	return nil
}

// WriteTable prints the report for people, a remedy below what it mends.
func (r Report) WriteTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	for _, f := range r {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Level, f.Check, f.What)
		if f.Remedy != "" {
			fmt.Fprintf(w, "\t\t%s\n", "-> "+f.Remedy)
		}
	}
	return w.Flush()
}

// WriteJSON prints the report as a list of findings.
func (r Report) WriteJSON(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Summary is "2 of 14 failed, 1 warning".
func (r Report) Summary() string {
	count := map[Level]int{}
	for _, f := range r {
		count[f.Level]++
	}
	words := []string{fmt.Sprintf("%d of %d failed", count[Fail], len(r))}
	if count[Fail] == 0 {
		words = []string{fmt.Sprintf("%d checks, none failed", len(r))}
	}
	switch count[Warn] {
	case 0:
	case 1:
		words = append(words, "1 warning")
	default:
		words = append(words, fmt.Sprintf("%d warnings", count[Warn]))
	}
	return strings.Join(words, ", ")
}
