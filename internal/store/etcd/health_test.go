package etcd

import (
	"strings"
	"testing"
)

// TestSpaceWords: what an operator is told before and when a store is full.
func TestSpaceWords(t *testing.T) {
	const quota = 100 << 20
	for _, c := range []struct {
		space Space
		want  string // "" means nothing is said
	}{
		{Space{Used: 50 << 20, Quota: quota}, ""},
		{Space{Used: 90 << 20, Quota: quota}, ""},
		{Space{Used: 91 << 20, Quota: quota}, "nearly full: 91 of 100 MiB"},
		{Space{Used: 91 << 20}, ""}, // nobody knows of how much
		{Space{Used: 50 << 20, Quota: quota, Full: true}, "etcdctl alarm disarm"},
	} {
		if got := c.space.Words(); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q", c.space, got)
		}
	}
}
