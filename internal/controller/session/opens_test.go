package session

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestOpensAreLimitedPerNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o opens
		for i := range opensBurst {
			if !o.allow("n1") {
				t.Fatalf("open %d was refused", i+1)
			}
		}
		if o.allow("n1") {
			t.Error("one more was let in")
		}
		if !o.allow("n2") {
			t.Error("another node pays for it")
		}
		time.Sleep(opensEvery)
		if !o.allow("n1") {
			t.Error("it is still refused after a pause")
		}
	})
}
