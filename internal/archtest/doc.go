// Package archtest keeps the shape of the house: which room may use which, and
// that the pure cores stay pure. It has no code of its own, only tests; each
// rule fails with the reason why it is there.
package archtest
