// Package settings gives numbers that people may change a name, a text form and
// a line that says what they are and why.
//
// A struct of limits lists its fields once, bound to their names; printing the
// table, setting one by name and checking all of them follow from that list. It
// owns no limit itself, and its invariant is that a setting's Value, set again,
// changes nothing.
//
//	--limit dead-after=90s --> Set --> Limits.DeadAfter
//	Table: dead-after  1m30s  how long a suspect node's silence ...
package settings
