package orchctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func (t *tool) imageListCmd() *cobra.Command {
	var nodes []string
	output := ""
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "Show what images the nodes have",
		Long: `Show what images the nodes have: a row for each, with on how many nodes it is, when one
of them last needed it, and why it is kept. What nothing keeps is removed when a disk is
full of images, what was needed longest ago first.

Exit codes: 0 done, 1 a node could not be asked.`,
		Example: "  orchctl image ls\n  orchctl image ls --node n1 -o wide",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"", "wide", "json", "name"}, output) {
				return usagef("-o %s: want wide, json, name", output)
			}
			names, err := nodeNames(nodes)
			if err != nil {
				return err
			}
			return t.listImages(cmd.Context(), names, output)
		},
	}
	cmd.Flags().StringSliceVar(&nodes, "node", nil, "only those on this node; repeatable")
	cmd.Flags().StringVarP(&output, "output", "o", "", "wide, json or name; a table without it")
	t.complete(cmd, "node", t.completeNames(api.KindNode))
	t.complete(cmd, "output", cobra.FixedCompletions([]string{"wide", "json", "name"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (t *tool) imagePullCmd() *cobra.Command {
	var nodes, secrets []string
	cmd := &cobra.Command{
		Use:   "pull REF",
		Short: "Have nodes fetch an image before anything needs it",
		Long: `Have nodes fetch an image from its registry before anything needs it. Nodes use their
own logins, and those of --pull-secret.

Exit codes: 0 every node has it, 1 some do not.`,
		Example:           "  orchctl image pull registry.example/shop/web:2\n  orchctl image pull registry.example/shop/web:2 --node n1 --pull-secret hub",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := nodeNames(nodes)
			if err != nil {
				return err
			}
			doing := "pull image " + args[0]
			client, err := t.connect(cmd.Context(), doing, true)
			if err != nil {
				return err
			}
			stream, err := client.PullImage(cmd.Context(), &orchv1.PullImageRequest{Ref: args[0], Nodes: names, Namespace: t.space(), PullSecrets: secrets})
			return t.followImages(doing, "without it", stream, err)
		},
	}
	cmd.Flags().StringSliceVar(&nodes, "node", nil, "only this node; repeatable")
	cmd.Flags().StringSliceVar(&secrets, "pull-secret", nil, "secret of type registry with the login; repeatable")
	t.complete(cmd, "node", t.completeNames(api.KindNode))
	t.complete(cmd, "pull-secret", t.completeNames(api.KindSecret))
	return cmd
}

func (t *tool) imageRemoveCmd() *cobra.Command {
	var nodes []string
	force := false
	cmd := &cobra.Command{
		Use:   "rm REF",
		Short: "Remove an image from nodes",
		Long: `Remove an image from nodes, by a name or by its digest. What a container runs from stays;
what the previous revision of a service would need again goes only with --force. Without
--node an image that was loaded is not brought to other nodes any more, either.

Exit codes: 0 no node has it, 1 some keep it or could not be asked.`,
		Example:           "  orchctl image rm shop/web:1\n  orchctl image rm shop/web:1 --node n1 --force",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := nodeNames(nodes)
			if err != nil {
				return err
			}
			doing := "remove image " + args[0]
			client, err := t.connect(cmd.Context(), doing, true)
			if err != nil {
				return err
			}
			stream, err := client.RemoveImage(cmd.Context(), &orchv1.RemoveImageRequest{Ref: args[0], Nodes: names, Force: force})
			return t.followImages(doing, withItStill, stream, err)
		},
	}
	cmd.Flags().StringSliceVar(&nodes, "node", nil, "only from this node; repeatable")
	cmd.Flags().BoolVar(&force, "force", false, "also what the previous revision of a service would need again")
	t.complete(cmd, "node", t.completeNames(api.KindNode))
	return cmd
}

// progressStream gives how far nodes are.
type progressStream interface {
	Recv() (*orchv1.ImageProgress, error)
}

// withItStill are nodes from which an image was not removed.
const withItStill = "with it still"

// followImages shows how far nodes are with an image. left says what nodes are that did
// not come to the end. On a terminal the lines of all nodes are drawn over; else a node
// has a line when it has come noticeably further.
func (t *tool) followImages(doing, left string, stream progressStream, err error) error {
	if err != nil {
		return t.failed(err, doing, operator)
	}
	nodes := map[string]*nodeProgress{}
	_, _, live := t.Screen()
	b := &block{t: t}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return t.failed(err, doing, operator)
		}
		n := nodes[m.GetNode()]
		if n == nil {
			n = &nodeProgress{}
			nodes[m.GetNode()] = n
		}
		news := n.take(m)
		switch {
		case live:
			var lines []string
			for _, name := range sortedNames(nodes) {
				lines = append(lines, nodes[name].line(name))
			}
			if err := b.show(lines); err != nil {
				return err
			}
		case news:
			if err := t.printf("%s\n", n.line(m.GetNode())); err != nil {
				return err
			}
		}
	}
	var failed []string
	found := false // "done" without a digest: there was nothing to do
	for _, name := range sortedNames(nodes) {
		last := nodes[name].last
		found = found || last.GetDigest() != "" || last.GetState() != "done"
		if last.GetState() != "done" {
			failed = append(failed, cleanText(name))
		}
	}
	if !found && len(nodes) > 0 && left == withItStill {
		return fmt.Errorf("%s: no node has it; `orchctl image ls` shows what they have", doing)
	}
	if len(failed) > 0 {
		return fmt.Errorf("%s: %s %s: %s", doing, count(len(failed), "node"), left, strings.Join(failed, ", "))
	}
	return nil
}

