package api

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Quantity is an amount in thousandths of its unit: cores for cpu, bytes for
// memory, a count for everything else. Its text form is Kubernetes': "500m",
// "2", "1.5", "512Mi", "4G". Zero is "0".
type Quantity int64

// MaxQuantity is the largest amount that fits: about 9.2e15 units.
const MaxQuantity = Quantity(math.MaxInt64)

// Whole makes a Quantity of n whole units.
func Whole(n int64) Quantity { return Quantity(n * 1000) }

// Milli gives the amount in thousandths.
func (q Quantity) Milli() int64 { return int64(q) }

// Value gives whole units, rounded up.
func (q Quantity) Value() int64 {
	v := int64(q) / 1000
	if int64(q)%1000 > 0 {
		v++
	}
	return v
}

// The suffixes, largest first; binary ones before decimal ones so that String
// finds the one that people write for memory.
var suffixes = []struct {
	text   string
	factor int64
}{
	{"Pi", 1 << 50}, {"Ti", 1 << 40}, {"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10},
	{"P", 1e15}, {"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"k", 1e3},
}

// ParseQuantity reads a quantity's text form. Negative amounts, amounts that do
// not fit and fractions finer than a thousandth are errors.
func ParseQuantity(s string) (Quantity, error) {
	num, factor := s, big.NewRat(1000, 1)
	if strings.HasSuffix(s, "m") {
		num, factor = strings.TrimSuffix(s, "m"), big.NewRat(1, 1)
	} else {
		for _, x := range suffixes {
			if strings.HasSuffix(s, x.text) {
				num = strings.TrimSuffix(s, x.text)
				factor = new(big.Rat).Mul(factor, big.NewRat(x.factor, 1))
				break
			}
		}
	}
	if !plainDecimal(num) {
		return 0, fmt.Errorf("%q is not a quantity: want a number with an optional suffix m, k, M, G, T, P, Ki, Mi, Gi, Ti or Pi, such as 500m or 512Mi", s)
	}
	r, ok := new(big.Rat).SetString(num)
	if !ok {
		return 0, fmt.Errorf("%q is not a quantity", s)
	}
	r.Mul(r, factor)
	if !r.IsInt() {
		return 0, fmt.Errorf("quantity %q is finer than a thousandth", s)
	}
	if !r.Num().IsInt64() {
		return 0, fmt.Errorf("quantity %q is too large", s)
	}
	return Quantity(r.Num().Int64()), nil
}

// plainDecimal keeps out what big.Rat would take beside: signs, exponents, fractions.
func plainDecimal(s string) bool {
	digits, dots := 0, 0
	for _, c := range s {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c == '.':
			dots++
		default:
			return false
		}
	}
	return digits > 0 && digits <= 24 && dots <= 1
}

// String gives the shortest exact text form; ParseQuantity reads it back.
func (q Quantity) String() string {
	if q%1000 != 0 {
		return strconv.FormatInt(int64(q), 10) + "m"
	}
	n := int64(q) / 1000
	for _, x := range suffixes {
		// Decimal suffixes only for round numbers that are no power of two's multiple.
		if n != 0 && n%x.factor == 0 && n >= x.factor {
			if x.text == "k" { // "2k" cores or pids reads worse than 2000
				break
			}
			return strconv.FormatInt(n/x.factor, 10) + x.text
		}
	}
	return strconv.FormatInt(n, 10)
}

// MarshalJSON writes the text form.
func (q Quantity) MarshalJSON() ([]byte, error) { return json.Marshal(q.String()) }

// UnmarshalJSON reads the text form or a plain number.
func (q *Quantity) UnmarshalJSON(b []byte) error {
	s := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	}
	v, err := ParseQuantity(s)
	if err != nil {
		return err
	}
	*q = v
	return nil
}

// Duration is a time.Duration whose text form is Go's: "1.5s", "2m".
type Duration time.Duration

// String gives Go's text form without its zero tail: "2m", not "2m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalJSON writes the text form.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads the text form. A bare number is an error, for its unit
// could only be guessed.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s is not a duration: want a number with a unit, such as 500ms, 10s or 2m", b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration: want a number with a unit, such as 500ms, 10s or 2m", s)
	}
	*d = Duration(v)
	return nil
}

// Or gives the duration, or def where there is none.
func (d *Duration) Or(def time.Duration) time.Duration {
	if d == nil {
		return def
	}
	return time.Duration(*d)
}

// IntOrPercent is a count (2) or a share ("25%").
type IntOrPercent struct {
	// Value is the count or the percentage.
	Value   int
	Percent bool
}

// Count and Percent make an IntOrPercent.
func Count(n int) *IntOrPercent   { return &IntOrPercent{Value: n} }
func Percent(n int) *IntOrPercent { return &IntOrPercent{Value: n, Percent: true} }

// Of gives the count for a whole of n; a share is rounded up or down.
func (v IntOrPercent) Of(n int, roundUp bool) int {
	if !v.Percent {
		return v.Value
	}
	if roundUp {
		return (n*v.Value + 99) / 100
	}
	return n * v.Value / 100
}

// String gives "2" or "25%".
func (v IntOrPercent) String() string {
	if v.Percent {
		return strconv.Itoa(v.Value) + "%"
	}
	return strconv.Itoa(v.Value)
}

// MarshalJSON writes a number or a string with a percent sign.
func (v IntOrPercent) MarshalJSON() ([]byte, error) {
	if v.Percent {
		return json.Marshal(v.String())
	}
	return json.Marshal(v.Value)
}

// UnmarshalJSON reads a number or a string with a percent sign.
func (v *IntOrPercent) UnmarshalJSON(b []byte) error {
	var n int
	if json.Unmarshal(b, &n) == nil {
		*v = IntOrPercent{Value: n}
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err == nil && strings.HasSuffix(s, "%") {
		if n, err := strconv.Atoi(strings.TrimSuffix(s, "%")); err == nil {
			*v = IntOrPercent{Value: n, Percent: true}
			return nil
		}
	}
	return fmt.Errorf("%s is neither a count nor a percentage: want 2 or \"25%%\"", b)
}

// UnmarshalJSON reads a number or a name.
func (p *PortRef) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil // by encoding/json's convention: left as it is
	}
	var n int
	if json.Unmarshal(b, &n) == nil {
		*p = PortRef(strconv.Itoa(n))
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s is neither a port number nor a port name", b)
	}
	*p = PortRef(s)
	return nil
}
