package orchctl

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// usersShownMax is how many users a table's cell names.
const usersShownMax = 3

func configCell(f func(*api.Config) string) func(object, time.Time) string {
	return func(o object, _ time.Time) string { return f(o.value.(*api.Config)) }
}

func volumeCell(f func(*api.Volume) string) func(object, time.Time) string {
	return func(o object, _ time.Time) string { return f(o.value.(*api.Volume)) }
}

// configColumns are those of Configs and of Secrets.
var configColumns = []column{
	{title: "NAME", cell: configCell(func(c *api.Config) string { return c.Metadata.Name })},
	{title: "VERSION", cell: configCell(func(c *api.Config) string { return strconv.FormatInt(c.Status.Version, 10) })},
	{title: "KEYS", cell: configCell(func(c *api.Config) string { return strconv.Itoa(len(c.Status.Keys)) })},
	{title: "USED-BY", cell: configCell(func(c *api.Config) string { return orDash(fewOf(configUsers(c))) })},
	{title: "AGE", cell: func(o object, now time.Time) string { return age(now, o.value.(*api.Config).Metadata.CreatedAt) }},
	{title: "CHANGED", wide: true, cell: func(o object, now time.Time) string { return age(now, o.value.(*api.Config).Status.ChangedAt) }},
	{title: "BY", wide: true, cell: configCell(func(c *api.Config) string { return orDash(c.Status.ChangedBy) })},
	{title: "KEY-NAMES", wide: true, cell: configCell(func(c *api.Config) string { return orDash(strings.Join(keyNames(c), ",")) })},
}

var volumeColumns = []column{
	{title: "NAME", cell: volumeCell(func(v *api.Volume) string { return v.Metadata.Name })},
	{title: "SERVICE", cell: volumeCell(func(v *api.Volume) string { return v.Spec.Service })},
	{title: "SLOT", cell: volumeCell(func(v *api.Volume) string { return strconv.Itoa(v.Spec.Slot) })},
	{title: "NODE", cell: volumeCell(func(v *api.Volume) string { return orDash(v.Spec.Node) })},
	{title: "STATUS", cell: volumeCell(volumeWord)},
	{title: "USED-BY", cell: volumeCell(func(v *api.Volume) string { return orDash(fewOf(v.Status.UsedBy)) })},
	{title: "AGE", cell: func(o object, now time.Time) string { return age(now, o.value.(*api.Volume).Metadata.CreatedAt) }},
}

// configUsers gives the services and jobs of which a kept revision takes values, each
// once, in order; of one whose last such revision takes an older version also that:
// "web (version 1)".
func configUsers(c *api.Config) []string {
	type last struct{ revision, version int64 }
	of := map[string]last{}
	for _, v := range c.Status.Versions {
		for _, u := range v.Users {
			name, number, _ := strings.Cut(u, "@")
			revision, _ := strconv.ParseInt(number, 10, 64) // 0 of what has none
			if x, known := of[name]; !known || revision >= x.revision {
				of[name] = last{revision, v.Number}
			}
		}
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if v := of[name].version; v != c.Status.Version {
			name += fmt.Sprintf(" (version %d)", v)
		}
		out = append(out, name)
	}
	return out
}

// fewOf gives the first of a list and how many more there are.
func fewOf(list []string) string {
	if more := len(list) - usersShownMax; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:usersShownMax], ","), more)
	}
	return strings.Join(list, ",")
}

// keyNames gives the keys of the newest version, in order.
func keyNames(c *api.Config) []string {
	var out []string
	for k := range c.Status.Keys {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// volumeWord says in a word what becomes of a volume.
func volumeWord(v *api.Volume) string {
	switch {
	case v.Status.Removing:
		return "Removing"
	case len(v.Status.UsedBy) > 0:
		return "InUse"
	}
	return "Unused"
}

// sizeText gives a number of bytes that reads well: "12 B", "1.5 KiB".
func sizeText(n int) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return trimDecimal(float64(n)/(1<<10), 1) + " KiB"
	}
	return trimDecimal(float64(n)/(1<<20), 1) + " MiB"
}