func sortedNames[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// nodeProgress is how far one node is.
type nodeProgress struct {
	last *orchv1.ImageProgress
	told int64 // share of the bytes that was last told, in quarters
}

// take tells whether the node has come noticeably further: to another state, or by a
// quarter of the bytes.
func (n *nodeProgress) take(m *orchv1.ImageProgress) bool {
	const steps = 4
	before := n.last
	n.last = m
	at := int64(0)
	if m.GetTotal() > 0 {
		at = steps * m.GetDone() / m.GetTotal()
	}
	news := before == nil || before.GetState() != m.GetState() || at > n.told
	if news {
		n.told = at
	}
	return news
}

func (n *nodeProgress) line(node string) string {
	text := n.last.GetState()
	if m := n.last.GetMessage(); m != "" {
		text += ": " + m
	}
	if d := n.last.GetDigest(); d != "" && n.last.GetState() == "done" {
		text += " (" + shortDigest(d) + ")"
	}
	return cleanText(node) + ": " + cleanText(text)
}

// show draws lines over those of before.
func (b *block) show(lines []string) error {
	width, height, _ := b.t.Screen()
	if room := max(1, height-1); len(lines) > room {
		lines = append(lines[:room-1:room-1], fmt.Sprintf("and %d more nodes", len(lines)-room+1))
	}
	var out strings.Builder
	out.WriteString(b.erase())
	for _, l := range lines {
		out.WriteString(clip(l, width-1) + "\n")
	}
	b.lines = len(lines)
	_, err := io.WriteString(b.t.Out, out.String())
	return err
}

// shownImage is one image on all nodes that have it.
type shownImage struct {
	Refs   []string  `json:"refs"`
	Digest string    `json:"digest"`
	Bytes  int64     `json:"bytes"`
	Nodes  []string  `json:"nodes"`
	Used   time.Time `json:"used,omitzero"`
	Keep   []string  `json:"keep,omitempty"`
}

// ref is the name that stands for the image.
func (x shownImage) ref() string {
	if len(x.Refs) == 0 {
		return "-"
	}
	return x.Refs[0]
}

// gathered is what nodes told of their images.
type gathered struct {
	Images []shownImage `json:"images"`
	// Nodes that were asked, with why where one could not be.
	Nodes map[string]string `json:"nodes"`
}

func (t *tool) listImages(ctx context.Context, nodes []string, output string) error {
	const doing = "list images"
	client, err := t.connect(ctx, doing, false)
	if err != nil {
		return err
	}
	stream, err := client.ListImages(ctx, &orchv1.ListImagesRequest{Nodes: nodes})
	if err != nil {
		return t.failed(err, doing, viewer)
	}
	var all []*orchv1.NodeImages
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return t.failed(err, doing, viewer)
		}
		all = append(all, m)
	}
	x := gather(all)
	switch output {
	case "json":
		err = t.writeJSON(x)
	case "name":
		for _, i := range x.Images {
			if err := t.printf("%s\n", cleanText(i.ref())); err != nil {
				return err
			}
		}
	default:
		err = t.imageTable(x, output == "wide")
	}
	if err != nil {
		return err
	}
	silent := 0
	for _, name := range sortedNames(x.Nodes) {
		if why := x.Nodes[name]; why != "" {
			silent++
			t.warnf("node %s: %s", cleanText(name), cleanText(why))
		}
	}
	if silent > 0 {
		return exitStatus(exitFailed)
	}
	return nil
}

