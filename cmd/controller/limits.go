package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/daemon"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/settings"
)

// limits are the numbers that people may change, as a flag: --limit name=value,
// given several times or with commas between. The zero value has the defaults.
type limits struct {
	liveness liveness.Limits
	budgets  core.Budgets
}

// limitTable is a struct of limits; no two share a name (TestLimitNames).
type limitTable interface {
	Table() []settings.Setting
	Set(name, value string) error
	Validate() error
}

func (l *limits) tables() []limitTable { return []limitTable{&l.liveness, &l.budgets} }

func (l *limits) all() []settings.Setting {
	var out []settings.Setting
	for _, t := range l.tables() {
		out = append(out, t.Table()...)
	}
	return out
}

// addTo makes it a flag.
func (l *limits) addTo(f *pflag.FlagSet) {
	f.Var(l, "limit", "set a limit, as `name=value`; may be repeated; \"controller limits\" lists them")
	daemon.Pairs(f, "limit")
}

// String, Set and Type implement pflag.Value.
func (l *limits) String() string { return "" }

func (l *limits) Type() string { return "name=value" }

func (l *limits) Set(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || name == "" {
			return fmt.Errorf("%q: want name=value, such as dead-after=90s", part)
		}
		if err := l.set(name, value); err != nil {
			return err
		}
	}
	return nil
}

func (l *limits) set(name, value string) error {
	for _, t := range l.tables() {
		if err := t.Set(name, value); !errors.Is(err, settings.ErrUnknown) {
			return err
		}
	}
	hint := ""
	if near := l.near(name); len(near) > 0 {
		hint = fmt.Sprintf("did you mean %s? ", strings.Join(near, ", "))
	}
	return fmt.Errorf("there is no limit %q: %s`controller limits` lists them", name, hint)
}

// near gives the names that were likely meant.
func (l *limits) near(name string) []string {
	var names []string
	for _, s := range l.all() {
		names = append(names, s.Name)
	}
	return daemon.Near(name, names)
}

// check tells whether all limits make sense together.
func (l *limits) check() error {
	var problems []error
	for _, t := range l.tables() {
		problems = append(problems, t.Validate())
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("--limit: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil
}

// limitRow is one limit as `controller limits` shows it.
type limitRow struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Default string `json:"default"`
	Unit    string `json:"unit"`
	What    string `json:"what"`
}

func (l *limits) rows() []limitRow {
	before := map[string]string{}
	for _, s := range (&limits{}).all() {
		before[s.Name] = plain(s.Value())
	}
	var out []limitRow
	for _, s := range l.all() {
		out = append(out, limitRow{s.Name, plain(s.Value()), before[s.Name], unit(s.Value()), s.What})
	}
	return out
}

// changed gives the limits that are not the defaults: "dead-after=90s".
func (l *limits) changed() []string {
	var out []string
	for _, r := range l.rows() {
		if r.Value != r.Default {
			out = append(out, r.Name+"="+r.Value)
		}
	}
	return out
}

// plain leaves out a duration's zero tail: "1m", not "1m0s".
func plain(value string) string {
	if text, ok := strings.CutSuffix(value, "m0s"); ok {
		value = text + "m"
	}
	if text, ok := strings.CutSuffix(value, "h0m"); ok {
		value = text + "h"
	}
	return value
}

// unit says how a value is to be read and written.
func unit(value string) string {
	if strings.HasSuffix(value, "%") {
		return "share"
	}
	if _, err := time.ParseDuration(value); err == nil {
		return "time"
	}
	return "number"
}

// limitsCommand prints them.
func limitsCommand() *cobra.Command {
	l, output := &limits{}, ""
	cmd := &cobra.Command{
		Use:   "limits",
		Short: "List the limits that --limit sets, with their values",
		Long: `List the limits that --limit sets, with their values and what they are for.
With --limit (or ` + daemon.EnvPrefix + `LIMIT), the values that a controller would have; it fails
where they make no sense together.`,
		Example: `  controller limits
  controller limits --limit dead-after=90s,beat-every=200ms`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := l.check(); err != nil {
				return daemon.Usagef("%w", err)
			}
			switch output {
			case "":
				return printLimits(cmd.OutOrStdout(), l.rows())
			case "json":
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(l.rows())
			}
			return daemon.Usagef("-o %s: want json, or nothing for a table", output)
		},
	}
	daemon.Prepare(cmd, os.LookupEnv)
	l.addTo(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table")
	return cmd
}

func printLimits(out io.Writer, rows []limitRow) error {
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tVALUE\tDEFAULT\tUNIT\tWHAT")
	for _, r := range rows {
		same := ""
		if r.Value == r.Default {
			same = "same"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Name, r.Value, cmp.Or(same, r.Default), r.Unit, r.What)
	}
	return w.Flush()
}
