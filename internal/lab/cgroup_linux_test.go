package lab

import (
	"reflect"
	"testing"
)

func TestParseHierarchies(t *testing.T) {
	for _, test := range []struct {
		name, info string
		want       []hierarchy
	}{
		{"v2", `24 1 0:22 / /sys rw - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
31 24 0:27 / /sys/fs/bpf rw - bpf bpf rw
`, []hierarchy{{dir: "/sys/fs/cgroup", v2: true}}},
		{"v1", `30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
`, []hierarchy{
			{dir: "/sys/fs/cgroup/cpu,cpuacct", controllers: []string{"rw", "cpu", "cpuacct"}},
			{dir: "/sys/fs/cgroup/systemd", controllers: []string{"rw", "xattr", "name=systemd"}},
		}},
		{"hybrid", `31 30 0:27 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 30 0:29 / /elsewhere rw - cgroup2 cgroup2 rw
`, []hierarchy{
			{dir: "/sys/fs/cgroup/freezer", controllers: []string{"rw", "freezer"}},
			{dir: "/sys/fs/cgroup/unified", v2: true},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := parseHierarchies(test.info); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