// gather puts together what nodes have by the same digest.
func gather(all []*orchv1.NodeImages) gathered {
	out := gathered{Images: []shownImage{}, Nodes: map[string]string{}}
	of := map[string]*shownImage{}
	slices.SortFunc(all, func(a, b *orchv1.NodeImages) int { return cmp.Compare(a.GetNode(), b.GetNode()) })
	for _, n := range all {
		out.Nodes[n.GetNode()] = n.GetError()
		for _, i := range n.GetImages() {
			x := of[i.GetDigest()]
			if x == nil {
				x = &shownImage{Digest: i.GetDigest()}
				of[i.GetDigest()] = x
			}
			x.Bytes, x.Nodes = max(x.Bytes, i.GetSize()), append(x.Nodes, n.GetNode())
			for _, ref := range i.GetRefs() {
				if !slices.Contains(x.Refs, ref) {
					x.Refs = append(x.Refs, ref)
				}
			}
			if used := wire.TimeFromPB(i.GetUsed()); used.After(x.Used) {
				x.Used = used
			}
			if why := i.GetKeep(); why != "" && !slices.Contains(x.Keep, why) {
				x.Keep = append(x.Keep, why)
			}
		}
	}
	for _, digest := range sortedNames(of) {
		x := of[digest]
		// A tag says more than the digest by which it is kept.
		slices.SortFunc(x.Refs, func(a, b string) int {
			return cmp.Or(cmp.Compare(strings.Count(a, "@"), strings.Count(b, "@")), cmp.Compare(a, b))
		})
		out.Images = append(out.Images, *x)
	}
	slices.SortStableFunc(out.Images, func(a, b shownImage) int { return cmp.Compare(a.ref(), b.ref()) })
	return out
}

func (t *tool) imageTable(x gathered, wide bool) error {
	titles := []string{"REF", "DIGEST", "SIZE", "NODES", "USED", "KEEP"}
	if wide {
		titles = append(titles, "ON", "OTHER NAMES")
	}
	var rows [][]string
	now := t.Now()
	for _, i := range x.Images {
		keep := "-"
		if len(i.Keep) > 0 {
			keep = i.Keep[0]
			if more := len(i.Keep) - 1; more > 0 && !wide {
				keep += fmt.Sprintf(" and %d more", more)
			} else if wide {
				keep = strings.Join(i.Keep, ", ")
			}
		}
		digest := shortDigest(i.Digest)
		if wide {
			digest = i.Digest
		}
		row := []string{i.ref(), digest, mebibytes(i.Bytes), fmt.Sprintf("%d of %d", len(i.Nodes), len(x.Nodes)), age(now, i.Used), keep}
		if wide {
			row = append(row, strings.Join(i.Nodes, ","), strings.Join(i.Refs[min(1, len(i.Refs)):], ", "))
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		t.warnf("no node has images")
		return nil
	}
	return newTable(titles...).print(t.Out, "", rows...)
}
