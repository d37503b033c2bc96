package ctrd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

func TestMemoryEvidence(t *testing.T) {
	for _, c := range []struct {
		e    memoryEvidence
		want string
	}{
		{memoryEvidence{limit: 64 << 20, peak: 64 << 20}, " (limit 64Mi, peak 64Mi)"},
		{memoryEvidence{limit: 64 << 20, peak: 64<<20 - 4096}, " (limit 64Mi, peak 64Mi)"},
		{memoryEvidence{limit: 64 << 20}, " (limit 64Mi)"},
		{memoryEvidence{peak: 96 << 20}, " (peak 96Mi)"},
		{memoryEvidence{peak: 512 << 10}, " (peak 512Ki)"},
		{memoryEvidence{}, ""},
	} {
		if got := c.e.String(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.e, got, c.want)
		}
	}
	e := judgeExit(137, time.Unix(0, 0), memoryEvidence{oomKills: 1, limit: 64 << 20, peak: 64 << 20}, "")
	if !e.OOM || e.Reason != api.ExitOutOfMemory || e.Words() != "exit code 137, killed for want of memory (limit 64Mi, peak 64Mi)" {
		t.Errorf("%+v", e)
	}
	e = judgeExit(3, time.Unix(0, 0), memoryEvidence{oomKills: 2, limit: 64 << 20}, "")
	if e.OOM || !strings.HasSuffix(e.Message, "the kernel had killed 2 of its processes for want of memory (limit 64Mi)") {
		t.Errorf("%+v", e)
	}
}

func TestReadBytes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "memory.peak")
	for text, want := range map[string]int64{"67108864\n": 64 << 20, "max\n": 0, "9223372036854771712\n": 0, "": 0} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := readBytes(file); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if got := readBytes(file + "no"); got != 0 {
		t.Errorf("no file: %d", got)
	}
}
