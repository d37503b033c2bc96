package settings

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ErrUnknown is what Set answers to a name that is none of its settings, so
// that a caller with several tables can try the next one.
var ErrUnknown = errors.New("no such limit")

// Setting is one limit by its name, bound to the field that holds it.
type Setting struct {
	// Name is in words with hyphens: "beat-every".
	Name string
	// What the limit is, and why it is what it is.
	What string

	text func() string
	set  func(string) error
}

// Value is the setting's value as Set takes it: "100ms", "3", "20%".
func (s Setting) Value() string { return s.text() }

// Duration binds a length of time; it must be more than zero.
func Duration(name string, at *time.Duration, what string) Setting {
	return Setting{name, what, func() string { return at.String() }, func(text string) error {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return errors.New(`want a duration above zero, such as "250ms" or "2m"`)
		}
		*at = d
		return nil
	}}
}

// Count binds a whole number; it must be more than zero.
func Count(name string, at *int, what string) Setting {
	return Setting{name, what, func() string { return strconv.Itoa(*at) }, func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			return errors.New(`want a whole number above zero, such as "3"`)
		}
		*at = n
		return nil
	}}
}

// Share binds a part of a whole: above 0, at most 1, written as a percentage.
func Share(name string, at *float64, what string) Setting {
	text := func() string { return strconv.FormatFloat(*at*100, 'g', 6, 64) + "%" }
	return Setting{name, what, text, func(text string) error {
		digits, percent := strings.CutSuffix(text, "%")
		f, err := number(digits)
		if percent {
			f /= 100
		}
		if err != nil || f > 1 {
			return errors.New(`want a share above 0 and at most 1, such as "20%" or "0.2"`)
		}
		*at = f
		return nil
	}}
}

// Number binds a number that need not be whole; it must be more than zero.
func Number(name string, at *float64, what string) Setting {
	return Setting{name, what, func() string { return strconv.FormatFloat(*at, 'g', -1, 64) }, func(text string) error {
		f, err := number(text)
		if err != nil {
			return errors.New(`want a number above zero, such as "1.5"`)
		}
		*at = f
		return nil
	}}
}

func number(text string) (float64, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err == nil && (!(f > 0) || math.IsInf(f, 0)) {
		err = strconv.ErrRange
	}
	return f, err
}

// Set gives the setting of that name a value; a bad one changes nothing.
func Set(settings []Setting, name, value string) error {
	for _, s := range settings {
		if s.Name != name {
			continue
		}
		if err := s.set(value); err != nil {
			return fmt.Errorf("set limit %s to %q: %w", name, value, err)
		}
		return nil
	}
	return fmt.Errorf("set limit %q: %w", name, ErrUnknown)
}

// Check tells of every setting whose value could not have been set.
func Check(settings []Setting) error {
	var problems []error
	for _, s := range settings {
		if err := s.set(s.Value()); err != nil {
			problems = append(problems, fmt.Errorf("limit %s is %s: %w", s.Name, s.Value(), err))
		}
	}
	return errors.Join(problems...)
}
